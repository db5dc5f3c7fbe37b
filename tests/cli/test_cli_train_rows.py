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


@pytest.mark.parametrize(
    "rows",
    ['"It rained again all day long.",wet\n', '"It rained again all day long.",wet\n"And it rained once more at night.",wet\n'],
    ids=["one row", "two"],
)
def test_one_label_alone_is_what_it_says(icl_cli, tmp_path, rows):
    file = tmp_path / "weather.csv"
    file.write_text("text,label\n" + rows)
    answer = icl_cli("train", "classifier", "--train", file, "--out", tmp_path / "new")
    assert answer.code == 2
    assert "all its values are the same" in answer.err
    assert "have the label 'wet', so there is nothing to tell apart" in answer.err
    assert "answer" not in answer.err


def test_a_label_of_each_row_alone_can_be_said_to_be_one(tmp_path):
    """Eight rows of eight labels look like answers in words; whoever names the column, or its task, is believed."""
    from icl.cli.guess import guess

    file = tmp_path / "bank.csv"
    file.write_text("text,label\n" + "".join(f'"Where is my card number {n}?",label_{n}\n' for n in range(8)))
    assert guess(file).kind == "answer"
    found = guess(file, label="label", kind="classify")
    assert (found.kind, len(found.values)) == ("classify", 8)
    assert not any("kind" in reason for reason in found.reasons)


def test_judging_rows_of_other_labels_are_named_and_are_no_labels_owned(reviews, tmp_path, capsys):
    from icl import Task
    from icl.cli.trained import judges_of

    other = tmp_path / "more.csv"
    other.write_text('text,label\n"A fine place.",positive\n"Rain again.",wet\n"Sun at last.",dry\n')
    task = Task.load(reviews, dev=other, input="text", label="label", holdout=0)
    judges = judges_of(task, other)
    assert [row.target for row in judges] == ["positive"]
    assert "2 of 3 rows judge nothing, since no row of --train has their label: 'dry', 'wet'" in capsys.readouterr().err
    assert judges_of(task, None) == tuple(task.dev)


@pytest.mark.parametrize(("options", "says"), [
    (["finetune", "--kind", "lore"], "--kind: Input should be 'full'"),
    (["finetune", "--set", "kind=lore"], "--set kind: Input should be 'full'"),
    (["finetune", "--learning-rate", "0"], "--learning-rate: Input should be greater than 0"),
    (["finetune", "--set", "loss=lables"], "--set loss: Input should be 'labels', 'language_model', 'unlikelihood' or 'length_normalised', or a"),
    (["finetune", "--set", "loss=[labels, lables]"], "--set loss.1: Input should be 'labels'"),
    (["classifier", "--set", "validation=fold"], "--set validation: Input should be 'auto', 'none' or 'folds', or a valid number"),
    (["classifier", "--set", "validation=1.5"], "--set validation: Input should be 'auto', 'none' or 'folds', or less than 1"),
    (["classifier", "--set", "class_weights={positive: -1}"], "--set class_weights.positive: Input should be greater than 0"),
    (["classifier", "--set", "augment={paraphrase: {modle: x}}"], "--set augment.paraphrase.modle: 'paraphrase' has no option 'modle'"),
    (["classifier", "--set", "base=./elsewhere"], "elsewhere"),
    (["pretrain", "--text", "reviews.csv", "--learning-rate", "0"], "--learning-rate: Input should be greater than 0"),
])  # fmt: skip
def test_a_wrong_value_is_told_once_and_where_it_was_given(icl_cli, reviews, options, says):
    command, *rest = options
    answer = icl_cli("train", command, *(() if command == "pretrain" else ("--train", reviews)), "--out", "new", *rest)
    assert answer.code == 2
    assert says in answer.err
    assert "problems" not in answer.err or "modle" in says  # that one lacks its model, too


def test_rows_that_cannot_be_used_are_told_once(icl_cli, reviews):
    reviews.write_text(reviews.read_text() + ",positive\n")
    answer = icl_cli("train", "classifier", "--train", reviews, "--base", "./nowhere", "--out", "new")
    assert answer.err.count("1 × empty text") == 1
