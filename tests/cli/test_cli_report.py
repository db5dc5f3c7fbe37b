"""`icl report`: the tables of a finished run, and its figures."""

import icl
from icl.suite import open_run


def test_tables_and_figures_of_a_finished_run(icl_cli, tmp_path, monkeypatch):
    monkeypatch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})
    rows = [{"text": f"text {i}", "label": "ab"[i % 3 == 0]} for i in range(120)]
    suite = {"tasks": [{"name": "t", "train": rows}], "methods": ["majority"], "metrics": ["accuracy", "ece"]}
    done = icl.run(suite, tmp_path / "run")
    answer = icl_cli("report", "run")
    assert answer.code == 0
    assert answer.out.strip() == open_run("run").table().strip()
    assert "accuracy in %" in answer.out
    answer = icl_cli("report", "run", "--figures", "drawn")
    assert answer.code == 0
    assert "2 figures in drawn" in answer.err
    assert sorted(p.relative_to(tmp_path / "drawn").as_posix() for p in (tmp_path / "drawn").rglob("*.svg")) == [
        "t/coverage-all.svg", "t/reliability-all-majority.svg",
    ]  # fmt: skip
    assert done.document["confidence"][0]["n"] == 50
    assert icl_cli("report", "nowhere").code == 2
    assert icl_cli("report", "--help").out.startswith("Usage: icl report")
