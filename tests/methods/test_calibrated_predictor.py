"""Calibrations in a predictor: what is scored to fit them, what it costs, and that they are frozen and saved."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_tasks import LABELS, POOLS, QUERIES

import icl
from icl.errors import InputError
from icl.plugins import available

ALL = [{"prototypical": {"starts": 3}} if name == "prototypical" else name for name in sorted(available("calibration"))]


@pytest.fixture
def few_shot(tiny_lm, encoder_folder):
    def make(lm=tiny_lm, **options):
        return icl.FewShot(lm, **{"encoder": str(encoder_folder), "shots": 2, **options})

    return make


def fit(method, pool=None):
    return method.fit(POOLS["classify"]() if pool is None else pool, labels=LABELS)


def shares(predictions):
    return np.array([list(p.probabilities.values()) for p in predictions])


@pytest.mark.parametrize("calibration", ALL, ids=str)
def test_frozen_and_saved(few_shot, tiny_lm, calibration, tmp_path):
    # The little encoder adds no token of its own to a text, so the model has nothing to read for the empty one, which `contextual` asks.
    predictor, queries = fit(few_shot(calibration=calibration, retriever="knn")), QUERIES["classify"]
    whole = shares(predictor.predict(queries))
    np.testing.assert_allclose(whole.sum(axis=1), 1)
    np.testing.assert_allclose(shares(predictor.predict(queries[:1])), whole[:1], atol=1e-4)  # not by what else is asked
    predictor.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "predictor.json").read_text())["calibration_state"]
    again = icl.load(tmp_path / "saved", lm=tiny_lm)
    np.testing.assert_allclose(shares(again.predict(queries)), whole, atol=1e-6)


def test_content_free_inputs_get_the_demonstrations_of_the_predictor(few_shot):
    predictor, plain = fit(few_shot(calibration="contextual", retriever="random")), fit(few_shot(retriever="random"))
    raw = plain.log_scores([plain_query(text) for text in ("N/A", "", "[MASK]")])
    p_cf = np.exp(raw).mean(axis=0) / np.exp(raw).mean(axis=0).sum()
    p = shares(plain.predict(QUERIES["classify"])) / p_cf
    got = shares(predictor.predict(QUERIES["classify"]))
    np.testing.assert_allclose(got, p / p.sum(axis=1, keepdims=True), rtol=1e-3)


def plain_query(text):
    return icl.values.as_query({"text": text}, ("text",))


def test_contextual_needs_no_labelled_examples(few_shot):
    method = few_shot(calibration="contextual", shots=0, inputs=("text",))
    (prediction,) = method.fit((), labels=LABELS).predict(["Where is it"])
    assert prediction.answer in LABELS
    with pytest.raises(InputError, match="there are none"):
        few_shot(calibration="batch", shots=0, inputs=("text",)).fit((), labels=LABELS).predict(["Where is it"])


def test_fitting_is_counted_once_and_exactly(few_shot, tiny_lm):
    queries = QUERIES["classify"]
    plain, predictor = fit(few_shot()), fit(few_shot(calibration="temperature"))
    alone, fitting = plain.plan(queries), plain.plan(POOLS["classify"]())
    first, second = predictor.plan(queries), predictor.plan(queries)
    assert first == alone + fitting
    assert second == alone
    assert fit(few_shot(calibration="contextual", retriever="random")).plan(queries).naive < first.naive


def test_what_cannot_be_fitted_is_tried_once(few_shot, monkeypatch):
    predictor = fit(few_shot(calibration="prototypical"), POOLS["classify"]()[:3])  # 4 labels
    for _ in range(2):
        with pytest.raises(InputError, match="at least 4 rows, and 3"):
            predictor.predict(QUERIES["classify"])
        monkeypatch.setattr(predictor, "_raw", None)  # a second scoring would fail
    assert not predictor.calibration.can_save


def test_transductive_is_fitted_on_what_is_asked_and_is_not_saved(few_shot, tmp_path):
    predictor = fit(few_shot(calibration={"batch": {"transductive": True}}))
    p = shares(fit(few_shot()).predict(QUERIES["classify"]))
    expected = p / p.mean(axis=0)
    got = shares(predictor.predict(QUERIES["classify"]))
    np.testing.assert_allclose(got, expected / expected.sum(axis=1, keepdims=True), rtol=1e-3)
    assert predictor.plan(QUERIES["classify"]) == fit(few_shot()).plan(QUERIES["classify"])
    with pytest.raises(InputError, match="nothing to save"):
        predictor.save(tmp_path / "saved")
    assert not Path(tmp_path / "saved").exists()


@pytest.mark.parametrize(
    "order", [{"globale": {"permutations": 3}}, {"locale": {"permutations": 3}}, {"pdo": {"permutations": 3}}], ids=str
)
@pytest.mark.parametrize("calibration", ["contextual", "temperature"])
def test_with_an_order_that_asks_the_model(few_shot, tiny_lm, order, calibration, tmp_path):
    """Calibration and order both score: rows to fit on get their own order, and neither disturbs what the other found."""
    predictor, queries = fit(few_shot(calibration=calibration, order=order, shots=3)), QUERIES["classify"]
    planned = predictor.plan(queries)
    before = tiny_lm.totals.naive
    whole = predictor.predict(queries)
    assert tiny_lm.totals.naive - before == planned.naive
    uncalibrated = fit(few_shot(order=order, shots=3)).predict(queries)
    assert [p.demonstrations for p in whole] == [p.demonstrations for p in uncalibrated]
    assert [p.scores.sums for p in whole] == [p.scores.sums for p in uncalibrated]
    expected = predictor.calibration._component(predictor).apply(
        predictor.calibration.frozen, np.stack([fit(few_shot(order=order, shots=3)).log_scores([q])[0] for q in queries])
    )
    np.testing.assert_allclose(np.log(shares(whole)), expected, atol=1e-3)
    predictor.save(tmp_path / "saved")
    again = icl.load(tmp_path / "saved", lm=tiny_lm).predict(queries)
    assert [p.demonstrations for p in again] == [p.demonstrations for p in whole]
    np.testing.assert_allclose(shares(again), shares(whole), atol=1e-6)
