"""`groups:` of a task: figures by group, the largest gap, and label bias, in results.json and in the table."""

import json

import pytest

import icl
from icl.errors import InputError


def rows(n, seed):
    """The south is all bad, the north mostly good: a method that always says good does well in the north alone."""
    made = []
    for i in range(n):
        south = i % 4 == 0
        label = "bad" if south or i % 10 == 1 else "good"
        made.append({"text": f"message {seed} {i}", "label": label, "region": "south" if south else "north", "age": i % 2 or None})
    return made


def suite(**more):
    task = {"name": "t", "train": rows(60, 1), "test": rows(80, 2), "groups": ["region", "age"], **more}
    return {"models": [], "tasks": [task], "methods": ["majority"], "budgets": [16, "all"], "seeds": 2, "metrics": ["accuracy", "macro_f1"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return icl.run(suite(), tmp_path_factory.mktemp("groups") / "run")


def record(run, column, metric="accuracy", budget="all"):
    found = json.loads((run.folder / "results.json").read_text())["by_group"]
    (one,) = (r for r in found if (r["column"], r["metric"], r["budget"]) == (column, metric, budget))
    return one


def test_every_groups_figure_and_the_gap_counted_by_hand(run):
    found = record(run, "region")
    test = rows(80, 2)
    for each in found["figures"]:
        mine = [row for row in test if row["region"] == each["group"]]
        assert each["n_items"] == len(mine)
        assert each["value"] == pytest.approx(sum(row["label"] == "good" for row in mine) / len(mine))
        assert each["low"] <= each["value"] <= each["high"]
    gap = found["gap"]
    assert (gap["highest"], gap["lowest"]) == ("north", "south")
    assert gap["value"] == pytest.approx(found["figures"][1]["value"] - found["figures"][0]["value"])
    assert 0.5 < gap["low"] <= gap["value"] <= gap["high"]
    assert {each["group"] for each in record(run, "age")["figures"]} == {"1", "(none)"}
    assert record(run, "region", "macro_f1", 16)["gap"]["value"] > 0


def test_the_label_bias_is_what_the_method_answers_to_nothing(run):
    (cell,) = (c for c in run.document["cells"] if c.get("label_bias"))
    assert (cell["budget"], cell["seed"]) == ("all", 0)
    share = icl.load(run.folder / cell["predictor"]).predict([""])[0].probabilities["good"]
    assert cell["label_bias"]["shares"]["good"] == pytest.approx(share)
    assert cell["label_bias"]["bias"] == pytest.approx(abs(share - 0.5))


def test_the_table_shows_them(run):
    text = run.table()
    assert "accuracy in % by region" in text
    assert "south (20 items)" in text
    assert "north over south" in text
    assert "answers to inputs that say nothing" in text


def test_no_groups_no_record(tmp_path):
    document = icl.run(suite(groups=[]), tmp_path / "run").document
    assert "by_group" not in document
    assert not any("label_bias" in cell for cell in document["cells"])


def test_label_bias_can_be_asked_for_alone(run, tmp_path):
    asked = icl.run(suite(groups=[], label_bias=True), tmp_path / "run")
    (found,) = (c["label_bias"] for c in asked.document["cells"] if c.get("label_bias"))
    (same,) = (c["label_bias"] for c in run.document["cells"] if c.get("label_bias"))
    assert found == same
    assert "answers to inputs that say nothing" in asked.table()
    assert "answers to inputs that say nothing" in (asked.folder / "report.html").read_text()


def test_the_groups_of_held_out_rows(tmp_path):
    given = suite()
    del given["tasks"][0]["test"]
    found = record(icl.run(given, tmp_path / "run"), "region")
    assert {each["group"] for each in found["figures"]} == {"north", "south"}


def test_groups_change_the_data_and_wrong_ones_are_told():
    task = icl.Task.load(rows(60, 1), test=rows(80, 2), groups=["region"])
    assert set(task.grouped["region"].values()) == {"north", "south"}
    assert task.digest != icl.Task.load(rows(60, 1), test=rows(80, 2)).digest
    assert task.inputs == ("text",)
    with pytest.raises(InputError, match="Did you mean 'region'"):
        icl.Task.load(rows(60, 1), test=rows(80, 2), groups=["regoin"])
    many = [{**row, "n": str(n)} for n, row in enumerate(rows(200, 2))]
    with pytest.raises(InputError, match="200 values, too many"):
        icl.Task.load(rows(60, 1), test=many, groups=["n"])
