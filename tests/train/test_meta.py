"""Meta-training: which tasks are left out, what an episode is and what of it is learned, and that it helps on a task not seen."""

import json
import random

import pytest
import tiny

import icl
from icl.errors import InputError
from icl.train.episodes import Episodes
from icl.train.meta import Tasks, train_meta
from icl.train.meta_settings import MetaSettings
from icl.train.task_folder import read_folder

NOUNS = ["film", "plot", "team", "order", "words", "people", "cup", "prices", "jokes", "share"]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "tasks"
    rng = random.Random(0)
    for name, labels in {"one": ("positive", "negative"), "two": ("yes", "no"), "three": ("a", "b", "c")}.items():
        (root / name).mkdir(parents=True)
        rows = [{"text": f"{' '.join(rng.sample(NOUNS, 6))} {name} {i}", "label": labels[i % len(labels)]} for i in range(30)]
        (root / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    choices = [{"question": f"Which {w} {i}?", "choices": ["this", "that"], "label": i % 2, "answer": ["x"]} for i, w in enumerate(NOUNS)]
    (root / "choice.jsonl").write_text("".join(json.dumps(row) + "\n" for row in choices))
    answers = [{"question": f"Where is the {w}?", "answer": [f"in {w}", "there"]} for w in NOUNS]
    (root / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    (root / "tasks.json").write_text("[]")
    return root


def read(folder, **how):
    return read_folder(folder, **{"exclude": (), "held_out": (), "kinds": ("classify", "choose", "answer"), "overlap": 0.05, **how})


def test_tasks_of_all_forms_are_read(folder):
    assert {t.name: t.kind for t in read(folder).tasks} == {
        "answers": "answer", "choice": "choose", "one": "classify", "three": "classify", "two": "classify",
    }  # fmt: skip


def test_tasks_are_left_out_by_name_and_by_text(folder, tmp_path):
    lines = [json.loads(line) for line in (folder / "two" / "train.jsonl").read_text().splitlines()]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps({"sentence": f"Begin: {row['text'].upper()}!"}) + "\n" for row in lines[:4]))
    with (folder / "one" / "train.jsonl").open("a") as file:
        file.write(json.dumps({"text": lines[0]["text"], "label": "positive"}) + "\n")
    found = read(folder, exclude=["th*"], held_out=[tmp_path / "test.jsonl"])
    assert [t.name for t in found.tasks] == ["answers", "choice", "one"]
    assert found.left_out == {"three": "excluded by name", "two": "4 of its 30 rows have text of the held-out data"}
    assert found.rows_left_out == {"one": 1}
    assert not any(lines[0]["text"] in str(row.fields) for row in found.tasks[2].rows)
    with pytest.raises(InputError, match="no task is named 'tow'"):
        read(folder, exclude=["tow"])
    with pytest.raises(InputError, match="1 tasks are left"):
        read(folder, exclude=["t*", "a*", "c*"])


def test_an_episode_is_a_few_shot_prompt_and_its_answers_are_what_is_learned(folder):
    tokenizer = tiny.tokenizer()
    settings = MetaSettings(shots=4, max_tokens=400, random_words=0.0)
    draws = Episodes(read(folder).tasks, tokenizer, settings, 0, "episode")
    drawn = [draws.draw(number) for number in range(60)]
    assert {e.task for e in drawn} == {"one", "two", "three", "choice", "answers"}
    for e in drawn:
        text = tokenizer.decode(e.ids)
        assert text.count("\n\n") == e.n_shots == 4
        answers = [tokenizer.decode(e.ids[start:stop]) for start, stop in e.answers]
        assert answers == [block.rpartition(":")[2] for block in text.split("\n\n")]
        assert e.answers[-1][1] == len(e.ids)
    assert draws.draw(7) == drawn[7]  # from its number alone
    last = Episodes(read(folder).tasks, tokenizer, settings.model_copy(update={"every_answer": False}), 0, "episode")
    assert all(len(last.draw(n).answers) == 1 for n in range(5))


def test_the_default_template_writes_one_of_the_forms(folder):
    task = next(t for t in read(folder).tasks if t.name == "one")
    predictor = icl.FewShot(None, retriever="random", shots=2).fit(task.rows, labels=task.labels)
    prompt = predictor.prompt("some text").text
    draws = Episodes([task], tiny.tokenizer(), MetaSettings(shots=2, random_words=0.0), 0, "episode")
    texts = [tiny.tokenizer().decode(draws.draw(n).ids) for n in range(20)]
    ours = next(text for text in texts if text.startswith("Text:"))
    assert [line.partition(":")[0] for line in ours.split("\n")] == [line.partition(":")[0] for line in prompt.split("\n")]


def test_random_words_are_learned_only_where_they_were_shown(folder):
    tokenizer = tiny.tokenizer()
    tasks = [t for t in read(folder).tasks if t.kind == "classify"]
    draws = Episodes(tasks, tokenizer, MetaSettings(shots=6, random_words=1.0), 0, "episode")
    for number in range(20):
        e = draws.draw(number)
        assert e.random_words
        blocks = tokenizer.decode(e.ids).split("\n\n")
        words = [block.rpartition(":")[2] for block in blocks]
        assert not {word.strip() for word in words} & {"positive", "negative", "yes", "no", "a", "b", "c"}
        assert len(e.answers) == len(words) - len(set(words))


def test_what_does_not_fit_is_left_out(folder):
    draws = Episodes(read(folder).tasks, tiny.tokenizer(), MetaSettings(shots=8, max_tokens=120, characters=40), 0, "episode")
    drawn = [draws.draw(number) for number in range(20)]
    assert max(len(e.ids) for e in drawn) <= 120
    assert min(e.n_shots for e in drawn) < 8


def save_quick(folder):
    """A random model whose answers can be learned within seconds."""
    return str(tiny.save(folder, "llama"))


SETTINGS = {"episodes": 48, "shots": 3, "max_tokens": 200, "validations": 2, "validation_tasks": 1, "validation_episodes": 4, "rank": 4}


def test_an_adapter_comes_out(folder, tmp_path):
    base = save_quick(tmp_path / "base")
    points = []
    tasks = Tasks(folder, exclude=["three"])
    settings = MetaSettings(**SETTINGS, learning_rate=5e-3)
    record = train_meta(tasks, tmp_path / "out", base=base, settings=settings, on_point=points.append)
    assert [point["step"] for point in points] == [3, 6]
    assert points[1]["loss"] < points[0]["loss"]
    assert len(record["tasks"]) == 3
    assert len(record["validation_tasks"]) == 1
    assert record["left_out"] == {"three": "excluded by name"}
    assert sum(task["n_episodes"] for task in record["tasks"].values()) == 48
    assert record["training"]["n_trained"] < record["training"]["n_parameters"] / 4
    assert json.loads((tmp_path / "out" / "meta.json").read_text()) == record
    before, after = icl.load_model(base), icl.load_model(base, adapter=tmp_path / "out")
    prompt, words = "Text: film\nLabel:", [" positive", " negative", " cup"]
    assert before.loglikelihoods([prompt], [words]) != after.loglikelihoods([prompt], [words])
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == base
    assert {p.suffix for p in (tmp_path / "out").iterdir()} == {".json", ".safetensors"}


def test_the_loss_before_training_is_that_of_the_base(folder, tmp_path):
    settings = MetaSettings(**{**SETTINGS, "episodes": 8}, learning_rate=1e-12)
    record = train_meta(Tasks(folder), tmp_path / "out", base=save_quick(tmp_path / "base"), settings=settings)
    assert record["validation_loss_before"] == pytest.approx(record["training"]["curve"][-1]["validation_loss"], abs=1e-5)


def test_interrupted_it_goes_on(folder, tmp_path):
    from safetensors.torch import load_file

    base = save_quick(tmp_path / "base")
    settings = MetaSettings(**SETTINGS, checkpoint_every=0)

    def cut_short(point):
        raise RuntimeError("power cut")

    train_meta(Tasks(folder), tmp_path / "one", base=base, settings=settings)
    with pytest.raises(RuntimeError, match="power cut"):
        train_meta(Tasks(folder), tmp_path / "two", base=base, settings=settings, on_point=cut_short)
    assert list((tmp_path / "two" / "working").glob("checkpoint-*/done"))
    train_meta(Tasks(folder), tmp_path / "two", base=base, settings=settings)
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(bool((one[name] == two[name]).all()) for name in one)


def test_a_folder_that_holds_something_else_is_left_alone(folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("…")
    with pytest.raises(InputError, match="not a meta-trained adapter"):
        train_meta(Tasks(folder), tmp_path / "mine")
