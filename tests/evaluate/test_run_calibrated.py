"""Calibrations in a suite: their cost stands in the results, and only what can be frozen is kept to be shipped."""

import json
import random

import pytest
import tiny

import icl
from icl.errors import InputError
from icl.ship import check, export


def rows(n, seed):
    rng = random.Random(seed)
    words = ["film", "cup", "oil", "team", "plot", "share", "joke", "goal"]
    return [{"text": f"{' '.join(rng.sample(words, 4))} {seed} {i}", "label": ["sports", "business", "arts"][i % 3]} for i in range(n)]


def suite(model, budgets):
    def named(name, calibration):
        return {"name": name, "few_shot": {"retriever": "random", "shots": 2, "calibration": calibration}}

    return {
        "models": [{"model": str(model), "name": "tiny"}],
        "tasks": [{"name": "topics", "train": rows(30, 1), "test": rows(12, 2), "label": "label"}],
        "methods": [
            named("plain", None),
            named("batch", "batch"),
            named("transductive", {"batch": {"transductive": True}}),
            named("mixture", {"prototypical": {"starts": 3}}),
        ],
        "budgets": budgets,
        "metrics": ["accuracy", "ece", "brier", "nll", "aurc"],
    }


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})  # the data report would load the default encoder
    model = tiny.save(tmp_path / "tiny", "llama")
    return lambda budgets, out: icl.run(suite(model, budgets), tmp_path / out)


def test_what_fitting_costs_and_what_is_kept(run, tmp_path):
    found = run([16], "out")
    folder = tmp_path / "out"
    document = json.loads((folder / "results.json").read_text())
    records = document["records"]
    assert {r["method"] for r in records if r["metric"] == "aurc"} == {"plain", "batch", "transductive", "mixture"}
    assert all(r["n_failed"] == 0 and r["value"] is not None for r in records)
    planned = {cell["method"]: cell["tokens_computed"] for cell in document["cells"]}
    plain, batch, transductive = (planned[name] for name in ("plain", "batch", "transductive"))
    assert batch > 1.5 * plain  # 16 rows of the pool beside 12 items
    assert transductive == plain
    raw = [p.scores.sums for p in found.predictions(method="plain")]
    assert [p.scores.sums for p in found.predictions(method="batch")] == raw  # raw scores are kept whatever the calibration
    export(folder, tmp_path / "shipped", "batch")
    assert check(tmp_path / "shipped") == []
    with pytest.raises(InputError):
        export(folder, tmp_path / "not", "transductive")


def test_too_few_rows_for_a_mixture_take_no_other_method_with_them(run, tmp_path):
    found = run([2], "out")
    mixture = found.predictions(method="mixture")
    assert all(p.answer is None and "at least 3 rows" in p.why for p in mixture)
    assert all(p.answer is not None for p in found.predictions(method="batch"))
