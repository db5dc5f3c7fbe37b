"""`icl decide` on answers in words, end to end on a tiny model: the task's metric decides, with curve and crossover as for labels."""

import json
import random

import pytest
import tiny

import icl
from icl.cli import main
from icl.decision.contest import metric_of
from icl.errors import InputError

REPLIES = {"oil": "shares fell", "cup": "the team won", "film": "a moving film", "ink": "plot and words"}
METHODS = ["nearest_answer", "zero_shot", "random-8", "knn-8", {"finetune": {"kind": "lora", "epochs": 1, "max_new_tokens": 6}}]


def rows(n, seed):
    rng = random.Random(seed)
    for i in range(n):
        topic = rng.choice(sorted(REPLIES))
        yield {
            "question": f"{topic} {rng.choice(['review', 'article', 'question'])} {seed} {i}",
            "reply": [REPLIES[topic], f"{REPLIES[topic]} ."],
        }


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("decide")
    return tiny.save(root / "tiny", "llama"), tiny.save_bert(root / "encoder", ["review", "article", "question", *REPLIES], sentence=True)


@pytest.fixture(scope="module")
def task():
    return icl.Task.load(list(rows(40, 1)), test=list(rows(20, 2)), kind="answer", input="question", label="reply", name="replies")


@pytest.fixture(scope="module")
def decided(task, places, tmp_path_factory):
    lm = icl.load_model(str(places[0]), device="cpu")
    out = tmp_path_factory.mktemp("decided") / "run"
    asked = {"metric": "token_f1", "methods": METHODS, "budgets": [8, 32], "seeds": 1, "minutes": 100, "encoder": str(places[1])}
    return icl.decide(task, lm, out=out, **asked)


def test_the_metric_of_the_task_decides(decided, task):
    found = decided.findings
    assert found.metric == "token_f1"
    assert {(p.method, p.budget) for p in found.points} == {
        ("zero_shot", None), *((m, b) for m in ("nearest_answer", "random-8", "knn-8", "finetune") for b in (8, 32)),
    }  # fmt: skip
    for point in found.points:
        written = decided.run.predictions(point.method, budget=point.budget, seed=0 if point.budget else None)
        assert point.value == pytest.approx(icl.score(task.test, written, metrics=["token_f1"])["token_f1"].value)
    # A random model answers nothing; the nearest stored answer is often the right one.
    assert found.choice.leader == found.choice.winner == "nearest_answer"
    assert "token_f1" in decided.text
    assert "accuracy" not in decided.text


def test_there_are_a_learning_curve_and_a_crossover(decided):
    assert (decided.crossover.first, decided.crossover.last) == (8, 32)
    assert decided.findings.trained == "finetune"
    assert decided.findings.prompt in ("zero_shot", "random-8", "knn-8")
    page = (decided.folder / "report.html").read_text(encoding="utf-8")
    assert "Learning curves" in page


def test_the_winner_is_saved_with_a_regression_test_and_answers_the_same(decided, task, tmp_path):
    queries = [dict(e.fields) for e in task.test]
    decided.winner.save(tmp_path / "winner")
    assert [p.answer for p in icl.load(tmp_path / "winner").predict(queries)] == [p.answer for p in decided.winner.predict(queries)]
    assert icl.ship.check(tmp_path / "winner") == []


@pytest.mark.parametrize(
    ("replies", "metric"),
    [
        (["the team won the cup in the end", "oil"], "exact_match"),  # of several right answers the shortest counts
        (["the team won the cup"], "exact_match"),
        (["the team won the cup in the end", "and the other team had lost the cup"], "token_f1"),
    ],
)
def test_answers_of_many_words_are_judged_by_what_they_share(places, tmp_path, capsys, replies, metric):
    long = icl.Task.load([{**row, "reply": replies} for row in rows(40, 1)], kind="answer", input="question", label="reply")
    asked = {"minutes": 5, "encoder": str(places[1]), "out": tmp_path / "plan", "only_plan": True}
    contest = icl.decide(long, None, **asked).contest
    assert metric_of(contest.task, contest.request) == metric
    assert contest.suite([], [1], 1, None).get("metrics") == (["token_f1", "exact_match"] if metric == "token_f1" else None)
    named = icl.decide(long, None, metric="rouge_l", **asked).contest
    assert metric_of(named.task, named.request) == "rouge_l"


def test_the_usual_methods_are_those_for_answers(task, places, tmp_path, capsys):
    """By default exact match decides; labels have methods that answers have not."""
    plan = icl.decide(task, None, minutes=5, encoder=str(places[1]), out=tmp_path / "plan", only_plan=True)
    assert plan.plan.methods == ("majority", "nearest_answer")
    assert plan._repr_html_() is None  # a notebook shows its text
    with pytest.raises(InputError, match="no metric 'accuracy' judges a task of kind 'answer'"):
        icl.decide(task, None, metric="accuracy", minutes=5, encoder=str(places[1]))
    with pytest.raises(InputError, match="the method 'knn_vote' cannot do a task of kind 'answer'"):
        icl.decide(task, None, methods=["knn_vote", "nearest_answer"], minutes=5, encoder=str(places[1]))


def test_the_command_takes_a_column_with_one_answer_a_row(places, tmp_path, capsys):
    for name, seed, n in (("train", 1, 40), ("test", 2, 20)):
        lines = [json.dumps({**row, "reply": row["reply"][0]}) for row in rows(n, seed)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    files = [str(tmp_path / "train.jsonl"), "--test", str(tmp_path / "test.jsonl"), "--input", "question", "--references", "reply"]
    options = [
        "--model",
        "none",
        "--metric",
        "token_f1",
        "--minutes",
        "5",
        "--encoder",
        str(places[1]),
        "--out",
        str(tmp_path / "run"),
        "-q",
    ]
    assert main(["decide", *files, *options]) == 0
    said = capsys.readouterr().out
    assert "nearest_answer" in said
    assert "token_f1" in said
