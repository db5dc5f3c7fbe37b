"""Calibrations on label scores measured with a real model: 150 items of three public sets under three prompts each, a separate script's.

A bias or a temperature of known size is put onto them, so what a calibration has to give back is known. Fitted on one half of the items,
judged on the other.
"""

import json

import numpy as np
import pytest
from test_calibrations import accuracy, ece, fitted, softmax

from icl.plugins import available

FIT, JUDGED = slice(0, None, 2), slice(1, None, 2)


@pytest.fixture(scope="module")
def measured(shared):
    """(set, prompt) -> ((n, n_labels) log-likelihoods, (n,) right labels, (n_labels,) bias in nats)."""
    groups = {}
    for line in map(json.loads, (shared / "design" / "smollm2_reference.jsonl").read_text(encoding="utf-8").splitlines()):
        groups.setdefault((line["set"], line["form"]), []).append(line)
    assert len(groups) == 9
    found = {}
    for key, lines in groups.items():
        bias = np.zeros(len(lines[0]["labels"]))
        bias[0], bias[-1] = 4, -1
        found[key] = np.array([line["sums"] for line in lines]), np.array([line["labels"].index(line["gold"]) for line in lines]), bias
    return found


def answers(name, scores, targets, bias, **settings):
    component, state = fitted(name, scores[FIT] + bias, targets[FIT].tolist(), **settings)
    return component.apply(state, scores[JUDGED] + bias)


def test_the_bias_does_harm(measured):
    lost = [accuracy(s[JUDGED], y[JUDGED]) - accuracy(s[JUDGED] + bias, y[JUDGED]) for s, y, bias in measured.values()]
    assert min(lost) > 0
    assert np.mean(lost) > 0.15


@pytest.mark.parametrize(("name", "settings"), [("batch", {"mean": "log"}), ("prototypical", {"starts": 3})])
def test_answers_are_those_without_the_bias(measured, name, settings):
    for scores, targets, bias in measured.values():
        got, clean = (answers(name, scores, targets, b, **settings) for b in (bias, 0))
        np.testing.assert_allclose(np.exp(got), np.exp(clean), atol=1e-6)


@pytest.mark.parametrize("name", ["contextual", "domain_context"])
def test_scores_are_those_without_the_bias(measured, name):
    """Where inputs without content show the bias and nothing else."""
    for scores, _, bias in measured.values():
        component, state = fitted(name, np.tile(bias - 7, (3, 1)))
        np.testing.assert_allclose(np.exp(component.apply(state, scores + bias)), softmax(scores), atol=1e-9)


@pytest.mark.parametrize(("name", "left"), [("batch", 0.03), ("knn_prompting", 0.03)])
def test_the_bias_is_undone_but_for_a_little(measured, name, left):
    """Over the nine together: the mean probability understates a strong bias, and KL divergence weighs labels by what is left of them."""
    clean, biased, got = np.mean(
        [
            (accuracy(answers(name, s, y, 0), y[JUDGED]), accuracy(s[JUDGED] + b, y[JUDGED]), accuracy(answers(name, s, y, b), y[JUDGED]))
            for s, y, b in measured.values()
        ],
        axis=0,
    )
    assert got > biased + 0.1
    assert got > clean - left


def test_a_temperature_is_found_again(measured):
    for scores, targets, _ in measured.values():
        component, state = fitted("temperature", scores[FIT], targets[FIT].tolist())
        flat, flat_state = fitted("temperature", scores[FIT] / 3, targets[FIT].tolist())
        assert flat_state["temperature"] == pytest.approx(state["temperature"] / 3, rel=1e-3)
        np.testing.assert_allclose(flat.apply(flat_state, scores / 3), component.apply(state, scores), atol=1e-2)


def test_what_the_model_itself_gets_wrong(measured):
    """Its own bias: the mean over labels makes answers better where it is strong, one number makes probabilities better everywhere."""
    raw, calibrated = np.mean(
        [(accuracy(s[JUDGED], y[JUDGED]), accuracy(answers("batch", s, y, 0), y[JUDGED])) for s, y, _ in measured.values()], axis=0
    )
    assert calibrated > raw + 0.02
    off, less = np.mean(
        [(ece(np.log(softmax(s[JUDGED])), y[JUDGED]), ece(answers("temperature", s, y, 0), y[JUDGED])) for s, y, _ in measured.values()],
        axis=0,
    )
    assert less < 0.6 * off


def test_none_is_forgotten():
    assert set(available("calibration")) == {"batch", "contextual", "domain_context", "knn_prompting", "prototypical", "temperature"}
