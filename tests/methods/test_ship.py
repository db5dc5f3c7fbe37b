"""Saved folders: loading, damage, exporting out of a run, and the regression check of a shipped one."""

import json
import shutil

import pytest
from small_tasks import LABELS, POOLS, QUERIES, context_for

from icl import plugins, ship
from icl.errors import InputError
from icl.methods import write_regression


def majority(labels=LABELS):
    return plugins.build("method", "majority", context_for("classify", "none")).fit(POOLS["classify"](), labels=labels)


@pytest.fixture
def folder(tmp_path):
    majority().save(tmp_path / "best")
    return tmp_path / "best"


def edit(folder, **changes):
    path = folder / "predictor.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_saved_predictor_is_loaded_again(folder):
    assert [p.answer for p in ship.load(folder).predict(["x", "y"])] == ["billing", "billing"]
    assert ship.load(str(folder)).predict([{"text": "x"}])[0].probabilities == majority().predict(["x"])[0].probabilities


def test_saving_again_replaces_the_older_one_and_nothing_else(folder, tmp_path):
    majority((*LABELS, "new")).save(folder)
    assert "new" in ship.load(folder).predict(["x"])[0].probabilities
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a saved predictor"):
        majority().save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    predictor = majority()
    predictor.counts = {"x": object()}
    with pytest.raises(TypeError):
        predictor.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message", "fix"),
    [
        (lambda f: shutil.rmtree(f), "no such folder", "icl export"),
        (lambda f: (f / "predictor.json").unlink(), "not a saved predictor", "icl export"),
        (lambda f: edit(f, schema=99, icl="9.1"), "written by icl 9.1 in format 99", "pip install --upgrade"),
        (lambda f: (f / "predictor.json").write_text("{"), "damaged", "again"),
        (lambda f: (f / "predictor.json").write_text("[1]"), "damaged", "again"),
        (lambda f: edit(f, method="majorety"), "no method named 'majorety'", "Did you mean 'majority'"),
        (lambda f: edit(f, files={"rows.jsonl": "0"}), "is missing", "again"),
        (lambda f: edit(f, files={"README.md": "0"}), "was changed", "again"),
        (lambda f: edit(f, files={"../outside": "0"}), "leads outside", "inside"),
    ],
)
def test_what_cannot_be_loaded_says_why_and_what_to_do(folder, damage, message, fix):
    damage(folder)
    with pytest.raises(InputError) as caught:
        ship.load(folder)
    assert message in str(caught.value)
    assert fix in str(caught.value)
    assert str(folder.parent.name) in str(caught.value) or "method" in message


def test_a_run_folder_is_recognised(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(InputError, match="icl export"):
        ship.load(tmp_path)


# ── a run: export ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def record(method, value, *, task="support", budget=16, seed=0, metric="accuracy", n_failed=0):
    figures = {"metric": metric, "value": value, "low": value - 0.1, "high": value + 0.1, "n_scored": 100 - n_failed, "n_failed": n_failed}
    return {"model": None, "task": task, "method": method, "budget": budget, "seed": seed, **figures, "n_ties": 0, "n_dropped": 0}


def make_run(root, records, layout="{method}"):
    root.mkdir()
    (root / "results.json").write_text(json.dumps({"schema": 1, "manifest": {}, "records": records}))
    for task, method in {(r["task"], r["method"]) for r in records}:
        predictor = majority()
        predictor.name = method
        to = root / "predictors" / layout.format(task=task, method=method)
        predictor.save(to)
        write_regression(to, QUERIES["classify"], predictor.predict(QUERIES["classify"]))
    return root


def test_export_takes_the_best_at_the_largest_budget(tmp_path):
    records = [
        record("early", 0.9, budget=16),
        record("early", 0.6, budget="all"),
        record("late", 0.5, budget=16),
        *(record("late", v, budget="all", seed=s) for s, v in enumerate((0.7, 0.8))),
        record("late", 0.01, budget="all", metric="ece"),
        record("flaky", 0.95, budget="all", n_failed=50),
    ]
    run = make_run(tmp_path / "run", records)
    shipped = ship.export(run, tmp_path / "shipped")
    assert ship.load(shipped).name == "late"
    text = (shipped / "README.md").read_text()
    assert "| all | accuracy | 0 | 0.7000 | 0.6000 to 0.8000 | 100 | 0 |" in text
    assert "early" not in text
    assert {r["method"] for r in json.loads((shipped / "measured.json").read_text())} == {"late"}


def test_what_it_cost_goes_along(tmp_path):
    """The clock of every seed at its label budget; of an endpoint what was paid."""
    records = [record("m", 0.7, budget=b, seed=s) for b in (16, 64) for s in (0, 1, None)]
    for each in records:
        each["n_scored"] = 200 if each["seed"] is None else 100
    run = make_run(tmp_path / "run", records)
    keys = {"model": None, "task": "support", "method": "m"}
    cells = [
        {**keys, "budget": b, "seed": s, "fit_s": b / 16 + s, "predict_s": 5.0 + s, "tokens": {"computed": 3000}, "usage": {"cost": 0.5}}
        for b in (16, 64)
        for s in (0, 1)
    ]
    (run / "timing.json").write_text(json.dumps({"cells": cells}))
    shipped = ship.export(run, tmp_path / "shipped")
    costs = {(r["budget"], r["seed"]): r["cost"] for r in json.loads((shipped / "measured.json").read_text())}
    assert costs[64, None] == pytest.approx({"fit_s": 4.5, "query_s": 0.055, "tokens": 30.0, "paid": 0.005})
    assert costs[16, 1] == pytest.approx({"fit_s": 2.0, "query_s": 0.06, "tokens": 30.0, "paid": 0.005})
    text = (shipped / "README.md").read_text()
    assert "Learning from 64 labels took 4.5 s; a query took 0.055 s and 30 tokens of the language model" in text
    assert "It cost 0.005 to pay" in text


def test_export_by_name_and_by_task(tmp_path):
    run = make_run(tmp_path / "run", [record("knn-8", 0.5), record("majority", 0.6)])
    assert ship.load(ship.export(run, tmp_path / "a", "knn-8")).name == "knn-8"
    with pytest.raises(InputError, match="Did you mean 'knn-8'"):
        ship.export(run, tmp_path / "b", "knn8")
    assert not (tmp_path / "b").exists()
    two = make_run(tmp_path / "two", [record("m", 0.5, task="a"), record("m", 0.6, task="b")], "{task}/{method}")
    with pytest.raises(InputError, match="a/m, b/m"):
        ship.export(two, tmp_path / "c")
    with pytest.raises(InputError, match="a/m, b/m"):
        ship.export(two, tmp_path / "c", "m")
    shipped = ship.export(two, tmp_path / "c", "b/m")
    assert [r["task"] for r in json.loads((shipped / "measured.json").read_text())] == ["b"]


def test_export_refuses_unfinished_runs_and_folders_in_use(tmp_path):
    with pytest.raises(InputError, match="not a finished run"):
        ship.export(tmp_path / "nowhere", tmp_path / "a")
    run = make_run(tmp_path / "run", [record("m", 0.5)])
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x").write_text("x")
    with pytest.raises(InputError, match="empty"):
        ship.export(run, tmp_path / "used")
    shipped = ship.export(run, tmp_path / "shipped")
    with pytest.raises(InputError, match=r"saved or exported already, and no run[\s\S]*icl predict .*shipped FILE"):
        ship.export(shipped, tmp_path / "again")
    shutil.rmtree(run / "predictors")
    with pytest.raises(InputError, match="no predictors"):
        ship.export(run, tmp_path / "a")


def test_the_shipped_folder_checks_itself(tmp_path):
    run = make_run(tmp_path / "run", [record("m", 0.5)])
    shipped = ship.export(run, tmp_path / "shipped")
    assert ship.check(shipped) == []
    lines = [json.loads(line) for line in (shipped / "regression.jsonl").read_text().splitlines()]
    assert len(lines) == len(QUERIES["classify"])
    lines[0]["answer"] = "login"
    lines[1]["probabilities"]["billing"] += 0.01
    (shipped / "regression.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    differences = ship.check(shipped)
    assert len(differences) == 2
    assert "query 1: expected 'login', got 'billing'" in differences[0]
    assert "query 2" in differences[1]


# ── a saved predictor in a suite ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_saved_predictor_competes_in_a_suite(folder):
    method = plugins.build("method", {"saved": {"path": str(folder)}}, context_for("classify", "none"))
    assert method.kinds == {"classify"}
    assert [p.answer for p in method.fit([]).predict(QUERIES["classify"])] == ["billing"] * 5
    wrong = plugins.build("method", {"saved": {"path": str(folder)}}, context_for("answer", "none"))
    with pytest.raises(InputError, match="kind 'classify', the task is 'answer'"):
        wrong.fit([])
