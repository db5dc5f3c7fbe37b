"""Two methods on the same items: the difference with its interval, tests, and what would settle it. Generators are passed in.

The interval. An item's difference is ours minus theirs in the same run (the same seed, so the same labelled examples). Items are
resampled together for all runs, and to each resample the error of a mean over so few runs is added, Student's t with n_runs - 1 degrees
of freedom times the standard error between the runs: the sum is the Behrens-Fisher distribution (Fisher 1935,
doi:10.1111/j.1469-1809.1935.tb02120.x), the correction for few runs that `intervals` uses too. Departure from resampling the runs: three
runs resampled with replacement give a variance too small by a third and never leave the range seen. What items and runs have together
(an item right in one run and wrong in the next) is part of the standard error between the runs already, so it is taken out of what
resampling the items shows (see `interaction`).

Where the metric is a mean over items, two made-up items are drawn along, one for each side, as strong as the strongest item seen: Bonett
and Price 2012, doi:10.3102/1076998611411915, eq. 5, carried over to the bootstrap. Without them five items that all speak for one side
would pass for proof, though the exact test says p = 0.06; with hundreds of items that differ they change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..values import Example, Prediction
from .intervals import LEVEL, Statistic, resamples, statistic
from .power import Part, detectable, more_items, more_runs
from .scoring import item_values

N_RESAMPLES = 5000
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Side:
    """One method on one task: what a metric said of each item in each run."""

    values: Floats
    """(n_runs, n_items), nan where the item could not be scored."""
    functions: tuple[Statistic, ...] = ()
    """One per run if the metric is not the mean of `values` (see `intervals.statistic`)."""
    bounds: tuple[float, float] | None = (0.0, 1.0)
    """The range of the metric, if it has one."""

    def __post_init__(self) -> None:
        assert self.values.ndim == 2, f"values of shape {self.values.shape}: (n_runs, n_items) expected"
        assert len(self.functions) in (0, len(self.values)), "one function per run"


def side(metric: Any, runs: Sequence[Sequence[Prediction]], examples: Sequence[Example]) -> Side:
    """From a metric and the predictions of every run, in the order of the examples."""
    values = np.stack([item_values(metric, run, examples) for run in runs])
    functions = tuple(statistic(metric, v, run, examples) for v, run in zip(values, runs, strict=True))
    return Side(values, functions if hasattr(metric, "aggregate") else (), getattr(metric, "bounds", None))


@dataclass(frozen=True, slots=True)
class Paired:
    """Ours minus theirs: mean over runs, and over tasks with equal weight."""

    value: float | None
    """None if on some task a run has no item that both sides scored; then there is no interval either."""
    low: float | None
    high: float | None
    p: float | None
    """Two-sided, of the interval's own distribution: below 0.05 where the interval leaves out 0."""
    mcnemar: float | None
    """McNemar's exact test, where there is one run on each side and every item is right or wrong; else None."""
    n_items: int
    """Items used, over all tasks."""
    n_runs: int
    """Differences between runs there are, on the task that has the fewest; where runs are not paired, runs of the smaller side."""
    n_unscored: int
    """Items (counted once per run) that one side or both could not score; they are left out of the value."""
    floor: float | None
    """The least the difference could have been, had the unscored items gone against us. None if the metric has no bounds."""
    ceiling: float | None
    """The most it could have been. With an unscored item and a metric that is not a mean, all that its bounds allow."""
    detectable: float | None
    """The smallest true difference that this many items and runs would show with a probability of 80 %."""
    more_items: int | None
    """Items to add (over all tasks) until a true difference as large as the one seen would show with 80 %; None: no number does."""
    more_runs: int | None
    """Runs to add until then, on each side; None: no number does, or one run alone says nothing of how runs differ."""

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def level(self, margin: float) -> bool:
        """Whether the interval lies within the margin: however it turns out, the difference does not matter."""
        return self.low is not None and self.high is not None and -margin <= self.low and self.high <= margin


def paired(tasks: Sequence[tuple[Side, Side]], rng: np.random.Generator, n_resamples: int = N_RESAMPLES) -> Paired:
    """Compare two methods on one task or, pooled, on several with equal weight.

    tasks: (ours, theirs) per task, at least one; both sides over the same items in the same order. Runs are paired by place where both
    sides have as many; a single run stands for all (a method that needs no labels). Otherwise the runs' means are compared (Welch).
    """
    assert tasks, "at least one task"
    found = [_one_task(ours, theirs, rng, n_resamples) for ours, theirs in tasks]
    floors, ceilings = zip(*(_bounds(ours, theirs) for ours, theirs in tasks), strict=True)
    sizes = [(len(ours.values), len(theirs.values)) for ours, theirs in tasks]
    n_runs = min(max(size) if _by_place(*size) else min(size) for size in sizes)
    floor, ceiling = (None if None in side else float(np.mean(side)) for side in (floors, ceilings))
    unscored = sum(_unscored(*task) for task in tasks)
    drawn = [one for one in found if one is not None]
    if len(drawn) < len(found):
        return Paired(None, None, None, None, None, 0, n_runs, unscored, floor, ceiling, None, None, None)
    value = float(np.mean([one.value for one in drawn]))
    spread = np.mean([one.spread for one in drawn], axis=0)
    low, high = (float(v) for v in np.nanpercentile(spread, LEVEL))
    beyond = min(int((spread <= 0).sum()), int((spread >= 0).sum()))
    parts = [one.part for one in drawn]
    exact = mcnemar(tasks[0][0].values[0], tasks[0][1].values[0]) if _one_run_right_or_wrong(tasks) else None
    return Paired(
        value,
        min(low, value),
        max(high, value),
        min(1.0, 2 * (beyond + 1) / (len(spread) + 1)),
        exact,
        sum(part.n_items for part in parts),
        n_runs,
        unscored,
        floor,
        ceiling,
        detectable(parts),
        more_items(parts, value),
        more_runs(parts, value),
    )


def mcnemar(ours: Floats, theirs: Floats) -> float:
    """Exact two-sided p that two methods are right equally often. ours, theirs: (n,) 1 right, 0 wrong, nan not scored.

    McNemar 1947, doi:10.1007/BF02295996, in its exact (binomial) form: only items on which the two differ speak.
    """
    from scipy.special import bdtr

    one, other = int((ours > theirs).sum()), int((theirs > ours).sum())
    return float(min(1.0, 2 * bdtr(min(one, other), one + other, 0.5))) if one + other else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for being many, in the given order: reject those below the level, and the chance of any false one stays below it.

    Holm 1979, https://www.jstor.org/stable/4615733.
    """
    order = sorted(range(len(p)), key=lambda n: p[n])
    adjusted, reached = [0.0] * len(p), 0.0
    for rank, n in enumerate(order):
        reached = max(reached, min(1.0, (len(p) - rank) * p[n]))
        adjusted[n] = reached
    return adjusted


@dataclass(frozen=True, eq=False)
class _Drawn:
    value: float
    spread: Floats = field(repr=False)
    part: Part


def _one_task(ours: Side, theirs: Side, rng: np.random.Generator, n_resamples: int) -> _Drawn | None:
    """None where some run has no item that both sides scored."""
    assert ours.values.shape[1] == theirs.values.shape[1], "both sides must have the same items"
    by_place = _by_place(len(ours.values), len(theirs.values))
    if ours.functions or theirs.functions:
        drawn = _of_functions(ours, theirs, by_place, rng, n_resamples)
    else:
        drawn = _of_means(ours.values, theirs.values, by_place, rng, n_resamples)
    if drawn is None:
        return None
    per_run, runs, n_items = drawn
    signs = (1, -1)[: len(runs)]
    resampled = _added(signs, [run.mean(axis=1) for run in per_run])
    value = float(_added(signs, [run.mean(keepdims=True) for run in runs])[0])
    # Welch 1947, doi:10.1093/biomet/34.1-2.28, for runs that are not paired; one term, with n_runs - 1, where they are.
    squares = np.array([run.var(ddof=1) / len(run) if len(run) > 1 else 0.0 for run in runs])
    freedom = np.array([max(1, len(run) - 1) for run in runs])
    between = float(squares.sum())
    df = float(between**2 / (squares**2 / freedom).sum()) if between > 1e-24 else float(freedom.max())
    shared, of_items = float(sum(interaction(run) for run in per_run)), float(np.nanvar(resampled))
    own = max(0.0, of_items - shared)
    if shared and of_items:
        centre = float(np.nanmean(resampled))
        resampled = centre + (resampled - centre) * math.sqrt(own / of_items)
    # Rounded, since a difference of nothing must be exactly 0 to count as none.
    spread = np.round(resampled + rng.standard_t(df, len(resampled)) * math.sqrt(between), 12)
    n_runs = min((len(run) for run in runs if len(run) > 1), default=1)
    return _Drawn(value, spread, Part(n_items, n_runs, own, max(0.0, between - shared), min(between, shared), df))


def interaction(per_run: Floats) -> float:
    """The variance of the mean over runs that is owed to items behaving differently from run to run.

    per_run: (r, n_runs) each run's value in r resamples of the items. With a variance a of the items and e of item and run together, a
    run's value varies by (a + e) / n and the mean by (a + e / n_runs) / n, whatever the metric: two equations for e / (n n_runs).
    """
    n_runs = int(per_run.shape[1])
    if n_runs == 1:
        return 0.0
    alone, together = np.nanvar(per_run, axis=0).mean(), np.nanvar(per_run.mean(axis=1))
    return float(max(0.0, alone - together)) / (n_runs - 1)


def _added(signs: Sequence[int], sides: Sequence[Floats]) -> Floats:
    result: Floats = sum((sign * one for sign, one in zip(signs, sides, strict=True)), np.zeros(()))
    return result


def _of_means(
    ours: Floats, theirs: Floats, by_place: bool, rng: np.random.Generator, n_resamples: int
) -> tuple[tuple[Floats, ...], tuple[Floats, ...], int] | None:
    """Each run's value resampled (n_resamples, n_runs) and as it is (n_runs,), one array if paired, else one per side; number of items."""
    if by_place:
        rows, weights = ours - theirs, np.full(max(len(ours), len(theirs)), 1 / max(len(ours), len(theirs)))
    else:
        rows = np.concatenate([ours, theirs])
        rows = np.where(np.isnan(rows).any(axis=0), np.nan, rows)
        weights = np.repeat([1 / len(ours), -1 / len(theirs)], [len(ours), len(theirs)])
    rows = rows[:, ~np.isnan(rows).all(axis=0)]
    n = rows.shape[1]
    if not n or np.isnan(rows).all(axis=1).any():
        return None
    strongest = float(np.abs(weights @ np.nan_to_num(rows)).max())
    if not strongest and right_or_wrong(ours) and right_or_wrong(theirs):
        strongest = 1 / len(weights)  # no item differs; the smallest difference there can be still might have
    # The made-up items differ by ±strongest in the weighted sum of the rows.
    made_up = np.sign(weights)[:, None] * strongest * np.array([1.0, -1.0]) / (1 if by_place else 2)
    together = np.concatenate([rows, made_up], axis=1)
    scored = ~np.isnan(together)
    filled = np.where(scored, together, 0.0)

    def split(runs: Floats) -> tuple[Floats, ...]:
        return (runs,) if by_place else (runs[..., : len(ours)], runs[..., len(ours) :])

    drawn = []
    for sample in resamples(n + 2, rng, n_resamples):
        counts = _counts(sample, n + 2)
        totals = counts @ scored.T.astype(np.float64)
        drawn.append(np.divide(counts @ filled.T, totals, out=np.full(totals.shape, np.nan), where=totals > 0))
    return split(np.concatenate(drawn)), split(np.nanmean(rows, axis=1)), n


def _counts(sample: NDArray[np.int64], n: int) -> Floats:
    """(r, m) positions -> (r, n) how often each occurs."""
    rows = len(sample)
    flat = (sample + np.arange(rows)[:, None] * n).ravel()
    return np.bincount(flat, minlength=rows * n).reshape(rows, n).astype(np.float64)


def _of_functions(
    ours: Side, theirs: Side, by_place: bool, rng: np.random.Generator, n_resamples: int
) -> tuple[tuple[Floats, ...], tuple[Floats, ...], int] | None:
    """As `_of_means`, over the items that both sides scored in every run."""
    positions = np.flatnonzero(~np.isnan(np.concatenate([ours.values, theirs.values])).any(axis=0))
    if not len(positions):
        return None
    sides = [one.functions or tuple(statistic(None, run, (), ()) for run in one.values) for one in (ours, theirs)]

    def runs_of(sample: NDArray[np.int64]) -> tuple[Floats, ...]:
        a, b = (np.stack([function(sample) for function in functions]) for functions in sides)
        return (a - b,) if by_place else (a, b)

    observed = tuple(run[:, 0] for run in runs_of(positions[None]))
    if not all(np.isfinite(run).all() for run in observed):
        return None
    parts = [runs_of(positions[rows]) for rows in resamples(len(positions), rng, n_resamples)]
    drawn = tuple(np.concatenate([part[n] for part in parts], axis=1).T for n in range(len(observed)))
    # Resampling adds a bias to metrics such as ECE; what it adds is taken off.
    return tuple(run - (np.nanmean(run, axis=0) - value) for run, value in zip(drawn, observed, strict=True)), observed, len(positions)


def _by_place(n_ours: int, n_theirs: int) -> bool:
    return n_ours == n_theirs or 1 in (n_ours, n_theirs)


def _unscored(ours: Side, theirs: Side) -> int:
    """Items times runs that one side or both could not score."""
    lost = [np.isnan(one.values) for one in (ours, theirs)]
    if _by_place(len(lost[0]), len(lost[1])):
        return int((lost[0] | lost[1]).sum())
    return int(lost[0].sum() + lost[1].sum())


def _bounds(ours: Side, theirs: Side) -> tuple[float, float] | tuple[None, None]:
    """The least and the most that the difference of the means over all items could have been."""
    if ours.bounds is None or theirs.bounds is None:
        return None, None
    if ours.functions or theirs.functions:
        if _unscored(ours, theirs):
            return ours.bounds[0] - theirs.bounds[1], ours.bounds[1] - theirs.bounds[0]
        positions = np.arange(ours.values.shape[1])[None]
        a, b = (float(np.mean([f(positions)[0] for f in one.functions])) for one in (ours, theirs))
        return a - b, a - b
    low, high = (
        [float(np.where(np.isnan(one.values), one.bounds[end], one.values).mean()) for one in (ours, theirs) if one.bounds]
        for end in (0, 1)
    )
    return low[0] - high[1], high[0] - low[1]


def _one_run_right_or_wrong(tasks: Sequence[tuple[Side, Side]]) -> bool:
    if len(tasks) > 1 or any(one.functions or len(one.values) > 1 for one in tasks[0]):
        return False
    return all(right_or_wrong(one.values) for one in tasks[0])


def right_or_wrong(values: Floats) -> bool:
    """Whether every scored item is worth 0 or 1."""
    return bool(np.isin(values[~np.isnan(values)], (0.0, 1.0)).all())
