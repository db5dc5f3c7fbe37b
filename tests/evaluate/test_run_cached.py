"""Suites run again and changed, with the cache of scores: what did not change is not computed, and no result depends on the cache."""

import gc
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import icl
from icl.evaluate.store import RunStore

ROOT = Path(__file__).resolve().parent.parent.parent
N_TEST = 40
LAST_UNIT = 1
"""40 test items are two units: 32 and 8."""


def rows(n, seed):
    rng = random.Random(seed)
    words = ["film", "cup", "oil", "team", "plot", "share", "joke", "goal"]
    return [{"text": f"{' '.join(rng.sample(words, 4))} {seed} {i}", "label": rng.choice(["sports", "business"])} for i in range(n)]


def suite(model, **more):
    task = {"name": "topics", "train": rows(30, 1), "test": rows(N_TEST, 2), "label": "label"}
    methods = ["zero_shot", {"few_shot": {"retriever": "random", "shots": 2}}]
    return {"models": [{"model": str(model), "name": "tiny"}], "tasks": [task], "methods": methods, "budgets": [4, 16], **more}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("models") / "tiny", "llama")


@pytest.fixture
def work(monkeypatch, tmp_path):
    """(cell's method, its budget, unit) -> tokens that went through a model, counted at its first layer: whatever the engine says."""
    monkeypatch.setenv("ICL_CACHE", "1")
    monkeypatch.setenv("ICL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})  # the data report would load the default encoder
    seen, done = [0], {}
    load, add = icl.load_model, RunStore.add_unit

    def counting(*args, **options):
        lm = load(*args, **options)
        lm.model.get_input_embeddings().register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].numel()))
        return lm

    def adding(self, cell, unit, *rest):
        _, _, method, budget, _ = json.loads(cell)
        done[method, budget, unit] = sum(seen)
        seen.clear()
        add(self, cell, unit, *rest)

    monkeypatch.setattr("icl.model.load_model", counting)
    monkeypatch.setattr(RunStore, "add_unit", adding)

    def run(what, out, **options):
        done.clear()
        seen.clear()
        icl.run(what, tmp_path / out, **options)
        assert not sum(seen)
        return dict(done)

    return run


def results(folder):
    return (folder / "results.json").read_bytes()


def test_the_second_run_computes_nothing_and_gives_the_same_bytes(model, work, tmp_path):
    never = work(suite(model), "never", cache=False)
    assert not (tmp_path / "home" / "scores").exists()
    cold = work(suite(model), "cold")
    again = work(suite(model), "again")
    assert len(cold) == 6
    assert min(cold.values()) > 0
    assert cold == never
    assert set(again.values()) == {0}
    assert results(tmp_path / "cold") == results(tmp_path / "again") == results(tmp_path / "never")
    for method in ("zero_shot", "few_shot"):
        assert icl.suite.open_run(tmp_path / "cold").predictions(method) == icl.suite.open_run(tmp_path / "again").predictions(method)
    assert work(suite(model), "switched off", cache=False) == cold


def test_a_changed_item_costs_its_unit_and_no_other(model, work, tmp_path):
    cold = work(suite(model), "cold")
    changed = suite(model)
    changed["tasks"][0]["test"][-1]["text"] = "quite another joke about oil"
    warm = work(changed, "warm")
    assert {unit for (_, _, unit), n in warm.items() if n} == {LAST_UNIT}
    # The first unit computes what all prompts begin with, and leaves it to the second: now that does it itself.
    assert all(n <= cold[method, budget, 0] for (method, budget, _), n in warm.items())
    work(changed, "reference", cache=False)
    assert results(tmp_path / "warm") == results(tmp_path / "reference")


def test_of_a_changed_unit_the_prompts_planned_before_the_change_stay(model, work, tmp_path):
    """The plan goes through the prompts in the order of their tokens."""
    small = {"models": [{"model": str(model), "name": "tiny", "max_batch": 2}], "methods": ["zero_shot"]}
    cold = work(suite(model, **small), "cold")
    changed = suite(model, **small)
    tokens = tiny.tokenizer()
    test = changed["tasks"][0]["test"]
    late = max(range(32), key=lambda i: tokens(f"Text: {test[i]['text']}").input_ids)
    test[late]["text"] += "0"
    warm = work(changed, "warm")
    key = ("zero_shot", None, 0)
    assert 0 < warm[key] < cold[key] / 3, (warm[key], cold[key])
    work(changed, "reference", cache=False)
    assert results(tmp_path / "warm") == results(tmp_path / "reference")


def test_more_items_at_the_end_cost_the_last_unit_and_the_new_ones(model, work, tmp_path):
    work(suite(model), "cold")
    longer = suite(model)
    longer["tasks"][0]["test"] += rows(30, 3)
    assert {unit for (_, _, unit), n in work(longer, "warm").items() if n} == {1, 2}


@pytest.mark.parametrize("what", ["method", "budget", "metric", "label words"])
def test_what_is_added_is_computed_alone(model, work, tmp_path, what):
    cold = work(suite(model), "cold")
    changed = suite(model)
    if what == "method":
        changed["methods"].insert(0, {"name": "more", "few_shot": {"retriever": "random", "shots": 3}})
        new = {("more", budget, unit) for budget in (4, 16) for unit in (0, 1)}
    elif what == "budget":
        changed["budgets"] = [4, 8, 16]
        new = {("few_shot", 8, unit) for unit in (0, 1)}
    elif what == "metric":
        changed["metrics"] = ["accuracy", "ece"]
        new = set()
    else:
        changed["tasks"][0]["labels"] = {"sports": ["game"], "business": ["money"]}
        new = set(cold)
    warm = work(changed, "warm")
    assert {key for key, n in warm.items() if n} == new
    work(changed, "reference", cache=False)
    assert results(tmp_path / "warm") == results(tmp_path / "reference")


def test_a_cache_of_other_conditions_is_not_used(model, work, tmp_path, tmp_path_factory):
    import torch

    cold = work(suite(model), "cold")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert work(suite(model), "threads") == cold
    finally:
        torch.set_num_threads(threads)
    assert set(work(suite(model), "again").values()) == {0}
    half = suite(model, models=[{"model": str(model), "name": "tiny", "dtype": "bfloat16"}])
    assert min(work(half, "half").values()) > 0
    folder = tiny.save(tmp_path_factory.mktemp("models") / "tiny", "llama")
    assert set(work(suite(folder), "copy").values()) == {0}, "a model is what is in its files, wherever they are"
    tensors = _changed(folder / "model.safetensors")
    assert min(work(suite(folder), "other").values()) > 0, tensors


def _changed(path):
    """One number of one weight, in the file."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] += 0.5
    save_file(tensors, path, metadata={"format": "pt"})
    return name


def test_a_damaged_cache_changes_no_result(model, work, tmp_path, capsys, monkeypatch):
    cold = work(suite(model), "cold")
    file = next((tmp_path / "home" / "scores").glob("*.sqlite"))
    monkeypatch.delenv("ICL_QUIET")
    for n, damage in enumerate((lambda raw: raw[: len(raw) // 2], lambda raw: b"x" * len(raw), lambda raw: raw.replace(b"\x3f", b"\x40"))):
        gc.collect()  # no model of the runs before holds the file open: they have ended
        file.write_bytes(damage(file.read_bytes()))
        for path in file.parent.glob("*-wal"):
            path.unlink()
        work(suite(model), str(n))
        assert results(tmp_path / str(n)) == results(tmp_path / "cold")
        assert set(work(suite(model), f"{n} again").values()) == {0}
    assert "was damaged" in capsys.readouterr().err
    gc.collect()
    file.write_bytes(b"")
    assert work(suite(model), "empty") == cold


def test_an_interrupted_run_goes_on_out_of_the_cache(model, work, tmp_path, monkeypatch):
    cold = work(suite(model), "cold")
    finish = RunStore.finish_cell

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(RunStore, "finish_cell", interrupt)
    work(suite(model), "out", cache=False)
    monkeypatch.setattr(RunStore, "finish_cell", finish)
    rest = work(suite(model), "out")
    assert len(rest) == len(cold) - 2
    assert set(rest.values()) == {0}
    assert results(tmp_path / "out") == results(tmp_path / "cold")


def test_answers_in_words_are_kept_too(model, work, tmp_path):
    def words(**more):
        kept = {"train": rows(30, 1), "test": rows(N_TEST, 2), "references": "label", "name": "words"}
        settings = {"shots": 2, "retriever": "random", "max_new_tokens": 6, **more}
        return {"models": [str(model)], "tasks": [kept], "methods": [{"few_shot": settings}], "budgets": [4, 16]}

    cold = work(words(), "cold")
    assert len(cold) == 4
    assert min(cold.values()) > 0
    assert set(work(words(), "again").values()) == {0}
    assert results(tmp_path / "cold") == results(tmp_path / "again")
    texts = [icl.suite.open_run(tmp_path / name).predictions("few_shot") for name in ("cold", "again")]
    assert texts[0] == texts[1]
    changed = words()
    changed["tasks"][0]["test"][0]["text"] = "quite another joke about oil"
    assert {unit for (_, _, unit), n in work(changed, "changed").items() if n} == {0}
    assert min(work(words(max_new_tokens=7), "longer").values()) > 0


@pytest.mark.slow
def test_two_runs_at_once_share_a_cache(model, work, tmp_path):
    work(suite(model), "reference", cache=False)
    (tmp_path / "suite.json").write_text(json.dumps(suite(model)))
    code = (
        "import json, sys, torch, icl\nfrom pathlib import Path\ntorch.set_num_threads(int(sys.argv[3]))\n"
        "import icl.evaluate.prepare as prepare\nprepare._encoders = lambda loaded: {}\n"
        "icl.run(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2])\n"
    )
    import torch

    arguments = [sys.executable, "-c", code, str(tmp_path / "suite.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [
        subprocess.Popen([*arguments, out, str(torch.get_num_threads())], env=environment, stderr=subprocess.PIPE, text=True)
        for out in ("one", "two")
    ]
    said = [run.communicate(timeout=300)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert results(tmp_path / "one") == results(tmp_path / "two") == results(tmp_path / "reference")
    assert set(work(suite(model), "third").values()) == {0}
