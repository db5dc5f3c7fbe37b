"""`icl export --refit`: the method of a run, fitted on all rows there are."""

import json

import pytest

import icl
from icl.ship import check

SUITE = """\
models: []
tasks:
  - {name: food, train: reviews.csv}
methods: [majority, {name: half, majority: {}}]
budgets: [4]
metrics: [accuracy]
"""


@pytest.fixture
def run(icl_cli, reviews, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "food.yaml").write_text(SUITE)
    assert icl_cli("run", "food.yaml", "--out", "r").code == 0
    return tmp_path / "r"


def test_fitted_on_all_rows_and_said_to_be_unmeasured(icl_cli, run, tmp_path):
    answer = icl_cli("export", "r", "--to", "all", "--method", "half", "--refit")
    assert (answer.code, answer.out) == (0, "all\n"), answer.err
    predictor = icl.load("all")
    assert predictor.name == "half"
    n_train = json.loads((run / "results.json").read_text())["tasks"]["food"]["n_train"]
    state = json.loads((tmp_path / "all" / "predictor.json").read_text())
    assert sum(state["counts"].values()) == n_train > 4
    assert "## Not measured" in (tmp_path / "all" / "README.md").read_text()
    assert not (tmp_path / "all" / "measured.json").exists()
    assert check("all") == []


def test_changed_data_is_refused(icl_cli, run, reviews):
    reviews.write_text(reviews.read_text() + "Another row,positive\n")
    answer = icl_cli("export", "r", "--to", "all", "--refit")
    assert answer.code == 2
    assert "not what the run was made of" in answer.err


def test_a_suite_that_was_run_otherwise_is_refused(icl_cli, run):
    assert icl_cli("run", "food.yaml", "--out", "s", "--set", "budgets=[5]").code == 0
    answer = icl_cli("export", "s", "--to", "all", "--refit")
    assert answer.code == 2
    assert "food.yaml is not as it was run" in answer.err
    (run.parent / "food.yaml").write_text(SUITE.replace("[4]", "[5]"))
    assert icl_cli("export", "s", "--to", "all", "--refit").code == 0


def test_wrong_use(icl_cli, run, tmp_path):
    assert icl_cli("export", "r", "--refit", "--prompt", "p.txt").code == 2
    (run / "decision.json").write_text(json.dumps({"winner": "half"}))
    answer = icl_cli("export", "r", "--to", "all", "--refit")
    assert answer.code == 2
    assert "--ship FOLDER --refit" in answer.err
