"""Files that `icl train classifier` and `icl train finetune` cannot use are refused before anything is loaded."""

import pytest


@pytest.mark.parametrize("command", ["classifier", "finetune"])
@pytest.mark.parametrize("rows", ['"Rain again.",wet\n"Sun at last.",dry\n', '"Rain again.",wet\n'])
def test_judging_rows_without_a_label_to_learn_are_refused(icl_cli, reviews, tmp_path, command, rows):
    other = tmp_path / "weather.csv"
    other.write_text("text,label\n" + rows)
    answer = icl_cli("train", command, "--train", reviews, "--eval", other, "--base", "./nowhere", "--out", tmp_path / "new")
    assert answer.code == 2
    assert "weather.csv" in answer.err
    assert "no row of it has a label that there is to learn" in answer.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["classifier", "finetune"])
def test_a_header_alone_has_no_row(icl_cli, tmp_path, command):
    empty = tmp_path / "empty.csv"
    empty.write_text("text,label\n")
    answer = icl_cli("train", command, "--train", empty, "--out", tmp_path / "new")
    assert answer.code == 2
    assert "there is no row" in answer.err
