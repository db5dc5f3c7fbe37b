"""A run over a Ray cluster of two workers on this machine, one of them killed on the way, is the same as a run here."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny

import icl
from icl import suite as suites
from icl.cli import main
from icl.errors import InputError
from icl.evaluate import loop, shards
from icl.evaluate.check import load_suite
from icl.evaluate.prepare import prepare
from icl.evaluate.results import assemble
from icl.evaluate.store import RunStore

ROOT = str(Path(icl.__file__).parent.parent)


def edit(folder, old, new):
    path = folder / "suite.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


# ── pieces, without a cluster ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def prompts(tmp_path_factory, monkeypatch):
    """A suite with a tiny language model, and what a run of it gives."""
    root = tmp_path_factory.mktemp("prompts")
    model = tiny.save(root / "tiny", "llama")
    rows = [{"text": f"word{n % 7} thing{n % 5} number {n}", "label": "good" if n % 3 else "bad"} for n in range(110)]
    few_shot = {"few_shot": {"retriever": "random", "shots": 2, "calibration": "contextual"}}
    task = {"name": "t", "train": rows[:30], "test": rows[30:]}
    suite = {"models": [str(model)], "tasks": [task], "methods": ["majority", "zero_shot", few_shot], "budgets": [8], "seeds": 2}
    monkeypatch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})  # nothing is embedded here
    return suite, icl.run(suite, root / "whole", cache=False)


def test_pieces_put_together_are_the_run(prompts, tmp_path, monkeypatch):
    """80 items are three units of 32: two pieces for each cell that prompts; the other session had done one unit, and one cell."""
    suite, whole = prompts
    monkeypatch.setattr(shards, "UNITS", 2)
    prepared = prepare(load_suite(suite))
    with RunStore.open(tmp_path / "out") as store, RunStore.read_only(whole.folder) as other:
        first, second = [cell for cell in prepared.cells if cell.method == "few_shot"][:2]
        store.add_unit(first.key, 0, 0, other.predictions(first.key)[:32], 0.1)
        facts = other.finished()[second.key]
        for n in range(3):
            store.add_unit(second.key, n, 32 * n, other.predictions(second.key)[32 * n : 32 * n + 32], 0.1)
        store.finish_cell(second.key, *facts)
        todo = shards.pieces(prepared, store)
        assert [(p.cell.method, p.units, p.is_first) for p in todo] == [
            ("majority", (0,), True), ("majority", (0,), True), ("zero_shot", (0, 1), True), ("zero_shot", (2,), False),
            ("few_shot", (1, 2), True),
        ]  # fmt: skip
        assert len(todo[-1].known) == 32
        waiting = shards.waiting_of(todo)
        made = [shards.do(prepared, piece) for piece in todo]
        n_items = [shards.merge(prepared, store, p, m, waiting) for p, m in reversed(list(zip(todo, made, strict=True)))]
        assert n_items == [48, 16, 64, 80, 80]
        document = assemble(prepared, store, whole.document["manifest"])
        assert json.loads(json.dumps(document)) == json.loads((whole.folder / "results.json").read_text())
        assert all(store.predictions(cell.key) == other.predictions(cell.key) for cell in prepared.cells)
        assert store.prompts(first.key).keys() == set(range(32, 80))
    for name in ("majority", "zero_shot", "few_shot"):
        mine, theirs = (icl.load(folder / "predictors" / name) for folder in (tmp_path / "out", whole.folder))
        assert mine.predict(["word1 thing"])[0].probabilities == theirs.predict(["word1 thing"])[0].probabilities


def test_what_a_cluster_cannot_do_is_told(folder, capsys):
    with pytest.raises(InputError, match="no cluster"):
        suites.run(folder / "suite.yaml", folder / "out", plugins=[folder / "plugins"], on="http://x")
    with pytest.raises(InputError, match="not over a cluster"):
        suites.run(folder / "suite.yaml", folder / "out", plugins=[folder / "plugins"], on="ray", max_cost=1.0)
    words = ["run", str(folder / "suite.yaml"), "--out", str(folder / "out"), "--plugins", str(folder / "plugins"), "--on", "ray"]
    assert main([*words, "--cpus", "0", "--gpus", "0"]) == 2  # it waited for a worker forever
    assert "cpus: workers without a CPU and without a GPU have no place on a cluster" in capsys.readouterr().err
    assert main([*words, "--cpus", "-1", "--gpus", "inf"]) == 2
    assert "cpus: a worker cannot have -1 CPUs" in (said := capsys.readouterr().err)
    assert "gpus: a worker cannot have inf GPUs" in said
    assert not (folder / "out").exists()


def test_without_ray_it_says_what_to_install(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["run", str(folder / "suite.yaml"), "--out", str(folder / "out"), "--plugins", str(folder / "plugins"), "--on", "ray"]
    assert main(words) == 2
    assert "pip install 'icl[ray]'" in capsys.readouterr().err


# ── a cluster ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cluster(monkeypatch):
    """(the cluster of two nodes with a CPU each, its second node)"""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([ROOT, *filter(None, sys.path)]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False)
    yield made, second
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_a_worker_killed_on_the_way(folder, cluster, monkeypatch):
    monkeypatch.setenv("ICL_QUIET", "1")
    made, second = cluster
    edit(folder, "  - hashed", "  - {hashed: {seconds: 0.05}}")
    edit(folder, "seeds: 2", "seeds: 4")
    whole = suites.run(folder / "suite.yaml", folder / "whole", plugins=[folder / "plugins"])

    def kill_one():
        while finished(folder / "out") < 9:  # of 16 cells
            time.sleep(0.05)
        made.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill_one)
    killer.start()
    run = suites.run(folder / "suite.yaml", folder / "out", plugins=[folder / "plugins"], on="ray")
    killer.join()
    assert run.exit_code == 0
    assert (run.folder / "results.json").read_bytes() == (whole.folder / "results.json").read_bytes()


def finished(folder):
    try:
        with RunStore.read_only(folder) as store:
            return len(store.finished())
    except Exception:  # it is only being made
        return 0


@pytest.mark.slow
def test_a_language_model_on_two_workers(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_QUIET", "1")
    model = tiny.save(tmp_path / "tiny", "llama")
    rows = [{"text": f"word{n % 7} thing{n % 5} number {n}", "label": "good" if n % 3 else "bad"} for n in range(350)]
    few_shot = {"few_shot": {"retriever": "bm25", "shots": 2}}
    suite = {
        "models": [str(model)],
        "tasks": [{"name": "t", "train": rows[:30], "test": rows[30:]}],
        "methods": ["zero_shot", few_shot],
        "budgets": [8, 16],
        "seeds": 2,
        "encoder": str(tiny.save_bert(tmp_path / "encoder", ["word", "thing"], sentence=True)),
    }
    assert loop.UNIT_ITEMS * shards.UNITS < 320  # so that cells are cut
    here, there = icl.run(suite, tmp_path / "here", cache=False), icl.run(suite, tmp_path / "there", cache=False, on="ray")
    assert there.passed
    with RunStore.read_only(here.folder) as a, RunStore.read_only(there.folder) as b:
        for cell in a.cells():
            for one, other in zip(a.predictions(cell), b.predictions(cell), strict=True):
                assert one.answer == other.answer
                assert other.scores.sums == pytest.approx(one.scores.sums, abs=1e-4)
