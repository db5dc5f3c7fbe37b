"""Looking again and again: published bounds, and the share of wrong answers when there is nothing to find."""

import math

import numpy as np
import pytest
from scipy import stats

from icl.evaluate.sequential import look, nominal_levels, spent_levels


def test_one_look_is_the_usual_test():
    assert nominal_levels([1.0]) == pytest.approx([0.05], rel=1e-6)


def test_levels_against_brownian_paths():
    """Each look's share of first crossings is what the spending function says, and all of them 5 %."""
    shares = [0.2, 0.4, 0.7, 1.0]
    bounds = stats.norm.isf(np.array(nominal_levels(shares)) / 2) * np.sqrt(shares)
    steps = np.sqrt(np.diff([0.0, *shares])) * np.random.default_rng(0).standard_normal((400_000, 4))
    crossed = np.abs(np.cumsum(steps, axis=1)) > bounds
    first = np.argmax(crossed, axis=1)[crossed.any(axis=1)]
    spent = np.diff([0.0, *(0.05 * np.array(shares) ** 2)])
    assert np.bincount(first, minlength=4) / 400_000 == pytest.approx(spent, abs=0.0008)


def test_levels_do_not_depend_on_later_looks():
    assert nominal_levels([0.25, 0.5]) == nominal_levels([0.25, 0.5, 1.0])[:2]
    assert nominal_levels([1e-7, 1.0])[0] == 0.0 or nominal_levels([1e-7, 1.0])[0] < 1e-12


def test_integrated_levels_are_looser_than_what_is_spent():
    shares = [0.2, 0.5, 1.0]
    assert sum(spent_levels(shares)) == pytest.approx(0.05)
    assert spent_levels(shares)[0] == pytest.approx(nominal_levels(shares)[0], rel=1e-6)
    assert all(a >= b - 1e-9 for a, b in zip(nominal_levels(shares), spent_levels(shares), strict=True))


def test_verdicts():
    rng = np.random.default_rng(0)
    clear = rng.normal(0.3, 0.3, (3, 200)) * 1.0
    found = look(clear, [0.5])
    assert (found.verdict, found.decided) == ("ours", True)
    assert found.low > 0
    assert look(-clear, [0.5]).verdict == "theirs"
    nothing = rng.normal(0, 0.3, (1, 50))
    nothing -= nothing.mean()
    assert look(nothing, [0.5]).verdict == "go on"
    assert not look(nothing, [0.5]).decided
    assert look(nothing, [0.5, 1.0]).verdict == "not settled"
    assert look(nothing, [0.5], margin=0.5).verdict == "level"
    small = 0.05 + rng.normal(0, 0.001, (3, 100))
    assert look(small, [0.5]).verdict == "ours"
    assert look(small, [0.5], margin=0.1).verdict == "level"


def test_too_little_to_say():
    assert look(np.full((2, 5), np.nan), [0.1]).verdict == "go on"
    one = look(np.array([[1.0, np.nan]]), [0.1])
    assert (one.verdict, one.value, one.high) == ("go on", 1.0, math.inf)
    assert look(np.array([[1.0]]), [1.0]).verdict == "not settled"


def test_an_unscored_item_is_left_out():
    values = np.random.default_rng(1).normal(0.1, 0.3, (2, 40))
    gone = np.concatenate([values, np.full((2, 3), np.nan)], axis=1)
    assert look(gone, [0.3]) == look(values, [0.3])


def test_at_the_end_of_a_plan_with_one_look_the_interval_is_the_t_interval():
    values = np.random.default_rng(1).normal(0.1, 0.3, (1, 2000))
    low, high = stats.t.interval(0.95, 1999, values.mean(), stats.sem(values[0]))
    found = look(values, [1.0])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.0006)


def wrong(n_runs, n, looks, trials, seed, run_luck=0.0, *, runs_grow=False):
    """Share of plans that name a winner although both sides are equally good. Items right or wrong."""
    rng, named = np.random.default_rng(seed), 0
    shares = np.arange(1, looks + 1) / looks
    for _ in range(trials):
        luck = rng.normal(0, run_luck, (2, n_runs, 1))
        hard = rng.normal(0, 1, n)
        ours, theirs = (rng.random((2, n_runs, n)) < 1 / (1 + np.exp(-(1 + hard + luck)))).astype(float)
        for k, share in enumerate(shares):
            part = (ours - theirs)[: max(2, round(n_runs * share))] if runs_grow else (ours - theirs)[:, : round(n * share)]
            found = look(part, list(shares[: k + 1]), adding="runs" if runs_grow else "items")
            if found.decided:
                named += found.verdict in ("ours", "theirs")
                break
    return named / trials


@pytest.mark.parametrize(("n_runs", "run_luck"), [(1, 0.0), (3, 0.3)])
def test_error_under_the_null(n_runs, run_luck):
    assert wrong(n_runs, 200, 5, 300, 0, run_luck) <= 0.075


@pytest.mark.slow
@pytest.mark.parametrize(("n_runs", "run_luck"), [(1, 0.0), (3, 0.0), (3, 0.5), (5, 0.2), (10, 0.3)])
@pytest.mark.parametrize("looks", [3, 10, 20])
@pytest.mark.parametrize("n", [60, 300])
def test_error_under_the_null_is_at_most_six_per_cent(n_runs, run_luck, looks, n):
    assert wrong(n_runs, n, looks, 2000, n_runs + looks, run_luck) <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize("run_luck", [0.0, 0.5])
def test_error_when_runs_are_added_instead_of_items(run_luck):
    assert wrong(10, 100, 5, 2000, 1, run_luck, runs_grow=True) <= 0.06


def test_a_clear_case_stops_early():
    rng, used = np.random.default_rng(0), []
    shares = list(np.arange(1, 11) / 10)
    for _ in range(50):
        values = (rng.random((1, 500)) < 0.8).astype(float) - (rng.random((1, 500)) < 0.6)
        used.append(next(s for k, s in enumerate(shares) if look(values[:, : round(500 * s)], shares[: k + 1]).decided))
    assert np.mean(used) < 0.5
