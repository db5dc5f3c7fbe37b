"""Every kind of method that a decision may choose, shipped and asked again in a process that knows nothing but the folder."""

import json
import subprocess
import sys

import pytest
import tiny
from test_decide import COMMON, WORDS, rows

import icl
from icl.ship import check, export

METHODS = [
    "embedding_head",
    {"name": "knn-8", "few_shot": {"retriever": "knn", "shots": 8}},
    {"name": "lora", "finetune": {"kind": "lora", "epochs": 3, "learning_rate": 0.01}},
]
PROGRAM = """
import icl, json, sys
folders, queries = json.load(sys.stdin)
found = [icl.load(folder).predict(queries) for folder in folders]
print(json.dumps([[[p.answer, dict(p.probabilities)] for p in each] for each in found]))
print(json.dumps([icl.ship.check(folder) for folder in folders]))
"""


@pytest.mark.slow
def test_shipped_folders_answer_the_same_in_a_fresh_process(tmp_path):
    words = [word for each in WORDS.values() for word in each] + COMMON
    model, encoder = tiny.save(tmp_path / "tiny", "llama"), tiny.save_bert(tmp_path / "encoder", words, sentence=True)
    task = icl.Task.load(list(rows(64, 1)), test=list(rows(24, 2)), name="t")
    methods = [*METHODS, {"classifier": {"base": str(encoder), "epochs": 3}}]
    asked = {"methods": methods, "budgets": [16, 32], "seeds": 1, "minutes": 100, "encoder": str(encoder)}
    made = icl.decide(task, icl.load_model(str(model)), out=tmp_path / "run", **asked)
    names = ("knn-8", "embedding_head", "lora", "classifier")
    folders = [str(export(made.folder, tmp_path / "shipped" / name, name)) for name in names]
    queries = [dict(e.fields) for e in task.test]
    here = [[[p.answer, dict(p.probabilities)] for p in icl.load(folder).predict(queries)] for folder in folders]
    for name, answers in zip(names, here, strict=True):  # as in the comparison
        assert [answer for answer, _ in answers] == [p.answer for p in made.run.predictions(name)]
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=json.dumps([folders, queries]), capture_output=True, text=True, check=True)
    there, differences = map(json.loads, done.stdout.splitlines()[-2:])
    assert there == here
    assert differences == [[]] * 4
    assert all(check(folder) == [] for folder in folders)
    assert all("## Cost" in (tmp_path / "shipped" / name / "README.md").read_text() for name in names)
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    training = page[page.index('<section id="training"') :]
    assert all(f"{name}, t, 32 labels" in training for name in ("lora", "classifier"))
    assert training.count("<svg") >= 2
