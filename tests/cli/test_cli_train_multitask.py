"""`icl train multitask` on files and on a suite."""

import pytest
import tiny

import icl


@pytest.fixture
def base(tmp_path):
    return tiny.save_bert(tmp_path / "bert", ["soup", "view", "staff", "good", "bad", "rude", "cat", "dog"])


@pytest.fixture
def animals(tmp_path):
    path = tmp_path / "animals.csv"
    path.write_text("text,label\n" + "".join(f"a {w} no {i},{w}\n" for i in range(20) for w in ("cat", "dog")))
    return path


def test_files_become_predictors(icl_cli, base, reviews, animals):
    answer = icl_cli(
        "train", "multitask", f"stars={reviews}", animals, "--base", base, "--out", "both", "--epochs", "1", "--per-label", "8"
    )
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[-2:] == ["both/stars", "both/animals"]
    assert "stars: 16 rows, 2 labels" in answer.err
    assert icl.load("both/animals").predict(["a dog"])[0].label in ("cat", "dog")


def test_a_suites_tasks_are_taught_and_judged_in_another(icl_cli, base, reviews, animals, tmp_path):
    (tmp_path / "s.yaml").write_text(
        "tasks: [{name: stars, train: reviews.csv}, {name: animals, train: animals.csv}]\nmethods: [majority]\n"
    )
    answer = icl_cli("train", "multitask", "s.yaml", "--base", base, "--out", "both", "--epochs", "1")
    assert answer.code == 0, answer.err
    (tmp_path / "t.yaml").write_text(
        "tasks: [{name: animals, train: animals.csv}]\nmethods: [{saved: {path: both/animals}}]\nmetrics: [accuracy]\n"
    )
    answer = icl_cli("run", "t.yaml", "--out", "r")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize(("sources", "says"), [
    (["animals.csv"], "1 task is not several"),
    (["animals.csv", "animals.csv"], "two tasks have the name 'animals'"),
    (["animals"], "neither a suite nor a file"),
], ids=["one", "twice", "what"])  # fmt: skip
def test_what_cannot_be_done_is_2(icl_cli, base, animals, sources, says):
    answer = icl_cli("train", "multitask", *sources, "--base", base, "--out", "new")
    assert answer.code == 2
    assert says in answer.err


@pytest.mark.parametrize("name", ["../stars", "a/stars", "..", "checkpoints"])
def test_a_task_has_a_folder_in_the_one_that_is_named(icl_cli, base, reviews, animals, name):
    answer = icl_cli("train", "multitask", f"{name}={reviews}", animals, "--base", base, "--out", "both", "--epochs", "1")
    assert answer.code == 2
    assert f"'{name}' cannot be a task's name" in answer.err


def test_no_fewer_than_no_layers_are_frozen(icl_cli, base, reviews, animals):
    answer = icl_cli("train", "multitask", reviews, animals, "--base", base, "--out", "both", "--set", "freeze=-1")
    assert answer.code == 2
    assert "--set freeze: Input should be greater than or equal to 0, or 'all'" in answer.err
