"""What is shown of a run that was killed: the same figures as in the end, of what is finished."""

import json

import pytest

import icl
from icl.cli import main
from icl.errors import InputError
from icl.evaluate import loop
from icl.suite import open_run


@pytest.fixture(params=["seeds: 2", "seeds: {draw: 2, train: 2}"])
def killed(request, folder, monkeypatch):
    """After five of its cells, so that one method lacks a seed; with seeds as one number, and crossed."""
    suite = (folder / "suite.yaml").read_text(encoding="utf-8")
    (folder / "suite.yaml").write_text(suite.replace("seeds: 2", request.param), encoding="utf-8")
    monkeypatch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})
    started = []
    plain = loop._Running.cell

    def cell(self, cell, advance):
        started.append(cell)
        if len(started) == 6:
            raise SystemExit  # as if killed: nothing is written at the end
        plain(self, cell, advance)

    monkeypatch.setattr(loop._Running, "cell", cell)
    with pytest.raises(SystemExit):
        icl.run(folder / "suite.yaml", folder / "run", plugins=[folder / "plugins"])
    monkeypatch.setattr(loop._Running, "cell", plain)
    return folder / "run"


def test_the_figures_are_those_of_the_finished_run(killed, folder):
    with pytest.raises(InputError, match="not a finished run"):
        open_run(killed)
    before = open_run(killed, unfinished=True)
    assert not before.document["complete"]
    assert not before.passed
    assert len(before.document["cells"]) == 5
    done = icl.run(folder / "suite.yaml", killed, plugins=[folder / "plugins"])
    assert done.passed
    assert before.results, "something was finished"
    assert all(record in done.results for record in before.results)
    assert all(group in done.document["groups"] for group in before.document["groups"])
    assert all(found in done.document["confidence"] for found in before.document["confidence"])
    assert {r["method"] for r in before.results if r["budget"] == "all"} == {"majority"}, "the second seed of the other is missing"
    for key in ("manifest", "tasks", "metrics"):
        assert before.document[key] == json.loads(json.dumps(done.document[key]))
    assert set(before.document) - {"n_planned"} == set(done.document) - {"variance"}
    assert before.document["n_planned"] == len(done.document["cells"])


def test_it_has_a_table_and_a_page(killed, capsys):
    assert main(["report", str(killed)]) == 0
    assert "not finished" in capsys.readouterr().out
    assert "not finished: 5 of " in (killed / "report.html").read_text(encoding="utf-8")
    assert main(["report", str(killed), "--export", "csv"]) == 2, "others' formats are of finished runs"


def test_a_folder_in_which_nothing_was_begun(tmp_path):
    with pytest.raises(InputError, match="not a finished run"):
        open_run(tmp_path, unfinished=True)
