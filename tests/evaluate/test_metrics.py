"""Metrics against scikit-learn, published examples and counting by hand."""

import math
import random

import numpy as np
import pytest
from sklearn.metrics import f1_score

import icl
from icl.evaluate.metrics import _squad, accuracy, ece, exact_match, macro_f1, token_f1
from icl.evaluate.scoring import judge
from icl.plugins import Context, NoSettings
from icl.values import Example, Prediction

NONE, CONTEXT = NoSettings(), Context()
SQUAD = _squad.Settings()


def example(n, target, **more):
    return Example(f"{n:032x}-0", {"text": f"text {n}"}, target, **more)


def case(rng, n, labels):
    examples = [example(i, rng.choice(labels)) for i in range(n)]
    predictions = [Prediction(e.uid, rng.choice([*labels, e.target, e.target])) for e in examples]
    return examples, predictions


@pytest.mark.parametrize("seed", range(20))
def test_macro_f1_is_sklearns(seed):
    rng = random.Random(seed)
    examples, predictions = case(rng, rng.randint(1, 40), [f"l{i}" for i in range(rng.randint(1, 6))])
    metric = macro_f1.build(NONE, CONTEXT)
    samples = np.random.default_rng(seed).integers(0, len(examples), (7, len(examples)))
    gold, answers = (np.array(v) for v in ([e.target for e in examples], [p.answer for p in predictions]))
    expected = [f1_score(gold[s], answers[s], average="macro") for s in samples]
    np.testing.assert_allclose(metric.aggregate(predictions, examples, samples), expected, atol=1e-12)


def test_macro_f1_leaves_unscored_items_out():
    examples = [example(0, "a"), example(1, "b"), example(2, "c")]
    predictions = [Prediction(examples[0].uid, "a"), Prediction(examples[1].uid, "a"), Prediction(examples[2].uid, None, why="too long")]
    figure = icl.score(examples, predictions, metrics=["macro_f1"])["macro_f1"]
    assert (figure.n_scored, figure.n_failed) == (2, 1)
    # a: 1 right, 1 too many: F1 2/3; b: never answered: 0; c: not among the scored items
    assert figure.value == pytest.approx((2 / 3 + 0) / 2)


def test_unscored_is_not_wrong():
    examples = [example(i, "a") for i in range(4)]
    predictions = [Prediction(examples[0].uid, "a"), *(Prediction(e.uid, None, why="lost") for e in examples[1:])]
    values = accuracy.build(NONE, CONTEXT)(predictions, examples)
    assert values[0] == 1
    assert np.isnan(values[1:]).all()
    figure = icl.score(examples, predictions)["accuracy"]
    assert (figure.value, figure.n_scored, figure.n_failed) == (1.0, 1, 3)


def test_ece_by_hand():
    examples = [example(i, "a") for i in range(4)]
    confidences = [("a", 0.95), ("b", 0.95), ("a", 0.55), ("a", 0.34)]
    predictions = [Prediction(e.uid, answer, {answer: p}) for e, (answer, p) in zip(examples, confidences, strict=True)]
    metric = ece.build(ece.Settings(), CONTEXT)
    assert metric.bins == 15
    # bins of 1/15: (14/15, 1] holds both .95 (one right of two), the others are alone
    expected = (2 * abs(0.5 - 0.95) + abs(1 - 0.55) + abs(1 - 0.34)) / 4
    assert metric.aggregate(predictions, examples, np.arange(4)[None])[0] == pytest.approx(expected)
    # the edges: 0 belongs to the first bin, b/15 to the bin below it
    edges = [Prediction(e.uid, "b", {"b": p}) for e, p in zip(examples, (0.0, 1 / 15, 2 / 15, 1.0), strict=True)]
    assert metric.aggregate(edges, examples, np.arange(4)[None])[0] == pytest.approx(sum((0, 1 / 15, 2 / 15, 1)) / 4)


def test_ece_without_probabilities_is_unscored():
    examples = [example(0, "a")]
    figure = icl.score(examples, [Prediction(examples[0].uid, "a")], metrics=["ece"])["ece"]
    assert (figure.value, figure.n_scored, figure.n_failed) == (None, 0, 1)


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "f1"),
    [
        ("The  Eiffel Tower.", "eiffel tower", 1, 1),
        ("Paris, France", "Paris", 0, 2 / 3),
        ("a an the", "the", 1, 1),  # nothing is left of either
        ("the", "Paris", 0, 0),
        ("the cat the cat", "cat", 0, 2 / 3),  # a word counts as often as both have it
        ("It's 5 o'clock", "its 5 oclock", 1, 1),
        ("theatre", "atre", 0, 0),  # articles are whole words
    ],
)
def test_squad_normalisation(answer, reference, exact, f1):
    assert _squad.exact(answer, reference) == exact
    assert _squad.f1(answer, reference) == pytest.approx(f1)


def test_best_reference_counts():
    examples = [example(0, "New York City", references=("New York City", "NYC")), example(1, "x", references=("x",))]
    predictions = [Prediction(examples[0].uid, "nyc"), Prediction(examples[1].uid, None, why="empty")]
    for module in (exact_match, token_f1):
        values = module.build(SQUAD, CONTEXT)(predictions, examples)
        assert values[0] == 1
        assert math.isnan(values[1])


def test_choices_are_judged_by_their_text():
    examples = [Example("0-0", {"q": "?"}, "blue", choices=("red", "blue"))]
    assert icl.score(examples, [Prediction("0-0", "blue", {"red": 0.2, "blue": 0.8})], ["accuracy", "ece"])["ece"].value == pytest.approx(
        0.2
    )


def test_a_metric_that_returns_infinity_is_unscored():
    class Odd:
        def __call__(self, predictions, examples):
            return np.array([1.0, np.inf, 3.0])

    examples = [example(i, "a") for i in range(3)]
    figure = judge(Odd(), [Prediction(e.uid, "a") for e in examples], examples, np.random.default_rng(0))
    assert (figure.value, figure.n_scored, figure.n_failed) == (2.0, 2, 1)
