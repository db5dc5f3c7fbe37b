"""`icl index suggest`: the rows of the API as a sheet to fill in."""

import csv
import json

import numpy as np
import pytest

import icl
from icl.data.part_labelled import read_part_labelled
from icl.errors import InputError


class Lengths:
    name = fingerprint = "lengths"
    dimensions = 2

    def encode(self, texts):
        found = np.array([[len(text), 40.0] for text in texts], dtype=np.float32).reshape(-1, 2)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def cut(self, texts):
        return [False] * len(texts)


@pytest.fixture(autouse=True)
def _no_encoder(monkeypatch):
    monkeypatch.setattr("icl.retrieve.load_encoder", lambda encoder: Lengths() if isinstance(encoder, str) else encoder)
    monkeypatch.setattr("icl.retrieve.annotate.load_encoder", lambda encoder: Lengths() if isinstance(encoder, str) else encoder)


@pytest.fixture
def sheet(tmp_path):
    """24 rows, 8 of them labelled: short ones and long ones; a note in a column of its own."""
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", "reason"])
        for i in range(24):
            label = ("short" if i < 12 else "long") if i % 3 == 0 else ""
            table.writerow([f"{'x' * (1 + 5 * i)} {i}", label, f"note {i}"])
    return path


def test_a_sheet_of_which_some_rows_have_a_label(icl_cli, sheet):
    answer = icl_cli("index", "suggest", sheet, "--budget", 4, "--out", "todo.csv")
    assert answer.code == 0, answer.err
    given = read_part_labelled(sheet, {"text": "text"}, "label")
    found = icl.suggest(given.unlabelled, 4, labelled=given.labelled)
    assert len(given.labelled) == 8
    lines = answer.out.splitlines()
    assert [int(line.split()[0]) for line in lines] == [given.rows[each.example.uid][0] for each in found.rows]
    assert lines[0].endswith(found.rows[0].reason)
    assert "chosen by uncertainty out of 16 rows, with 8 labelled" in answer.err
    with (sheet.parent / "todo.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["text", "label", "reason", "line", "guess", "uncertainty", "disagreement", "suggest_reason"]
    assert [row["text"] for row in rows] == [each.example.fields["text"] for each in found.rows]
    assert all(row["label"] == "" and row["reason"].startswith("note ") for row in rows)
    assert [row["suggest_reason"] for row in rows] == [each.reason for each in found.rows]
    record = json.loads(icl_cli("index", "suggest", sheet, "--budget", 4, "--json", "--by", "disagreement").out)
    assert record["by"] == "disagreement"
    assert (record["n_labelled"], record["n_unlabelled"], len(record["rows"])) == (8, 16, 4)


def test_a_pool_of_its_own_and_an_index(icl_cli, sheet):
    given = read_part_labelled(sheet, {"text": "text"}, "label")
    (sheet.parent / "pool.jsonl").write_text(
        "".join(json.dumps({"text": each.fields["text"], "label": each.target}) + "\n" for each in given.labelled)
    )
    (sheet.parent / "new.jsonl").write_text("".join(json.dumps({"text": each.fields["text"]}) + "\n" for each in given.unlabelled))
    icl.DemoIndex.build(given.labelled, path=sheet.parent / "index", encoder=Lengths())
    whole = json.loads(icl_cli("index", "suggest", sheet, "--budget", 3, "--json").out)
    for pool in ("pool.jsonl", "index"):
        more = ("--encoder", "lengths") if pool == "index" else ()
        apart = icl_cli("index", "suggest", "new.jsonl", "--pool", pool, "--budget", 3, "--json", "--out", "todo.jsonl", *more)
        assert apart.code == 0, apart.err
        assert [row["fields"] for row in json.loads(apart.out)["rows"]] == [row["fields"] for row in whole["rows"]]
        (first, *_) = map(json.loads, (sheet.parent / "todo.jsonl").read_text().splitlines())
        assert list(first) == ["text", "label", "line", "guess", "uncertainty", "disagreement", "reason"]
        assert first["label"] is None
    alone = json.loads(icl_cli("index", "suggest", "new.jsonl", "--budget", 3, "--json").out)
    assert (alone["by"], alone["n_labelled"]) == ("diversity", 0)


def test_a_saved_predictor_has_its_say(icl_cli, sheet, monkeypatch):
    from icl.values import Prediction

    class Says:
        name = "ours"

        def predict(self, queries):
            return [Prediction(each.uid, "odd", {"odd": 1.0}, ("odd",)) for each in queries]

    monkeypatch.setattr("icl.ship.load", lambda folder: Says())
    answer = icl_cli("index", "suggest", sheet, "--budget", 2, "--predictor", "folder", "--most-asked", 5)
    assert answer.code == 0, answer.err
    assert "odd: ours" in answer.out
    assert "asked about 5 rows" in answer.err


def test_nothing_of_a_row_steers_the_terminal(icl_cli, sheet):
    with sheet.open("a") as file:
        file.write('"\x1b[31m red",,\n"y","\x1b[2J",\n')
    answer = icl_cli("index", "suggest", sheet, "--budget", 30)
    assert answer.code == 0
    assert "\ufffd[31m red" in answer.out
    assert "\x1b" not in answer.out + answer.err


def test_what_is_wrong_is_said(icl_cli, sheet):
    (sheet.parent / "done.csv").write_text("text,label\na,x\nb,y\n")
    given = read_part_labelled(sheet, {"text": "text"}, "label")
    icl.DemoIndex.build(given.labelled, path=sheet.parent / "index", encoder=Lengths())
    for wrong, message in (
        ((sheet, "--budget", 2, "--input", "txet"), "Did you mean 'text'?"),
        (("done.csv", "--budget", 2), "every row has a label already"),
        ((sheet, "--budget", 2, "--by", "diversity", "--out", "x.xlsx"), "'.xlsx' is no format"),
        ((sheet, "--budget", 2, "--pool", "index", "--encoder", "l", "--input", "body=text"), "fields text"),
        ((sheet, "--budget", 2, "--label", "none", "--by", "uncertainty"), "0 labels"),
        (("nowhere.csv", "--budget", 2), "nowhere.csv"),
    ):
        answer = icl_cli("index", "suggest", *wrong)
        assert answer.code == 2, answer.err
        assert message in answer.err
        assert answer.out == ""


def test_rows_that_cannot_be_used_are_counted(icl_cli, sheet):
    with sheet.open("a") as file:
        file.write(' ,,\n"",x,\n')
    given = read_part_labelled(sheet, {"text": "text"}, "label")
    assert given.reasons == {"empty text": 2}
    assert "2 × empty text" in icl_cli("index", "suggest", sheet, "--budget", 2).err
    (sheet.parent / "bare.csv").write_text('text,label\n" ",\n')
    with pytest.raises(InputError, match="1 × empty text"):
        read_part_labelled(sheet.parent / "bare.csv", {"text": "text"}, "label")


def test_a_label_column_that_is_not_there_is_said(icl_cli, sheet):
    said = "has no column 'lable' (it has text, label, reason), so no row counts as labelled"
    assert said in icl_cli("index", "suggest", sheet, "--label", "lable", "--budget", 2).err
    assert "no column" not in icl_cli("index", "suggest", sheet, "--budget", 2).err
