"""Runs that stop when the answer is settled: looking again and again, with the chance of a wrong answer kept at 5 %.

Group-sequential testing: at every look a little of the 5 % is spent (Lan and DeMets 1983, doi:10.1093/biomet/70.3.659), by the power
family 5 % · share² (Kim and DeMets 1987, doi:10.1093/biomet/74.1.149), share being how much of the plan is done. The bounds follow
by integrating over paths that were not stopped yet (Armitage, McPherson and Rowe 1969, doi:10.2307/2343787).

Where items are added, what runs differ by is the same at every look, so it needs no more than its usual quantile of Student's t; but no
less variance than items and runs have together, and no smaller quantile than the items', in case runs do not differ at all; and both at
three quarters of the 5 %, since what runs differ by mixes with the items' path (without that, up to 7 of 100 cases were wrong). Where runs
are added, the variance of few runs is estimated afresh at every look, and integrated bounds were wrong in 9 of 100 cases: each look tests
at what it spends, which holds whatever one look has to do with the next (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.05
_POWER = 2.0
_WITH_RUNS = 0.75
_GRID = 201


@dataclass(frozen=True, slots=True)
class Look:
    """What is known after a part of the plan."""

    verdict: Literal["ours", "theirs", "level", "go on", "not settled"]
    """ours, theirs: that side has the higher values; level: the difference lies within the margin; not settled: the plan is done."""
    value: float
    low: float
    high: float
    """The interval that holds at every look together with 95 %."""

    @property
    def decided(self) -> bool:
        """Whether to stop: the answer is there, or the plan is done."""
        return self.verdict != "go on"


def look(
    differences: Floats,
    shares: Sequence[float],
    margin: float = 0.0,
    *,
    adding: Literal["items", "runs"] = "items",
    level: float = LEVEL,
) -> Look:
    """Stop here, or go on?

    differences: (n_runs, n_items) ours minus theirs so far, nan where a side could not be scored (left out; an item or a run without any
    is no item). shares: how much of the plan was done at every look, this one last, rising within (0, 1]; 1 ends the plan. The plan, and
    when to look, must not depend on the differences. adding: what is more of from look to look; both at once are runs. margin: a difference within it does not matter; 0: only who is better counts.

    Not before two items are there. The error of the mean is that of the items (two made-up items drawn along, see `paired`) and that of
    the runs, each with its own quantile of Student's t, added in squares (Cochran 1964, doi:10.2307/2282700): close to the
    Behrens-Fisher interval.
    """
    values = differences[:, ~np.isnan(differences).all(axis=0)]
    values = values[~np.isnan(values).all(axis=1)] if values.size else values
    if adding == "items" and len(values) > 1:
        level *= _WITH_RUNS
    alpha = (nominal_levels if adding == "items" else spent_levels)(shares, level)[-1]
    ended = shares[-1] >= 1
    if values.size == 0 or values.shape[1] < 2 or alpha <= 0:
        value = float(np.nanmean(values)) if values.size else math.nan
        return Look("not settled" if ended else "go on", value, -math.inf, math.inf)
    value = float(np.nanmean(values, axis=1).mean())
    half = _half_width(values, alpha, level if adding == "items" else alpha)
    low, high = value - half, value + half
    if low > 0 or high < 0:
        # With a margin, better by less than it is level; better by more or less than it is not known yet.
        if -margin <= low and high <= margin:
            return Look("level", value, low, high)
        return Look("ours" if low > 0 else "theirs", value, low, high)
    if margin > 0 and -margin <= low and high <= margin:
        return Look("level", value, low, high)
    return Look("not settled" if ended else "go on", value, low, high)


def nominal_levels(shares: Sequence[float], level: float = LEVEL) -> list[float]:
    """The two-sided level at which each look tests, so that all looks together are wrong with `level` at most.

    shares: rising within (0, 1].
    """
    _check(shares)
    return list(_spend(tuple(float(share) for share in shares), level))


def spent_levels(shares: Sequence[float], level: float = LEVEL) -> list[float]:
    """What every look spends of `level`: as `nominal_levels`, valid for any test at every look, and stricter."""
    _check(shares)
    return [level * (min(1.0, b) ** _POWER - a**_POWER) for a, b in zip([0.0, *shares], shares, strict=False)]


def _check(shares: Sequence[float]) -> None:
    assert all(a < b for a, b in zip([0.0, *shares], shares, strict=False)), f"shares must rise above 0: {shares}"
    assert shares[-1] <= 1 + 1e-9, f"a share of the plan is at most 1: {shares}"


@lru_cache(maxsize=256)
def _spend(shares: tuple[float, ...], level: float) -> tuple[float, ...]:
    from scipy.optimize import brentq
    from scipy.special import ndtr

    levels: list[float] = []
    # The density of the score (variance = share) on the points where no look has stopped yet; at first all weight is at 0.
    points, weights, before, spent = np.zeros(1), np.ones(1), 0.0, 0.0
    for share in shares:
        step, share = math.sqrt(share - before), min(1.0, share)
        spend, spent = level * share**_POWER - spent, level * share**_POWER

        def outside(bound: float, points: Floats = points, weights: Floats = weights, step: float = step) -> float:
            return float(weights @ (ndtr((-bound - points) / step) + ndtr((points - bound) / step)))

        far = 9 * math.sqrt(share)
        bound = brentq(lambda b, out=outside, spend=spend: out(b) - spend, 0.0, far, xtol=1e-10) if outside(far) < spend else far
        levels.append(2 * float(ndtr(-bound / math.sqrt(share))) if bound < far else 0.0)
        grid = np.linspace(-bound, bound, _GRID)
        density = np.exp(-0.5 * ((grid[:, None] - points) / step) ** 2) @ weights / (step * math.sqrt(2 * math.pi))
        simpson = np.ones(_GRID)
        simpson[1:-1:2], simpson[2:-1:2] = 4, 2
        points, weights, before = grid, density * simpson * (grid[1] - grid[0]) / 3, share
    return tuple(levels)


def _half_width(values: Floats, alpha: float, of_runs: float) -> float:
    """Of the interval of the mean over runs of (n_runs, n_items) differences, at least 2 items: alpha of the items, of_runs of the runs."""
    from scipy.special import stdtrit

    n_runs, n = values.shape
    items = np.nanmean(values, axis=0)
    strongest = float(np.abs(items).max()) or (1 / n_runs)
    variance = float(((items - items.mean()) ** 2).sum() + 2 * strongest**2) / (n + 1) / (n + 2)
    quantile = float(stdtrit(n + 1, 1 - alpha / 2))
    if n_runs == 1:
        return quantile * math.sqrt(variance)
    runs = np.nanmean(values, axis=1)
    residual = values - items - (runs - runs.mean())[:, None]
    shared = float(np.nansum(residual**2)) / max(1, (n_runs - 1) * (n - 1)) / (n_runs * n)
    # Few runs of few items may have the same mean by chance, which does not mean that runs never differ.
    between = max(float(runs.var(ddof=1)) / n_runs, shared)
    of_runs_quantile = max(quantile, float(stdtrit(n_runs - 1, 1 - of_runs / 2)))
    return math.sqrt(max(0.0, variance - shared) * quantile**2 + between * of_runs_quantile**2)
