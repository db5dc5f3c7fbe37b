"""`icl index errors`: the figures of the API, in the console, as JSON, as a file of rows and as a page."""

import csv
import json

import numpy as np
import pytest

import icl


class Corners:
    """A text has the corner of the last word that is among three."""

    name = fingerprint = "corners"
    dimensions = 3

    def encode(self, texts):
        found = np.array([[1 + len(t) % 7 / 50, 0.1, 0.1] for t in texts], dtype=np.float32)
        for vector, text in zip(found, texts, strict=True):
            vector[:] = np.roll(vector, ("soup" in text) + 2 * ("cake" in text))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def cut(self, texts):
        return [False] * len(texts)


@pytest.fixture(autouse=True)
def _no_encoder(monkeypatch):
    monkeypatch.setattr("icl.retrieve.load_encoder", lambda encoder: Corners() if isinstance(encoder, str) else encoder)


@pytest.fixture
def pool(tmp_path):
    rows = [(f"{what} no {i}", what) for i in range(12) for what in ("soup", "cake", "bread")]
    rows[7] = (rows[7][0], "soup")
    with (tmp_path / "pool.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([("body", "kind"), *rows])
    return tmp_path / "pool.csv"


def test_the_one_wrong_label_of_a_file(icl_cli, pool):
    asked = ("index", "errors", pool, "--input", "text=body", "--label", "kind")
    answer = icl_cli(*asked, "--top", 3, "--out", "rows.csv", "--html", "errors.html")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[1].split()[2:] == ["*", "soup", "cake", "cake", "no", "2"]
    assert lines[4] == ""
    assert "1 are marked *" in answer.out
    task = icl.Task.load(pool, input={"text": "body"}, label="kind", holdout=0)
    found = icl.label_errors(task.train, encoder=Corners())
    with (pool.parent / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["uid"] for row in rows] == [each.example.uid for each in found.rows]
    assert [float(row["probability"]) for row in rows] == pytest.approx([each.probability for each in found.rows], abs=1e-6)
    assert (rows[0]["label"], rows[0]["suggested"], rows[0]["flagged"], rows[0]["text"]) == ("soup", "cake", "true", "cake no 2")
    assert "cake no 2" in (pool.parent / "errors.html").read_text()
    record = json.loads(icl_cli(*asked, "--json", "--out", "rows.jsonl").out)
    assert record["n_flagged"] == 1
    assert record["pairs"] == [{"label": "soup", "suggested": "cake", "n": 1}]
    assert record["rows"][0]["fields"] == {"text": "cake no 2"}
    assert [json.loads(line)["uid"] for line in (pool.parent / "rows.jsonl").read_text().splitlines()] == [row["uid"] for row in rows]


def test_an_index(icl_cli, pool):
    task = icl.Task.load(pool, input={"text": "body"}, label="kind", holdout=0)
    icl.DemoIndex.build(task.train, path=pool.parent / "index", encoder=Corners())
    answer = icl_cli("index", "errors", pool.parent / "index", "--encoder", "corners", "--head", "knn")
    assert answer.code == 0, answer.err
    assert "cake no 2" in answer.out.splitlines()[1]


def test_what_is_wrong_is_said(icl_cli, pool):
    for wrong, message in (
        (("nowhere.csv",), "nowhere.csv"),
        ((pool,), "text"),
        ((pool, "--input", "body", "--label", "kind", "--out", "rows.xlsx"), "'.xlsx' is no format"),
        ((pool, "--input", "body", "--label", "kind", "--folds", 1), "folds"),
    ):
        answer = icl_cli("index", "errors", *wrong)
        assert answer.code == 2
        assert message in answer.err
        assert answer.out == ""
