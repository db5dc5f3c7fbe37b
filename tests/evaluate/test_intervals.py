"""Intervals: published values, and how often they cover what they should."""

import numpy as np
import pytest

from icl.evaluate.intervals import one_run, resamples, several_runs, statistic, wilson
from icl.evaluate.metrics.macro_f1 import MacroF1
from icl.values import Example, Prediction


def mean(values):
    return statistic(object(), np.asarray(values, dtype=float), [], [])


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I, method 3 (score).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(right, n, low, high):
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_ends_at_0_and_1_exactly():
    assert all(wilson(0, n)[0] == 0 and wilson(n, n)[1] == 1 for n in range(1, 300))


def test_the_same_generator_gives_the_same_interval():
    values = np.random.default_rng(1).random(50)
    first, second = (one_run(mean(values), np.arange(50), np.random.default_rng(7)) for _ in range(2))
    assert first == second


def test_chunks_do_not_change_the_draws(monkeypatch):
    whole = np.concatenate(list(resamples(30, np.random.default_rng(0), 100)))
    monkeypatch.setattr("icl.evaluate.intervals._CHUNK", 100)
    parts = list(resamples(30, np.random.default_rng(0), 100))
    assert len(parts) > 10
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_one_run_covers():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        low, high = one_run(mean(rng.exponential(1.0, 120)), np.arange(120), rng)
        covered += low <= 1.0 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_macro_f1_is_covered():
    rng = np.random.default_rng(0)
    labels = np.array(["a", "b", "c"])

    def draw(n):
        gold = rng.choice(3, n, p=[0.6, 0.3, 0.1])
        answer = np.where(rng.random(n) < 0.7, gold, rng.choice(3, n))
        return [Example(str(i), {}, labels[g]) for i, g in enumerate(gold)], [Prediction(str(i), labels[a]) for i, a in enumerate(answer)]

    examples, predictions = draw(50_000)
    truth = MacroF1().aggregate(predictions, examples, np.arange(50_000)[None])[0]
    covered = 0
    for _ in range(100):
        examples, predictions = draw(200)
        low, high = one_run(statistic(MacroF1(), np.zeros(200), predictions, examples), np.arange(200), rng)
        covered += low <= truth <= high
    assert covered / 100 >= 0.9


@pytest.mark.parametrize("n_runs", [3, 5])
@pytest.mark.parametrize("between", [0.0, 0.08])
def test_several_runs_cover(n_runs, between):
    """Items of different difficulty, runs of different luck: the interval covers the mean over both."""
    rng = np.random.default_rng(n_runs)
    covered, trials, n = 0, 300, 100
    for _ in range(trials):
        items = rng.normal(0, 0.3, n)
        runs = [mean(items + rng.normal(0, between) + rng.normal(0, 0.1, n)) for _ in range(n_runs)]
        low, high = several_runs(runs, np.arange(n), rng)
        covered += low <= 0 <= high
    assert covered / trials >= 0.93
