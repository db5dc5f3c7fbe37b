"""A causal model trained on answers in words: rationales are part of what it writes, and what is shipped writes the same elsewhere."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import tiny
from small_tasks import POOLS, example

import icl
from icl import load_model, plugins, ship
from icl.methods._lessons import taught_rows
from icl.protocols import MethodContext

pytestmark = pytest.mark.usefixtures("one_thread")
WORKED = """---
kind: answer
input: [question]
stop: ["\\n\\n"]
---
{% block example %}Q: {{ question }}{% endblock %}
{% block rationale %} {{ rationale }}{% endblock %}
{% block answer %}
So: {{ answer }}.{% endblock %}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny.save(tmp_path_factory.mktemp("llama"), "llama", "chatml"))


@pytest.mark.parametrize(("format", "written"), [("plain", " 2 and 2\nSo: 4.\n\n"), ("chat", "2 and 2\nSo: 4.")])
def test_a_rationale_is_taught_before_its_answer(tmp_path, base, format, written):
    """As demonstrations show it; a row without one is taught its answer alone. What is written is read behind the opening of the answer."""
    (tmp_path / "worked.jinja").write_text(WORKED)
    lm = load_model(base, device="cpu")
    rows = [replace(example({"question": "2 + 2"}, "4"), rationale="2 and 2"), example({"question": "1 + 1"}, "2")]
    context = MethodContext("answer", ("question",), seed=1, lm=lm)
    settings = {"kind": "lora", "epochs": 1, "format": format, "template": str(tmp_path / "worked.jinja"), "max_new_tokens": 4}
    predictor = plugins.build("method", {"finetune": settings}, context).fit(rows)
    taught = taught_rows(predictor.prompted, rows, ["4", "2"], lm)
    first, second = (lm.codec.tokens.decode(each.split.continuations[0]) for each in taught)
    end = written[len(" 2 and 2\nSo: 4.") :] if format == "plain" else first[len(written) :]
    assert first == written if format == "plain" else first.startswith(written), (first, second)
    assert second == ("\nSo: 2." if format == "plain" else "So: 2.") + end
    assert predictor.prompted.read("2 + 2", "2 and 2 is 5\nSo: 4").answer == "4"


def test_an_answer_behind_the_window_is_cut_and_counted(base):
    lm = load_model(base, device="cpu")
    rows = [example({"question": "2 + 2"}, "4 " * lm.window), example({"question": "1 + 1"}, "2")]
    settings = {"kind": "lora", "epochs": 1, "format": "plain", "max_new_tokens": 4}
    predictor = plugins.build("method", {"finetune": settings}, MethodContext("answer", ("question",), seed=1, lm=lm)).fit(rows)
    assert [predictor.training[key] for key in ("n_rows", "n_unfit", "n_cut")] == [2, 0, 1]


def test_what_is_shipped_writes_the_same_in_a_fresh_process(tmp_path, base):
    """Greedy answers and texts of a trained model, from a suite over the shipped folder to another process."""
    rows = [{"question": e.fields["question"], "answer": e.target} for e in POOLS["answer"]()]
    tuned = {"kind": "lora", "rank": 8, "epochs": 4, "learning_rate": 5e-3, "batch_size": 4, "format": "plain", "max_new_tokens": 8}
    suite = {
        "models": [base],
        "tasks": [{"name": "facts", "train": rows[:6], "test": rows[6:], "kind": "answer", "input": "question", "label": "answer"}],
        "methods": [
            {"name": "tuned", "finetune": tuned},
            {"name": "shots", "few_shot": {"shots": 2, "retriever": "random", "max_new_tokens": 8}},
        ],
        "budgets": ["all"],
        "seeds": 1,
        "metrics": ["exact_match"],
    }
    icl.run(suite, out=tmp_path / "run")
    folders = [str(ship.export(tmp_path / "run", tmp_path / name, name)) for name in ("tuned", "shots")]
    questions = [row["question"] for row in rows]

    def written(folder):
        return [[p.answer, p.text] for p in icl.load(folder).predict(questions)]

    program = """if True:
        import json, sys, icl
        questions = json.loads(sys.argv[1])
        print(json.dumps([[[p.answer, p.text] for p in icl.load(folder).predict(questions)] for folder in sys.argv[2:]]))"""
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(questions), *folders], env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == [written(folder) for folder in folders]
    assert found[0] != found[1]
    assert all(text for part in found for _, text in part)
    assert [ship.check(folder) for folder in folders] == [[], []], "and what the run itself wrote"
