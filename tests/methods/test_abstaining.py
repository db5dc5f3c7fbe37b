"""Abstaining: thresholds fitted on the pool, what is withheld, what it costs, and that it is frozen and saved."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small_tasks import LABELS, POOLS, QUERIES

import icl
from icl.errors import InputError
from icl.methods._abstain import Abstain, folds, rule_of, threshold_for, withhold
from icl.methods.contrastive import Contrastive
from icl.methods.contrastive import Settings as ContrastiveSettings
from icl.methods.embedding_head import EmbeddingHead
from icl.methods.knn_vote import KnnVote
from icl.values import Prediction


def rule(**options):
    return Abstain.model_validate(options)


# ── the threshold ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(20))
def test_thresholds_are_those_of_trying_them_all(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    confidence = rng.integers(1, 12, n) / 12  # many ties
    right = rng.random(n) < confidence
    candidates = sorted({0.0, *confidence})

    def kept(t):
        return confidence >= t

    wish = rng.uniform(0.5, 0.9)
    good = [t for t in candidates if right[kept(t)].mean() >= wish]
    if good:
        np.testing.assert_array_equal(kept(threshold_for(rule(accuracy=wish), confidence, right)), kept(good[0]))
    else:
        with pytest.raises(InputError, match="no threshold reaches"):
            threshold_for(rule(accuracy=wish), confidence, right)
    cover = rng.uniform(0.1, 1)
    good = [t for t in candidates if kept(t).mean() >= cover]
    np.testing.assert_array_equal(kept(threshold_for(rule(coverage=cover), confidence, right)), kept(good[-1]))


def test_nothing_is_withheld_where_nothing_has_to_be():
    confidence, right = np.array([0.4, 0.6, 0.9]), np.array([True, True, True])
    assert threshold_for(rule(accuracy=1.0), confidence, right) == 0.0
    assert threshold_for(rule(coverage=1.0), confidence, right) == 0.0
    with pytest.raises(InputError, match=r"(?s)no threshold reaches an accuracy of 0.9 on the 3.*The best is 0.333, with 100%"):
        threshold_for(rule(accuracy=0.9), confidence, np.array([True, False, False]))
    with pytest.raises(InputError, match="none of the labelled examples"):
        threshold_for(rule(accuracy=0.9), np.zeros(0), np.zeros(0, dtype=bool))


@pytest.mark.parametrize("value", [1.5, -0.1, True, "0.5", {}, {"accuracy": 0.9, "coverage": 0.5}, {"treshold": 0.4}, {"accuracy": True}])
def test_what_is_no_rule_is_refused(value):
    with pytest.raises(InputError) as caught:
        rule_of(value)
    assert caught.value.problems[0].field == "abstain"


def test_a_prediction_is_withheld_or_not():
    sure = Prediction("a-0", "x", {"x": 0.7, "y": 0.3}, ("x", "y"))
    assert withhold(sure, 0.7) is sure
    held = withhold(sure, 0.71)
    assert (held.answer, held.withheld, held.abstained, held.confidence) == (None, "x", True, None)
    assert held.why == "abstained: the probability 0.7 of the answer is below 0.71"
    assert held.probabilities == sure.probabilities
    instead = withhold(sure, 0.71, "oos")
    assert (instead.answer, instead.withheld, instead.abstained, instead.confidence, instead.why) == ("oos", "x", False, None, None)
    assert withhold(replace(sure, answer="oos", probabilities={"oos": 0.1}), 0.71, "oos").withheld is None
    for other in (Prediction("a-0", None, why="too long"), Prediction("a-0", "written")):
        assert withhold(other, 1.0) is other


def test_parts_hold_each_label_in_turn():
    part = folds([0, 1] * 10)
    assert np.bincount(part).tolist() == [4] * 5
    assert all(np.bincount(part[label::2]).tolist() == [2] * 5 for label in (0, 1))
    assert sorted(folds([0, 0, 1])) == [0, 1, 2]
    with pytest.raises(InputError, match="single labelled example"):
        folds([0])


# ── the methods ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def make(tiny_lm, encoder_folder):
    def made(name, abstain=None, **options):
        encoder = str(encoder_folder)
        if name == "knn_vote":
            return KnnVote(3, encoder=encoder, abstain=abstain, **options)
        if name == "embedding_head":
            return EmbeddingHead(encoder=encoder, abstain=abstain, **options)
        if name == "contrastive":
            return Contrastive(ContrastiveSettings(steps=3, abstain=abstain), encoder, **options)
        return icl.FewShot(tiny_lm, encoder=encoder, abstain=abstain, **{"shots": 2, **options})

    return made


def fit(method, pool=None):
    return method.fit(POOLS["classify"]() if pool is None else pool, labels=LABELS)


METHODS = ["knn_vote", "embedding_head", "contrastive", "few_shot"]


@pytest.mark.parametrize("name", METHODS)
def test_a_number_withholds_what_is_below_it(make, name):
    queries = QUERIES["classify"]
    plain = fit(make(name)).predict(queries)
    middle = sorted(p.confidence for p in plain)[len(plain) // 2]
    found = fit(make(name, middle)).predict(queries)
    assert any(p.abstained for p in found)
    for before, after in zip(plain, found, strict=True):
        assert after.probabilities == pytest.approx(before.probabilities)
        assert after == before if before.confidence >= middle else (after.abstained and after.withheld == before.answer)
    instead = fit(make(name, {"threshold": middle, "label": "other"})).predict(queries)
    assert [p.answer for p in instead] == ["other" if p.abstained else p.answer for p in found]


@pytest.mark.parametrize("name", METHODS)
def test_a_fitted_threshold_is_saved(make, tiny_lm, name, tmp_path):
    predictor, queries = fit(make(name, {"coverage": 0.5, "label": "other"})), QUERIES["classify"]
    whole = predictor.predict(queries)
    threshold = predictor.abstaining.threshold()
    assert 0 < threshold < 1
    predictor.save(tmp_path / "saved")
    state = json.loads((tmp_path / "saved" / "predictor.json").read_text())
    assert (state["abstain"], state["abstain_threshold"]) == ({"coverage": 0.5, "label": "other"}, threshold)
    again = icl.load(tmp_path / "saved", **({"lm": tiny_lm} if name == "few_shot" else {}))
    assert [(p.answer, p.withheld) for p in again.predict(queries)] == [(p.answer, p.withheld) for p in whole]
    again.save(tmp_path / "twice")
    assert json.loads((tmp_path / "twice" / "predictor.json").read_text())["abstain_threshold"] == threshold


def test_the_vote_is_fitted_without_the_row_itself(make):
    """Two rows of the pool are copies: neither helps the other."""
    pool = POOLS["classify"]()
    found = fit(make("knn_vote", {"coverage": 0.5}))
    confidence = []
    for row in pool:
        (alone,) = fit(
            make("knn_vote"),
            [e for e in pool if icl.values.normalised_text(e.fields["text"]) != icl.values.normalised_text(row.fields["text"])],
        ).predict([row])
        confidence.append(alone.confidence)
    assert found.abstaining.threshold() == pytest.approx(threshold_for(rule(coverage=0.5), np.array(confidence), np.ones(8, dtype=bool)))
    found.predict(QUERIES["classify"])
    before = found.abstaining.threshold()
    found.add([replace(row, uid=f"new{i}-0", target="other") for i, row in enumerate(POOLS["classify"]()[:3])])
    assert found.abstaining.threshold() != before  # fitted again


def test_the_head_is_judged_on_rows_it_was_not_fitted_on(make):
    pool = POOLS["classify"]()
    found = fit(make("embedding_head", {"coverage": 0.5}))
    part = folds([LABELS.index(row.target) for row in pool])
    confidence = np.zeros(len(pool))
    for fold in range(part.max() + 1):
        held = [row for row, p in zip(pool, part, strict=True) if p == fold]
        head = fit(make("embedding_head"), [row for row, p in zip(pool, part, strict=True) if p != fold])
        confidence[part == fold] = [p.confidence for p in head.predict(held)]
    expected = threshold_for(rule(coverage=0.5), confidence, np.ones(len(pool), dtype=bool))
    assert found.abstaining.threshold() == pytest.approx(expected)


@pytest.mark.parametrize("calibration", [None, "contextual", "batch", "temperature", "knn_prompting"])
def test_a_prompt_is_fitted_on_scores_without_the_row_itself(make, tiny_lm, calibration):
    """With a calibration of pool rows the rows are scored once for both, and calibrated by what the rows of other parts give."""
    pool, queries = POOLS["classify"](), QUERIES["classify"]
    alone = fit(make("few_shot", calibration=calibration)).plan(queries)
    predictor = fit(make("few_shot", {"coverage": 0.5}, calibration=calibration))
    planned, before = predictor.plan(queries), tiny_lm.totals.naive
    predictor.predict(queries)
    assert tiny_lm.totals.naive - before == planned.naive
    fitting = fit(make("few_shot")).plan(pool) if calibration in (None, "contextual") else icl.values.TokenCounts(0, 0)
    assert planned == alone + fitting
    plain = fit(make("few_shot", calibration=calibration))
    if calibration in (None, "contextual"):
        confidence = [p.confidence for p in plain.predict(pool)]
    else:
        raw, confidence = plain.log_scores(pool), np.zeros(len(pool))
        targets = np.array([LABELS.index(row.target) for row in pool])
        part, component = folds(targets), plain.calibration._component(plain)
        for fold in range(part.max() + 1):
            held = part == fold
            given = (raw[~held], targets[~held].tolist()) if calibration in ("temperature", "knn_prompting") else (raw[~held],)
            confidence[held] = np.exp(component.apply(component.fit(*given), raw[held])).max(axis=1)
    expected = threshold_for(rule(coverage=0.5), np.array(confidence), np.ones(len(pool), dtype=bool))
    assert predictor.abstaining.threshold() == pytest.approx(expected, abs=1e-4)
    assert predictor.plan(queries) == fit(make("few_shot")).plan(queries)


def test_choices_and_samples_have_probabilities_too(make):
    predictor = make("few_shot", {"coverage": 0.5}).fit(POOLS["choose"]())
    found = predictor.predict(QUERIES["choose"])
    threshold = predictor.abstaining.threshold()
    assert [p.abstained for p in found] == [max(p.probabilities.values()) < threshold for p in found]
    sampled = fit(make("few_shot", 1.0, samples=3, max_new_tokens=4)).predict(QUERIES["classify"])
    assert all(p.abstained == (p.withheld is not None and max(p.probabilities.values()) < 1) for p in sampled)


def test_what_cannot_be_fitted_is_said_once(make, monkeypatch):
    few = fit(make("few_shot", {"accuracy": 1.0}, retriever="random"))
    monkeypatch.setattr(few.abstaining, "evidence", lambda: (np.array([0.5, 0.6]), np.array([False, False])))
    for _ in range(2):
        with pytest.raises(InputError, match="no threshold reaches"):
            few.predict(QUERIES["classify"])
        monkeypatch.setattr(few.abstaining, "evidence", None)  # a second try would fail
    with pytest.raises(InputError, match="there are none"):
        make("few_shot", {"accuracy": 0.9}, shots=0, inputs=("text",)).fit((), labels=LABELS).predict(["Where is it"])
    with pytest.raises(InputError, match="single labelled example"):
        fit(make("embedding_head", {"accuracy": 0.9}), POOLS["classify"]()[:1]).predict(["Where is it"])
    with pytest.raises(InputError, match="no probability"):
        make("few_shot", 0.5).fit(POOLS["answer"]())
    with pytest.raises(InputError, match="abstain"):
        make("few_shot", 7)
