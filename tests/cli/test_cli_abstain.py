"""`icl predict` with a predictor that abstains: said, written, and no failure."""

import csv
import json

from icl.methods._abstain import withhold
from icl.values import Prediction, as_query


class Shy:
    """Sure of long texts only; cannot read 'bad'."""

    inputs = ("text",)

    def predict(self, queries):
        return [self.one(as_query(query, self.inputs)) for query in queries]

    def one(self, query):
        text = str(query.fields["text"])
        if text == "bad":
            return Prediction(query.uid, None, why="cannot be read")
        sure = 0.9 if len(text) > 5 else 0.6
        return withhold(Prediction(query.uid, "x", {"x": sure, "y": 1 - sure}, ("x", "y")), 0.7)


def test_rows_that_are_withheld(icl_cli, tmp_path, monkeypatch):
    monkeypatch.setattr("icl.ship.load", lambda folder: Shy())
    (tmp_path / "rows.csv").write_text("text\na long text\nshort\n")
    answer = icl_cli("predict", "shipped", "rows.csv")
    assert answer.code == 0
    assert "2 rows answered, 1 of them withheld as too unsure" in answer.err
    sure, unsure = map(json.loads, answer.out.splitlines())
    assert (sure["answer"], "withheld" in sure, "why" in sure) == ("x", False, False)
    assert (unsure["answer"], unsure["withheld"]) == (None, "x")
    assert unsure["why"].startswith("abstained: the probability 0.6")
    assert icl_cli("predict", "shipped", "rows.csv", "--out", "out.csv").code == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [(row["answer"], row["probability"], row["withheld"]) for row in rows] == [("x", "0.9", ""), ("", "0.6", "x")]
    (tmp_path / "rows.csv").write_text("text\nbad\nshort\n")
    answer = icl_cli("predict", "shipped", "rows.csv")
    assert answer.code == 4
    assert "1 of them withheld as too unsure, 1 of them could not be" in answer.err
