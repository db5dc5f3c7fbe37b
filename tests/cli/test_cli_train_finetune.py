"""`icl train finetune` on a CSV file."""

import pytest
import tiny

import icl


@pytest.fixture
def base(tmp_path):
    return tiny.save(tmp_path / "llama")


def test_a_file_becomes_a_predictor_that_a_suite_takes(icl_cli, base, reviews, tmp_path):
    answer = icl_cli("train", "finetune", "--train", reviews, "--base", base, "--out", tmp_path / "new", "--epochs", "1", "--set", "rank=2")
    assert answer.code == 0, answer.err
    heading, first, folder = answer.out.splitlines()
    assert heading.split()[:2] == ["epoch", "steps"]
    assert first.split()[:2] == ["1", "6"]
    assert folder == str(tmp_path / "new")
    assert "48 labels owned" in answer.err
    predictor = icl.load(folder)
    assert predictor.predict(["A lovely view."])[0].label in ("positive", "negative")
    (tmp_path / "s.yaml").write_text(
        f"tasks: [{{name: r, train: {reviews}}}]\nmethods: [{{saved: {{path: {folder}}}}}]\nmetrics: [accuracy]\n"
    )
    answer = icl_cli("run", tmp_path / "s.yaml", "--out", tmp_path / "r")
    assert answer.code == 0, answer.err


def test_rows_that_judge_each_epoch_and_columns_of_other_names(icl_cli, base, reviews, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(reviews.read_text().replace("text,label", "body,stars"))
    answer = icl_cli(
        "train", "finetune", "--train", other, "--eval", other, "--input", "text=body", "--label", "stars", "--template", "sentiment",
        "--base", base, "--kind", "ia3", "--out", tmp_path / "new", "--epochs", "2", "--search", "1",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert all(len(line.split()) == 5 for line in answer.out.splitlines()[1:3])
    assert "kept: epoch" in answer.err
    assert "search: 1 trial, 12 steps" in answer.err
    assert "with the settings as given" in answer.err
    assert icl.load(tmp_path / "new").inputs == ("text",)


@pytest.mark.parametrize(("options", "says"), [
    (["--kind", "lore"], "kind"),
    (["--set", "rang=4"], "no option 'rang'"),
    (["--base", "./nowhere"], "does not exist"),
    (["--label", "stars"], "no column 'stars'"),
    (["--template", "nowhere"], "nowhere"),
], ids=["kind", "setting", "base", "column", "template"])  # fmt: skip
def test_what_cannot_be_trained_is_2(icl_cli, base, reviews, tmp_path, options, says):
    answer = icl_cli("train", "finetune", "--train", reviews, "--base", base, "--out", tmp_path / "new", *options)
    assert answer.code == 2
    assert says in answer.err
    assert not (tmp_path / "new").exists()
