"""`icl train meta` on a few small tasks."""

import json

import pytest
import tiny


@pytest.fixture
def tasks(tmp_path):
    (tmp_path / "tasks").mkdir()
    for name, labels in {"one": ("positive", "negative"), "two": ("yes", "no"), "three": ("sports", "business")}.items():
        rows = [{"text": f"words and words {name} {i}", "label": labels[i % 2]} for i in range(12)]
        (tmp_path / "tasks" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "tasks"


SMALL = ["--episodes", "8", "--shots", "2", "--set", "max_tokens=128", "--set", "validation_tasks=1", "--set", "validations=1"]


def test_tasks_become_an_adapter(icl_cli, tasks, tmp_path):
    tiny.save(tmp_path / "base", "llama")
    answer = icl_cli("train", "meta", tasks, "--base", "base", "--out", "adapter", "--exclude", "three", *SMALL)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[-1] == "adapter"
    assert "left out: three: excluded by name" in answer.err
    (tmp_path / "s.yaml").write_text(
        "tasks: [{name: three, train: tasks/three.jsonl}]\nmethods: [{few_shot: {retriever: random, shots: 1}}]\n"
        "models: [{model: base, adapter: adapter, name: meta}]\nmetrics: [accuracy]\n"
    )
    answer = icl_cli("run", "s.yaml", "--out", "r")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize(("more", "says"), [
    (["--exclude", "thre"], "no task is named 'thre'"),
    (["--base", "minilm"], "an encoder, which does not write"),
    (["--set", "shot=3"], "there is no setting 'shot'"),
    (["--held-out", "nothing.jsonl"], "nothing.jsonl"),
], ids=lambda value: value if isinstance(value, str) else " ".join(value))  # fmt: skip
def test_what_cannot_be_done_is_2(icl_cli, tasks, more, says):
    answer = icl_cli("train", "meta", tasks, "--out", "adapter", *SMALL, *more)
    assert answer.code == 2
    assert says in answer.err
    assert "Traceback" not in answer.err
