"""timing.json says what was really computed: at most what was planned, nothing where everything was in the cache, also when cut short."""

import random

import pytest
import tiny

import icl
from icl.evaluate.store import RunStore
from icl.evaluate.work import Work, added


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("models") / "tiny", "llama")


@pytest.fixture
def suite(model, tmp_path, monkeypatch):
    monkeypatch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})
    monkeypatch.setenv("ICL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ICL_CACHE", "1")
    rng = random.Random(3)
    rows = [{"text": f"{rng.choice(['film', 'cup', 'oil'])} number {i}", "label": rng.choice(["a", "b"])} for i in range(70)]
    task = {"name": "t", "train": rows[:30], "test": rows[30:], "label": "label"}
    methods = ["majority", "zero_shot", {"few_shot": {"retriever": "random", "shots": 2}}]
    return {"models": [str(model)], "tasks": [task], "methods": methods, "budgets": [4]}


def test_what_was_computed_is_counted_per_method(suite, tmp_path):
    run = icl.run(suite, tmp_path / "out", cache=False)
    planned = {c["method"]: c for c in run.document["cells"]}
    parts = {m["method"]: m["tokens"] for m in run.timing["methods"]}
    assert list(parts) == ["zero_shot", "few_shot"]
    for name, tokens in parts.items():
        assert {"computed", "cached", "padding", "naive"} <= set(tokens)
        assert 0 < tokens["computed"] <= planned[name]["tokens_computed"]
        assert tokens["naive"] == planned[name]["tokens_naive"]
    for name, n in run.timing["tokens"].items():
        assert n == sum(tokens[name] for tokens in parts.values())
    assert "usage" not in run.timing
    assert b"padding" not in (run.folder / "results.json").read_bytes()


def test_a_run_out_of_the_cache_computes_nothing(suite, tmp_path):
    first = icl.run(suite, tmp_path / "first")
    second = icl.run(suite, tmp_path / "second")
    assert first.timing["tokens"]["computed"] > 0
    assert second.timing["tokens"]["cached"] > 0
    assert second.timing.get("tokens", {}).get("computed", 0) == 0
    assert (first.folder / "results.json").read_bytes() == (second.folder / "results.json").read_bytes()


def test_work_that_was_cut_short_is_counted_too(suite, tmp_path, monkeypatch):
    write = RunStore.add_unit

    def interrupted(self, *args):
        write(self, *args)
        if args[0].startswith('["tiny"'):
            raise KeyboardInterrupt

    monkeypatch.setattr(RunStore, "add_unit", interrupted)
    run = icl.run(suite, tmp_path / "out", cache=False)
    assert run.interrupted
    some = run.timing["tokens"]["computed"]
    assert some > 0
    assert run.timing["methods"][0]["tokens"]["computed"] == some
    assert all(c["method"] == "majority" for c in run.timing["cells"])
    monkeypatch.setattr(RunStore, "add_unit", write)
    assert icl.run(suite, tmp_path / "out", cache=False).timing["tokens"]["computed"] > some


def test_totals_are_put_down_once():
    class Model:
        totals = None
        usage = None

    model = Model()
    work = Work()
    assert work.since(model) == {}
    assert work.since(None) == {}
    parts = [{"usage": {"requests": 2, "cost": None}}, {"usage": {"requests": 1, "cost": 0.5}}, {"tokens": {"computed": 7}}]
    assert added(parts) == {"usage": {"requests": 3, "cost": 0.5}, "tokens": {"computed": 7}}
