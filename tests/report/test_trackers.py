"""Trackers: what they are given, with stand-ins that write it down; the real ones where they are installed; their faults fail no run."""

import json
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

import icl
from icl import suite as suites
from icl.cli import main
from icl.errors import MissingExtraError


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    root = tmp_path_factory.mktemp("tracked")
    rows = [f"film {n},{'good' if n % 3 else 'bad'}" for n in range(60)]
    for name, part in (("train", rows[:40]), ("test", rows[40:])):
        (root / f"{name}.csv").write_text("text,label\n" + "\n".join(part) + "\n")
    (root / "films.yaml").write_text(
        "tasks:\n  - {name: t, train: train.csv, test: test.csv, label: label}\nmethods: [majority]\nbudgets: [8, all]\nmetrics: [accuracy]\n"
    )
    return root / "films.yaml"


@pytest.fixture(scope="module")
def run(suite, tmp_path_factory):
    return icl.run(str(suite), tmp_path_factory.mktemp("tracked") / "first")


def accuracy(run, budget):
    (found,) = (r["value"] for r in run.results if (r["metric"], r["budget"], r["seed"]) == ("accuracy", budget, None))
    return found


class Wandb(ModuleType):
    """Its surface that is used, writing down what it is given."""

    def __init__(self, fails=False):
        super().__init__("wandb")
        self.fails, self.seen = fails, SimpleNamespace(init=None, table=None, summary={}, ended=None)

    def init(self, **given):
        self.seen.init = given
        return SimpleNamespace(id="r1", log=self._log, summary=self.seen.summary, finish=self._finish)

    def _log(self, values):
        if self.fails:
            raise ConnectionError("no route to host")
        self.seen.table = values["figures"]

    def _finish(self, exit_code=0):
        self.seen.ended = exit_code

    def Table(self, **given):
        return given


def test_wandb_is_given_table_summary_and_manifest(run, tmp_path, monkeypatch):
    there = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", there)
    (where,) = run.export("wandb", tmp_path / "w")
    assert "run r1" in where
    assert there.seen.init["config"] == run.document["manifest"]
    assert there.seen.summary["t/majority/all/accuracy"] == accuracy(run, "all")
    assert len(there.seen.table["data"]) == len(run.results)
    assert there.seen.ended == 0


def test_a_tracker_that_fails_or_is_not_there_fails_no_run(suite, tmp_path, monkeypatch, capsys):
    there = Wandb(fails=True)
    monkeypatch.setitem(sys.modules, "wandb", there)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    out = str(tmp_path / "out")
    assert main(["run", str(suite), "--out", out, "--export", "wandb", "--export", "mlflow", "--export", "junit"]) == 0
    said = capsys.readouterr().err
    assert "not exported as wandb: no route to host" in said
    assert "pip install 'icl[mlflow]'" in said
    assert (tmp_path / "out" / "export" / "junit.xml").is_file()
    assert there.seen.ended == 1
    assert suites.open_run(out).passed
    assert main(["run", str(suite), "--out", str(tmp_path / "no"), "--export", "mflow"]) == 2
    assert not (tmp_path / "no").exists()


def test_without_the_package_the_report_says_what_to_install(run, monkeypatch):
    for name in ("mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtraError, match=rf"icl\[{name}\]"):
            run.export(name)


def test_the_real_mlflow(run, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    (where,) = run.export("mlflow", tmp_path / "store")
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "store").as_uri())
    experiment = client.get_experiment_by_name("films").experiment_id
    runs = {r.info.run_name: r for r in client.search_runs([experiment])}
    whole = runs["first"]
    assert whole.info.run_id in where
    assert whole.info.status == "FINISHED"
    assert {f.path for f in client.list_artifacts(whole.info.run_id)} >= {"results.json", "timing.json", "report.html"}
    one = runs["majority t all"]
    assert one.data.metrics["accuracy"] == pytest.approx(accuracy(run, "all"))
    assert one.data.params["budget"] == "all"
    assert one.data.tags["mlflow.parentRunId"] == whole.info.run_id


def test_the_real_wandb_without_a_network(run, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (where,) = run.export("wandb", tmp_path / "w")
    assert "project films" in where
    (log,) = (tmp_path / "w").rglob("*.wandb")
    for _ in range(200):  # it is written by another process
        if b"t/majority/all/accuracy" in log.read_bytes():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the summary is not in the log")
    (table,) = (tmp_path / "w").rglob("*.table.json")
    assert len(json.loads(table.read_text())["data"]) == len(run.results)
    assert json.loads((run.folder / "results.json").read_text())["complete"]
