"""brier, nll and aurc against hand-made values and slow definitions."""

import itertools
import math

import numpy as np
import pytest

import icl
from icl.plugins import Context, build
from icl.values import Example, Prediction


def items(rows):
    """rows: (target, {label: probability} or None) -> (predictions, examples); the answer is the likeliest label."""
    examples = [Example(f"e{i}-0", {"text": str(i)}, target) for i, (target, _) in enumerate(rows)]
    predictions = [
        Prediction(f"e{i}-0", None if shares is None else max(shares, key=shares.get), shares, why=None if shares else "none")
        for i, (_, shares) in enumerate(rows)
    ]
    return predictions, examples


ROWS = [("a", {"a": 0.7, "b": 0.3}), ("b", {"a": 0.6, "b": 0.4}), ("c", {"a": 1.0, "b": 0.0}), ("a", None)]


def test_brier_and_nll_by_hand():
    predictions, examples = items(ROWS)
    brier = build("metric", "brier", Context())(predictions, examples)
    np.testing.assert_allclose(brier, [0.09 + 0.09, 0.36 + 0.36, 2.0, np.nan])
    nll = build("metric", "nll", Context())(predictions, examples)
    np.testing.assert_allclose(nll, [-math.log(0.7), -math.log(0.4), -math.log(1e-12), np.nan])
    scored = icl.score(examples, predictions, metrics=["brier", "nll", "aurc"])
    assert scored["brier"].value == pytest.approx((0.18 + 0.72 + 2) / 3)
    assert {(m.n_scored, m.n_failed) for m in scored.values()} == {(3, 1)}
    assert all(m.low <= m.value <= m.high for m in scored.values())


def slow_area(confidence, wrong):
    """The mean of the area over all orders that sort by confidence."""
    areas = []
    for order in itertools.permutations(range(len(wrong))):
        if all(confidence[i] >= confidence[j] for i, j in itertools.pairwise(order)):
            areas.append(np.mean([np.mean([wrong[i] for i in order[:k]]) for k in range(1, len(order) + 1)]))
    return np.mean(areas)


def test_aurc_equals_its_definition():
    rng = np.random.default_rng(0)
    metric = build("metric", "aurc", Context())
    for _ in range(20):
        confidence, right = rng.choice([0.55, 0.7, 0.9, 0.95], size=6), rng.random(6) < 0.6
        predictions, examples = items([("a" if r else "b", {"a": c, "b": 1 - c}) for c, r in zip(confidence, right, strict=True)])
        (value,) = metric.aggregate(predictions, examples, np.arange(6)[None])
        assert value == pytest.approx(slow_area(confidence, ~right))


def test_aurc_rewards_knowing_when_one_is_wrong():
    sure = items([("a", {"a": 0.9, "b": 0.1})] * 3 + [("b", {"a": 0.6, "b": 0.4})])
    unsure = items([("a", {"a": 0.6, "b": 0.4})] * 3 + [("b", {"a": 0.9, "b": 0.1})])
    blind = items([("a", {"a": 0.8, "b": 0.2})] * 3 + [("b", {"a": 0.8, "b": 0.2})])
    values = [icl.score(e, p, metrics=["aurc"])["aurc"].value for p, e in (sure, blind, unsure)]
    np.testing.assert_allclose(values, [0.25 / 4, 0.25, (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4])


def test_recall_looks_at_one_label():
    """As sklearn's; the intervals are over all items, so their number of that label varies too."""
    from sklearn.metrics import recall_score

    rng = np.random.default_rng(0)
    targets, answers = (rng.choice(["a", "b", "oos"], 200, p=[0.5, 0.3, 0.2]) for _ in range(2))
    examples = [Example(f"e{i}-0", {"text": str(i)}, str(target)) for i, target in enumerate(targets)]
    predictions = [Prediction(f"e{i}-0", str(answer)) for i, answer in enumerate(answers)]
    found = icl.score(examples, predictions, metrics=[{"recall": {"label": "oos"}}])["recall"]
    assert found.value == pytest.approx(recall_score(targets, answers, labels=["oos"], average=None)[0])
    assert (found.n_scored, found.n_failed) == (200, 0)
    assert 0 < found.low < found.value < found.high < 1
    none = icl.score(examples, predictions, metrics=[{"recall": {"label": "other"}}])["recall"]
    assert none.value is None
    held = [Prediction(p.uid, None, withheld="a") if p.answer == "oos" else p for p in predictions]
    assert icl.score(examples, held, metrics=[{"recall": {"label": "oos"}}])["recall"].value == 0
