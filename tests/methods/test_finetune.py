"""A causal model trained with its prompt, on tiny random Llamas: it learns, its base stays as it is, what is saved, what is refused."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from small_tasks import POOLS, QUERIES, example

import icl
from icl import FewShot, load_model, plugins, ship
from icl.errors import InputError
from icl.methods.finetune import Finetune, Settings
from icl.protocols import MethodContext

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = {"red": ["blood", "rose", "brick"], "green": ["grass", "leaf", "frog"], "blue": ["sky", "sea", "ink"]}
QUICK = {"kind": "full", "epochs": 6, "learning_rate": 5e-3, "batch_size": 8}


def rows(n, seed=0, labels=tuple(WORDS)):
    """The label is told by one word."""
    rng = random.Random(seed)
    return [
        example({"text": f"{rng.choice('abcd')} {rng.choice(WORDS[label])}"}, label, occurrence=i)
        for i, label in enumerate(labels[i % len(labels)] for i in range(n))
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny.save(tmp_path_factory.mktemp("llama"), "llama", "chatml"))


@pytest.fixture(scope="module")
def lm(base):
    return load_model(base, device="cpu")


def method(lm, task="classify", inputs=("text",), work=None, **settings):
    context = MethodContext(task, inputs, seed=1, lm=lm, work=work)
    return plugins.build("method", {"finetune": {**QUICK, **settings}}, context)


def fit(lm, pool, labels=tuple(WORDS), *, targets=None, **settings):
    return method(lm, **settings).fit(pool, labels, targets=targets)


def accuracy(predictor, queries):
    return sum(p.answer == e.target for p, e in zip(predictor.predict(queries), queries, strict=True)) / len(queries)


def shares_of(predictor, queries):
    return [list(p.probabilities.values()) for p in predictor.predict(queries)]


@pytest.mark.parametrize("settings", [
    {},
    {"kind": "lora", "rank": 8},
    {"kind": "added_attention", "virtual_tokens": 8, "epochs": 20, "learning_rate": 0.1},
    {"loss": ["language_model", "unlikelihood", "length_normalised"], "readout": "per_token"},
    {"format": "chat", "label_smoothing": 0.1, "focal": 1.0, "class_weights": "balanced"},
], ids=["full", "lora", "added_attention", "t-few", "chat"])  # fmt: skip
def test_it_learns_and_its_base_stays_as_it_is(lm, settings):
    queries = rows(24, seed=1)
    words = {name: t.clone() for name, t in lm.model.state_dict().items()}
    before = shares_of(FewShot(lm, shots=0).fit(queries), queries)
    predictor = fit(lm, rows(48), **settings)
    assert accuracy(predictor, queries) >= 0.9
    curve = predictor.training["curve"]
    assert curve[-1]["loss"] < curve[0]["loss"] / 2
    assert all(torch.equal(t, words[name]) for name, t in lm.model.state_dict().items())
    assert all(p.requires_grad for p in lm.model.parameters())
    assert shares_of(FewShot(lm, shots=0).fit(queries), queries) == before


def test_untrained_it_is_the_prompt_without_demonstrations(lm):
    """The same prompts, label words and scores: a step of no length changes nothing."""
    queries = rows(6, seed=1)
    predictor = fit(lm, rows(9), epochs=1, learning_rate=1e-30, kind="lora")
    prompted = FewShot(lm, shots=0).fit([], tuple(WORDS), inputs=("text",), kind="classify")
    assert [p.text for p in predictor.prompts(queries)] == [p.text for p in prompted.prompts(queries)]
    for one, other in zip(predictor.predict(queries), prompted.predict(queries), strict=True):
        assert one.scores.sums == pytest.approx(other.scores.sums, abs=1e-4)
        assert one.n_tokens == other.n_tokens


@pytest.mark.parametrize("kind", ["lora", "full", "prefix", "added_attention"])
def test_saved_and_loaded(tmp_path, lm, base, kind):
    predictor = fit(lm, rows(12), kind=kind, epochs=1)
    queries = rows(5, seed=1)
    expected = shares_of(predictor, queries)
    predictor.save(tmp_path / "saved")
    assert shares_of(icl.load(tmp_path / "saved"), queries) == expected
    state = json.loads((tmp_path / "saved" / "predictor.json").read_text())
    assert state["training"]["n_trained"] == predictor.training["n_trained"]
    shown = icl.load(tmp_path / "saved")._repr_html_()
    for part in ("<td>Finetuned</td>", f"<th>kind</th><td>{kind}</td>", "<td>12 examples</td>", "<th>template</th><td>default</td>"):
        assert part in shown, shown
    saved = plugins.build("method", {"saved": {"path": str(tmp_path / "saved")}}, MethodContext("classify", ("text",), lm=lm)).fit()
    assert shares_of(saved, queries) == expected
    if kind != "full":  # the base that is loaded already is not loaded again
        assert {p.data_ptr() for p in saved.lm.model.parameters()} & {p.data_ptr() for p in lm.model.parameters()}
    if kind in ("lora", "added_attention"):  # PEFT's own format
        other = load_model(base, adapter=tmp_path / "saved" / "adapter", device="cpu")
        assert shares_of(FewShot(other, shots=0).fit([], tuple(WORDS)), queries) == [pytest.approx(each, abs=1e-5) for each in expected]
    again = icl.load(tmp_path / "saved")
    again.save(tmp_path / "again")
    assert shares_of(icl.load(tmp_path / "again"), queries) == expected


def test_a_base_of_its_own(tmp_path, lm):
    """Another model than the suite's, which may then be anything."""
    other = str(tiny.save(tmp_path / "gpt2", "gpt2"))
    predictor = fit(lm, rows(9), base=other, epochs=1, kind="lora")
    assert predictor.training["base"] == other
    assert "gpt2" in type(predictor.lm.model).__name__.lower()
    assert fit(None, rows(9), base=other, epochs=1).predict(rows(3))[0].answer in WORDS


def test_eight_rows_in_all_and_labels_that_they_lack(lm):
    predictor = fit(lm, rows(8), (*WORDS, "grey"), epochs=None, batch_size=2)
    assert predictor.training["epochs"] == 20
    words = {str(e.fields["text"]).split()[1] for e in rows(8)}
    queries = [e for e in rows(40, seed=1) if str(e.fields["text"]).split()[1] in words]
    assert accuracy(predictor, queries) > 0.55  # words that it has seen; by chance a third
    shares = predictor.predict(queries)[0].probabilities
    assert list(shares) == [*WORDS, "grey"]
    assert 0 < shares["grey"] < 0.5
    assert sum(shares.values()) == pytest.approx(1)


def test_probabilities_of_a_teacher_are_learned_instead_of_labels(lm):
    """The rows' own labels are never looked at: they are wrong here."""
    pool, teacher = rows(48), {"red": (0.7, 0.3, 0.0), "green": (0.1, 0.6, 0.3), "blue": (0.2, 0.0, 0.8)}
    wrong = [example(e.fields, "red" if i % 2 else None, occurrence=i) for i, e in enumerate(pool)]
    predictor = fit(lm, wrong, targets=[teacher[e.target] for e in pool], epochs=20, learning_rate=1e-2, validation=0.2)
    for query, shares in zip(rows(9, seed=3), shares_of(predictor, rows(9, seed=3)), strict=True):
        assert shares == pytest.approx(list(teacher[query.target]), abs=0.15)
    with pytest.raises(InputError, match="has 2 probabilities where there are 3 labels"):
        fit(lm, wrong, targets=[(0.5, 0.5)] * 48)


def test_answers_in_words_are_trained_with_their_end(lm):
    pool = [*POOLS["answer"]()] * 2
    predictor = method(lm, "answer", ("question",), epochs=25, max_new_tokens=8, format="plain").fit(pool)
    found = predictor.predict(pool[:8])
    assert [p.answer for p in found] == [e.target for e in pool[:8]]
    assert predictor.training["curve"][-1]["loss"] < 0.1
    with pytest.raises(InputError, match="one set of labels"):
        method(lm, "answer", ("question",)).fit(pool, targets=[()] * len(pool))


def test_choices_differ_by_row(lm):
    pool = POOLS["choose"]()
    predictor = method(lm, "choose", ("question",), epochs=25).fit(pool)
    assert [p.answer for p in predictor.predict(pool)] == [e.target for e in pool]
    assert predictor.predict(QUERIES["choose"])[0].answer in QUERIES["choose"][0].choices


def test_in_python_on_a_prompt_of_ones_own(tmp_path, lm):
    predictor = Finetune(Settings(**QUICK), FewShot(lm, template="sentiment", shots=4), seed=1).fit(rows(48), tuple(WORDS))
    queries = rows(12, seed=1)
    assert accuracy(predictor, queries) >= 0.9
    assert not predictor.predict(queries)[0].demonstrations
    assert predictor.prompt(queries[0]).text.startswith("Review:")
    predictor.save(tmp_path / "saved")
    assert shares_of(icl.load(tmp_path / "saved"), queries) == shares_of(predictor, queries)


def test_several_words_of_a_label_and_a_calibration(tmp_path, lm):
    context = MethodContext("classify", ("text",), seed=1, lm=lm, words={"red": ["red", "crimson"], "green": ["green"], "blue": ["blue"]})
    built = plugins.build("method", {"finetune": {**QUICK, "calibration": "contextual"}}, context)
    predictor = built.fit(rows(48), tuple(WORDS))
    queries = rows(12, seed=1)
    assert accuracy(predictor, queries) >= 0.9
    assert len(predictor.predict(queries)[0].scores.candidates) == 4
    expected = shares_of(predictor, queries)
    predictor.save(tmp_path / "saved")
    assert shares_of(icl.load(tmp_path / "saved"), queries) == [pytest.approx(each) for each in expected]


def test_validation_within_the_pool(lm):
    held = fit(lm, rows(30), validation=0.2, patience=2, epochs=8)
    assert held.training["validation"] == {"n_rows": 6, "folds": 0}
    assert held.training["n_rows"] == 24
    best = max(held.training["curve"], key=lambda point: (point["accuracy"], -point["validation_loss"]))
    assert held.training["best_epoch"] == best["epoch"]
    folded = fit(lm, rows(10), validation="folds", epochs=1)
    assert folded.training["validation"] == {"n_rows": 0, "folds": 5}
    assert folded.training["n_rows"] == 10


def test_what_it_costs_is_counted(lm):
    predictor = fit(lm, rows(12), epochs=2, kind="ia3")
    record = predictor.training
    assert record["n_trained"] < record["n_parameters"] / 100
    assert record["n_steps"] == 4
    assert record["n_tokens"] > 2 * sum(p.n_tokens for p in predictor.prompts(rows(12)))
    assert record["operations"] > 0
    assert predictor.totals.computed == 0
    before = lm.totals.computed
    predictor.predict(rows(5))
    assert predictor.totals.computed > 0
    assert predictor.totals.operations > 2 * predictor.totals.computed * 1000
    assert lm.totals.computed == before


def test_a_row_that_no_prompt_can_hold_is_left_out_and_counted(lm):
    pool = [*rows(9), example({"text": "word " * 400}, "red")]
    predictor = fit(lm, pool, epochs=1, max_tokens=60)
    assert (predictor.training["n_rows"], predictor.training["n_unfit"]) == (9, 1)
    with pytest.raises(InputError, match="no example fits"):
        fit(lm, rows(9), max_tokens=3)


def refused(lm, base, tmp_path, case):
    pool, settings = rows(12), {}
    if case == "one label":
        pool = rows(12, labels=("red",))
    elif case == "no labels":
        pool = [example(e.fields, None) for e in pool]
    elif case == "an encoder-decoder":
        lm, settings = load_model(str(tiny.save(tmp_path / "t5", "t5")), device="cpu"), {"kind": "bitfit"}
    elif case == "no model":
        lm = None
    elif case == "an address":
        settings = {"base": "https://models.example/v1#m"}
    elif case == "4 bits on a CPU":
        settings = {"quantization": "4bit", "base": base}
    elif case == "checkpointing on a CPU":
        settings = {"gradient_checkpointing": True}
    elif case == "too many layers frozen":
        settings = {"kind": "freeze", "freeze": 3}
    elif case == "layers it lacks":
        settings = {"kind": "lora", "target_modules": ["query"]}
    elif case == "a calibration on labels":
        settings = {"calibration": "batch"}
    elif case == "no prefix":
        lm, settings = load_model(str(tiny.save(tmp_path / "gpt2", "gpt2")), device="cpu"), {"kind": "prefix"}
    fit(lm, pool, **settings)


@pytest.mark.parametrize(("case", "says"), [
    ("one label", "nothing to tell apart"),
    ("no labels", "was given none"),
    ("an encoder-decoder", "not for an encoder-decoder model"),
    ("no model", "no language model is given"),
    ("an address", "cannot be trained from here"),
    ("4 bits on a CPU", "needs a CUDA device"),
    ("checkpointing on a CPU", "the model is on a CPU"),
    ("too many layers frozen", "the model has 2 layers"),
    ("layers it lacks", "no linear layers named 'query'"),
    ("a calibration on labels", "fitted on labelled examples"),
    ("no prefix", "stand apart"),
])  # fmt: skip
def test_what_cannot_be_trained_is_said_before_training(lm, base, tmp_path, monkeypatch, case, says):
    def step(*args):
        raise AssertionError("it trains")

    monkeypatch.setattr("icl.train.loop._Trainer.training_step", step)
    if torch.cuda.is_available() and "CPU" in case:
        pytest.skip("there is a CUDA device")
    with pytest.raises(InputError, match=says):
        refused(lm, base, tmp_path, case)


@pytest.mark.parametrize(
    "option", [{"kinds": "lora"}, {"kind": "lore"}, {"rank": 0}, {"loss": []}, {"loss": ["labels", "labels"]}, {"freeze": -1}]
)
def test_options_it_does_not_know(option):
    with pytest.raises(InputError, match=next(iter(option))):
        plugins.build("method", {"finetune": option}, MethodContext("classify", ("text",)))


def test_a_suite_judges_it_beside_the_prompt_and_ships_it(tmp_path, base):
    """Saved, exported, and checked; what it cost stands in timing.json. One with a base of its own is no cell of the suite's model."""
    train, test = ([{"text": e.fields["text"], "label": e.target} for e in rows(n, seed)] for n, seed in ((48, 0), (40, 5)))
    train, test = ([dict(t) for t in {r["text"]: r for r in each}.values()] for each in (train, test))
    known = {row["text"] for row in train}
    suite = {
        "models": [base],
        "tasks": [{"name": "colours", "train": train, "test": [r for r in test if r["text"] not in known]}],
        "methods": ["zero_shot", {"name": "tuned", "finetune": QUICK}, {"name": "own", "finetune": {**QUICK, "base": base, "epochs": 1}}],
        "budgets": ["all"],
        "seeds": 1,
        "metrics": ["accuracy"],
    }
    run = icl.run(suite, out=tmp_path / "run")
    of = {record["method"]: record for record in run.results}
    assert of["tuned"]["model"] is not None
    assert of["own"]["model"] is None
    assert of["tuned"]["n_failed"] == of["own"]["n_failed"] == 0
    timing = (tmp_path / "run" / "timing.json").read_text()
    assert '"n_trained": 42912' in timing
    manifest = json.loads((tmp_path / "run" / "results.json").read_text())["manifest"]
    assert base in manifest["bases"]
    ship.export(tmp_path / "run", tmp_path / "shipped", "tuned")
    assert ship.check(tmp_path / "shipped") == []
    assert not (tmp_path / "run" / "training").exists()


def test_answers_and_choices_are_held_out_too(lm):
    """Each row has an answer of its own."""
    predictor = method(lm, "choose", ("question",), epochs=2, validation=0.25).fit(POOLS["choose"]())
    assert predictor.training["validation"]["n_rows"] == 2
    assert "accuracy" in predictor.training["curve"][0]
    answers = method(lm, "answer", ("question",), epochs=2, validation=0.25, max_new_tokens=4).fit(POOLS["answer"]())
    assert set(answers.training["curve"][0]) == {"epoch", "step", "loss", "validation_loss"}


def test_mixed_precision_leaves_no_trace(lm):
    """Trained under autocast, used without it."""
    predictor = fit(lm, rows(12), epochs=1, precision="bf16")
    assert {p.dtype for p in predictor.lm.model.parameters()} == {torch.float32}
    assert predictor.lm.examined.deviation < 1e-4


@pytest.mark.slow
def test_kill_9_and_resume_end_in_the_same_predictions(tmp_path, base):
    """At ten random points, the middle of writing a checkpoint among them."""
    script = Path(__file__).with_name("finetune_killed.py")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, [script.parents[2], script.parent, script.parents[1]])),
    }
    done = subprocess.run(
        [sys.executable, str(script), base, str(tmp_path)], env=environment, capture_output=True, text=True, check=False, timeout=580
    )
    assert done.returncode == 0, done.stderr
    expected, *resumed = json.loads(done.stdout.splitlines()[-1])
    assert len(resumed) == 10
    assert all(found == expected for found in resumed)
