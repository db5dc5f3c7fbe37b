"""Calibrations: the authors' formulas on hand-made tables, known biases recovered, states that are plain JSON."""

import json
import warnings

import numpy as np
import pytest

from icl.errors import InputError
from icl.plugins import Context, available, find, settings_of
from icl.values import Example

ROWS = tuple(Example(f"r{i}-0", {"text": text}, "ab"[i % 2]) for i, text in enumerate(["one two three", "four five", "six", "seven two"]))
CONTEXT = Context(pool=ROWS, labels=("a", "b"), inputs=("text",), seed=3)
ALL = sorted(available("calibration"))


def make(name, context=CONTEXT, **settings):
    plugin = find("calibration", name)
    return plugin.load().build(settings_of(plugin, settings), context)


def fitted(name, scores, targets=None, **settings):
    component = make(name, **settings)
    needs = getattr(find("calibration", name).load(), "NEEDS_TARGETS", False)
    state = component.fit(scores, targets) if needs else component.fit(scores)
    return component, json.loads(json.dumps(state, allow_nan=False))


def softmax(x):
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def biased(n, n_labels, bias, seed, sharpness=3.0):
    """(clean, biased, targets): noise, a gain for the right label, and the same bias towards each label everywhere."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % n_labels
    clean = rng.normal(size=(n, n_labels)) - 5
    clean[np.arange(n), targets] += sharpness
    return clean, clean + np.asarray(bias), targets


def accuracy(log_scores, targets):
    return float((log_scores.argmax(axis=1) == targets).mean())


def ece(log_probabilities, targets, bins=15):
    p = np.exp(log_probabilities)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == targets
    at = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return sum(abs((right[at == b] - confidence[at == b]).sum()) for b in range(bins)) / len(p)


# ── the authors' formulas ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["contextual", "domain_context"])
def test_diagonal_w_as_published(name):
    """q = diag(p_cf)^-1 p; p_cf: label probabilities averaged over the inputs without content, then normalised."""
    content_free = np.array([[0.30, 0.10], [0.20, 0.05], [0.05, 0.01]])  # of all continuations, so rows do not add up to 1
    p = np.array([[0.6, 0.2], [0.5, 0.5], [0.01, 0.02]])
    p_cf = content_free.mean(axis=0) / content_free.mean(axis=0).sum()
    q = (np.linalg.inv(np.diag(p_cf)) @ (p / p.sum(axis=1, keepdims=True)).T).T
    component, state = fitted(name, np.log(content_free))
    np.testing.assert_allclose(np.exp(state["log_prior"]), p_cf, rtol=1e-12)
    np.testing.assert_allclose(np.exp(component.apply(state, np.log(p))), q / q.sum(axis=1, keepdims=True), rtol=1e-12)


def test_batch_divides_by_the_mean_probability():
    rows = np.array([[0.8, 0.2], [0.6, 0.4], [0.9, 0.1]])
    component, state = fitted("batch", np.log(rows * [[0.1], [1e-9], [0.5]]))  # each row's total does not matter
    expected = rows / rows.mean(axis=0)
    np.testing.assert_allclose(np.exp(component.apply(state, np.log(rows))), expected / expected.sum(axis=1, keepdims=True), rtol=1e-9)
    component, state = fitted("batch", np.log(rows), mean="log")
    expected = softmax(np.log(rows) - np.log(rows).mean(axis=0))
    np.testing.assert_allclose(np.exp(component.apply(state, np.log(rows))), expected, rtol=1e-12)


def test_temperature_minimises_the_negative_log_likelihood():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(400, 3)) * 2
    targets = np.array([rng.choice(3, p=p) for p in softmax(logits)])
    component, state = fitted("temperature", logits * 2.5, targets)  # drawn at temperature 1, told at 1 / 2.5

    def loss(t):
        return -np.log(softmax(logits * 2.5 / t))[np.arange(400), targets].mean()

    grid = np.exp(np.linspace(np.log(0.05), np.log(100), 4001))
    assert loss(state["temperature"]) <= min(map(loss, grid)) + 1e-9
    assert state["temperature"] == pytest.approx(2.5, rel=0.15)
    calibrated = component.apply(state, logits * 2.5)
    assert (calibrated.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert ece(calibrated, targets) < 0.6 * ece(np.log(softmax(logits * 2.5)), targets)


def test_prototypical_is_a_mixture_with_equal_weights_and_the_best_assignment():
    rng = np.random.default_rng(0)
    centres = np.log(np.array([[0.95, 0.05], [0.75, 0.25]]))  # both clusters lean to the first label
    points = np.concatenate([centre + rng.normal(size=(40, 2)) * 0.05 for centre in centres])
    component, state = fitted("prototypical", points, covariance="full", starts=10, centred=False)
    logs = np.log(softmax(points))
    np.testing.assert_allclose(state["means"], [logs[:40].mean(axis=0), logs[40:].mean(axis=0)], atol=0.02)
    densities = []
    for mean, covariance in zip(state["means"], state["covariances"], strict=True):
        gap = logs - mean
        densities.append(np.exp(-0.5 * np.einsum("ni,ij,nj->n", gap, np.linalg.inv(covariance), gap)) / np.sqrt(np.linalg.det(covariance)))
    expected = np.stack(densities, axis=1)
    got = component.apply(state, points)
    np.testing.assert_allclose(np.exp(got), expected / expected.sum(axis=1, keepdims=True), atol=1e-9)
    assert (got.argmax(axis=1) == np.repeat([0, 1], 40)).all()
    assert (points.argmax(axis=1) == 0).all()


def test_knn_prompting_votes_by_kl_divergence():
    anchors = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.55, 0.45]]))
    targets = [0, 0, 1, 1, 1]
    queries = np.log(np.array([[0.85, 0.15], [0.58, 0.42], [0.75, 0.25]]))
    component, state = fitted("knn_prompting", anchors, targets, k=3)
    got = component.apply(state, queries)
    for row, query in zip(got, queries, strict=True):
        kl = [(np.exp(query) * (query - anchor)).sum() for anchor in anchors]
        votes = np.bincount([targets[i] for i in np.argsort(kl)[:3]], minlength=2)
        assert row.argmax() == votes.argmax()
        np.testing.assert_allclose(np.exp(row), votes / 3, atol=1e-3)
    component, state = fitted("knn_prompting", anchors, targets, k=2)  # one vote each: the nearer one decides
    assert component.apply(state, np.log(np.array([[0.69, 0.31], [0.73, 0.27]]))).argmax(axis=1).tolist() == [1, 0]


# ── a known bias ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "settings", "left"),
    [("batch", {"mean": "log"}, 0.02), ("batch", {}, 0.15), ("prototypical", {}, 0.02), ("knn_prompting", {}, 0.06)],
)
@pytest.mark.parametrize("bias", [[4.0, 0.0, 0.0], [0.0, 3.0, -2.0]])
def test_a_known_bias_is_undone(name, settings, left, bias):
    """The mean probability under a strong bias is near 0 or 1 and so understates it: `batch` as published leaves some of it."""
    _, pool, pool_targets = biased(126, 3, bias, seed=1)
    clean, raw, targets = biased(900, 3, bias, seed=2)
    component, state = fitted(name, pool, pool_targets, **settings)
    got = component.apply(state, raw)
    assert accuracy(raw, targets) < accuracy(clean, targets) - 0.4
    assert accuracy(got, targets) > accuracy(clean, targets) - left
    np.testing.assert_allclose(np.exp(got).sum(axis=1), 1)
    assert ece(got, targets) < ece(np.log(softmax(raw)), targets)


@pytest.mark.parametrize("name", ["contextual", "domain_context"])
def test_the_bias_of_inputs_without_content_is_undone(name):
    bias = np.array([4.0, 0.0, -1.0])
    clean, raw, targets = biased(600, 3, bias, seed=5)
    component, state = fitted(name, np.tile(bias - 7, (3, 1)))
    got = component.apply(state, raw)
    np.testing.assert_allclose(np.exp(got), softmax(clean), rtol=1e-9)
    assert ece(got, targets) < ece(np.log(softmax(raw)), targets)


def test_a_mixture_of_six_labels():
    _, pool, _ = biased(120, 6, [9, 0, 0, 0, 0, 0], seed=3, sharpness=8.0)
    clean, raw, targets = biased(600, 6, [9, 0, 0, 0, 0, 0], seed=4, sharpness=8.0)
    component, state = fitted("prototypical", pool)
    assert np.array(state["covariances"]).ndim == 2  # too few rows for full ones
    assert accuracy(component.apply(state, raw), targets) > accuracy(clean, targets) - 0.05 > accuracy(raw, targets)


# ── the contract ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ALL)
def test_contract(name):
    """Finite log-probabilities; the same row by row as together; a state that is JSON; the same state from the same scores."""
    _, pool, targets = biased(60, 3, [1, 0, 0], seed=1)
    component, state = fitted(name, pool, targets)
    got = component.apply(state, pool)
    assert got.shape == pool.shape
    assert np.isfinite(got).all()
    np.testing.assert_allclose(np.exp(got).sum(axis=1), 1)
    np.testing.assert_allclose(np.concatenate([component.apply(state, row[None]) for row in pool]), got, atol=1e-9)
    np.testing.assert_allclose(component.apply(state, pool - 30.0), got, atol=1e-6)  # what all labels share says nothing
    assert fitted(name, pool, targets)[1] == state


@pytest.mark.parametrize("name", ALL)
def test_impossible_labels_and_broken_rows(name):
    """A label of no likelihood anywhere stays rare and is never nan; a row that is not a number does not spoil the others."""
    _, pool, targets = biased(40, 2, [0, 0], seed=1)
    pool = np.concatenate([np.column_stack([pool, np.full(40, -np.inf)]), [[np.nan, 0, 0], [-np.inf] * 3]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        component, state = fitted(name, pool, [*targets, 0, 0])
        got = component.apply(state, pool)
    assert not np.isnan(got[:40]).any()
    if name != "prototypical":  # a mixture has no cluster for a label that is never seen
        assert (got[:40].argmax(axis=1) < 2).all()
    assert np.isnan(got[40:]).any(axis=1).all()
    with pytest.raises(InputError, match="are numbers"):
        fitted(name, np.full((3, 2), np.nan), [0, 1, 0])


@pytest.mark.parametrize("name", [n for n in ALL if n != "prototypical"])
def test_a_single_row_and_a_single_label(name):
    component, state = fitted(name, np.log([[0.7, 0.3]]), [0])
    assert np.isfinite(component.apply(state, np.log([[0.6, 0.4]]))).all()
    component, state = fitted(name, np.full((4, 1), -3.0), [0] * 4)
    np.testing.assert_allclose(component.apply(state, np.full((2, 1), -9.0)), 0, atol=1e-12)


def test_a_mixture_needs_as_many_rows_as_labels():
    with pytest.raises(InputError, match="at least 3 rows, and 2"):
        fitted("prototypical", np.zeros((2, 3)))
    component, state = fitted("prototypical", np.zeros((4, 2)))  # all rows alike
    np.testing.assert_allclose(np.exp(component.apply(state, np.zeros((1, 2)))), 0.5, atol=0.01)


# ── inputs without content ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_asked_without_content():
    queries = make("contextual").queries()
    assert [q.fields["text"] for q in queries] == ["N/A", "", "[MASK]"]
    assert all(q.target is None for q in queries)
    two = Context(pool=(), labels=("a", "b"), inputs=("premise", "hypothesis"))
    assert make("contextual", two, inputs=["?"]).queries()[0].fields == {"premise": "?", "hypothesis": "?"}
    turns = (Example("c-0", {"chat": [{"role": "user", "text": "hi"}]}, "a"),)
    assert make("contextual", Context(pool=turns)).queries()[0].fields == {"chat": [{"role": "user", "text": "N/A"}]}
    with pytest.raises(InputError, match="names of the input fields"):
        make("contextual", Context()).queries()


def test_random_words_are_those_of_the_pool():
    queries = make("domain_context", texts=7).queries()
    words = {word for row in ROWS for word in row.fields["text"].split()}
    assert len(queries) == 7
    assert len({q.fields["text"] for q in queries}) > 3
    for query in queries:
        drawn = query.fields["text"].split()
        assert len(drawn) == 2  # 8 words over 4 rows
        assert set(drawn) <= words
    assert [q.fields for q in queries] == [q.fields for q in make("domain_context", texts=7).queries()]
    with pytest.raises(InputError, match="there are none"):
        make("domain_context", Context(inputs=("text",))).queries()
