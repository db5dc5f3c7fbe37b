"""`hf:` names: the form, the local copy, and the message when there is neither."""

import json

import pytest

from icl.data import Task
from icl.data.hub import parse_hub_name
from icl.errors import InputError


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows_of(prefix, n=4):
    return [{"text": f"{prefix} {i}", "label": "ab"[i % 2]} for i in range(n)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf:sst2", ("sst2", None, None, None)),
        ("hf:owner/name", ("owner/name", None, None, None)),
        ("hf:nyu-mll/glue/rte", ("nyu-mll/glue", "rte", None, None)),
        ("hf:owner/name@abc123:test", ("owner/name", None, "abc123", "test")),
        ("hf:owner/name/cfg-1@v1.0:train[:10%]", ("owner/name", "cfg-1", "v1.0", "train[:10%]")),
    ],
)
def test_the_form(text, parts):
    found = parse_hub_name(text)
    assert (found.name, found.config, found.revision, found.split) == parts


@pytest.mark.parametrize("text", ["hf:", "hf:a//b", "hf:../x", "hf:a/../b", "hf:a@", "hf:a:", "hf:/etc/passwd"])
def test_other_forms_are_refused(text):
    with pytest.raises(InputError, match="Write hf:owner/name"):
        parse_hub_name(text)


@pytest.mark.parametrize("folder", ["owner/my-set", "my-set", "my_set"])
def test_a_local_copy_is_used_with_its_test_and_dev_splits(tmp_path, folder):
    for split in ("train", "dev", "test"):
        write(tmp_path / folder / f"{split}.jsonl", rows_of(split))
    task = Task.load("hf:owner/my-set", data_root=tmp_path)
    assert [e.fields["text"] for e in (task.train[0], task.dev[0], task.test[0])] == ["train 0", "dev 0", "test 0"]
    assert (task.name, task.holdout) == ("owner-my-set", None)
    assert task.source["splits"]["train"] == {"hub": "hf:owner/my-set", "local": "train.jsonl"}
    named = Task.load("hf:owner/my-set:train", test="hf:owner/my-set:validation", data_root=tmp_path)
    assert (named.test[0].fields["text"], named.dev) == ("dev 0", ())


def test_a_configuration_is_a_folder_too(tmp_path):
    write(tmp_path / "rte" / "train.jsonl", rows_of("x"))
    assert len(Task.load("hf:nyu-mll/glue/rte", data_root=tmp_path, holdout=0).train) == 4


def test_neither_a_local_copy_nor_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError) as caught:
        Task.load("hf:owner/nothing", data_root=tmp_path)
    text = str(caught.value)
    assert "owner/nothing" in text
    assert "--data-root" in text
    assert "has no nothing/train.jsonl" in text
    with pytest.raises(InputError, match="no data root is given"):
        Task.load("hf:owner/nothing:test")


def test_a_hub_data_set_in_memory_gives_label_names(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "coded" / "train.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": 0}, {"text": "c", "label": -1}])
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    task = Task.load(datasets.load_dataset("coded", split="train", features=features), holdout=0)
    assert [e.target for e in task.train] == ["yes", "no"]
    assert task.reasons == {"no label": 1}


def test_a_data_set_that_the_library_loads(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for split in ("train", "validation", "test"):
        write(tmp_path / "mine" / f"{split}.jsonl", rows_of(split))
    task = Task.load("hf:mine")
    assert [e.fields["text"] for e in (task.train[0], task.dev[0], task.test[0])] == ["train 0", "validation 0", "test 0"]
    assert [e.fields["text"] for e in Task.load("hf:mine:test", holdout=0).train] == [f"test {i}" for i in range(4)]


def test_a_local_copy_may_call_columns_by_their_role(tmp_path):
    rows = [{"text": f"a sentence {i}", "label": "ab"[i % 2]} for i in range(8)]
    for split in ("train", "test"):
        write(tmp_path / "agnews" / f"{split}.jsonl", rows[:4] if split == "train" else rows[4:])
    task = Task.load("hf:fancyzhx/ag_news", input={"text": "sentence"}, label="class", data_root=tmp_path)
    assert [example.fields["text"] for example in task.test] == [row["text"] for row in rows[4:]]
    assert task.labels == ("a", "b")


def test_the_hub_name_of_a_column_wins_over_its_role(tmp_path):
    write(tmp_path / "x" / "train.jsonl", [{"sentence": f"right {i}", "text": "wrong", "label": "ab"[i % 2]} for i in range(8)])
    task = Task.load("hf:owner/x", input={"text": "sentence"}, data_root=tmp_path)
    assert all(example.fields["text"].startswith("right") for example in task.train)


def test_a_file_of_the_users_own_is_taken_at_its_word(tmp_path):
    write(tmp_path / "mine.jsonl", rows_of("a", 8))
    with pytest.raises(InputError, match="there is no column 'sentence'"):
        Task.load(tmp_path / "mine.jsonl", input={"text": "sentence"})


def test_answers_in_the_form_of_squad(tmp_path):
    rows = [{"question": f"q {i}", "answers": {"text": [f"a {i}", f"the a {i}"], "answer_start": [3, 0]}} for i in range(6)]
    write(tmp_path / "squad" / "train.jsonl", rows)
    task = Task.load("hf:rajpurkar/squad", input="question", references="answers", data_root=tmp_path)
    assert task.kind == "answer"
    assert {example.references for example in task.train} <= {(f"a {i}", f"the a {i}") for i in range(6)}


def test_a_local_copy_may_have_the_name_that_all_others_use(tmp_path):
    write(tmp_path / "clinc150" / "train.jsonl", rows_of("x"))
    assert len(Task.load("hf:clinc/clinc_oos/small:train", label="intent", data_root=tmp_path, holdout=0).train) == 4
