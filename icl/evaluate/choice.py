"""Which method to ship, without the winner's curse: the one that looked best on the items it was chosen on looks better than it is."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, Problem
from ..seeds import seed_for
from .intervals import Statistic, one_run, several_runs, statistic, wilson
from .paired import Paired, Side, paired, right_or_wrong

Floats = NDArray[np.float64]
_FOLDS = (0, 1)


@dataclass(frozen=True, slots=True)
class Rival:
    """One method beside the leader, on the items that the choice is made on."""

    name: str
    mean: float
    """With unscored items counted as wrong, for the choice only."""
    against: Paired
    """Method minus leader. For the leader itself a difference of nothing."""
    level: bool
    """Whether the interval includes 0 or lies within the margin: as good as the leader, for all that is known."""
    cost: float | None
    """Per query; None: not known, and never called the cheapest."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to ship, and how good it is on items that it was not chosen on."""

    winner: str
    """What dev chose, or both halves and all test items; where they differ, what all test items choose: to ship, or to settle first."""
    leader: str
    """The method with the best mean there. If it is not the winner, a cheaper one is as good for all that is known."""
    settled: bool
    """False: the two halves of the test items chose differently, or so few items alike what all of them do not choose."""
    chosen_on: Literal["dev", "halves"]
    halves: tuple[str, str] | None
    """What each half chose; None with dev items."""
    value: float | None
    """Of the method chosen, on items it was not chosen on: the mean of both halves, or the test items. None: nothing could be scored."""
    low: float | None
    high: float | None
    optimistic: float
    """The plain maximum: the best mean over the methods on the very items that it is the best on."""
    rivals: tuple[Rival, ...]
    """All methods, best first."""
    between: Paired | None
    """The two halves' choices on all items, the first minus the second, if they differ; if they do not, but all items choose differently,
    that choice minus the halves'."""
    n_unscored: int
    """Items, counted once per run, that some method could not score, on the items the choice is made on."""

    @property
    def to_settle(self) -> str:
        """What would settle the answer, in plain words; empty if it is settled."""
        if self.settled or self.between is None or self.halves is None:
            return ""
        one, other = self.halves if self.halves[0] != self.halves[1] else (self.winner, self.halves[0])
        if self.between.value is None:
            return f"Items that {one} and {other} can both score."
        ways = []
        if self.between.more_items is not None:
            # So many items in all tell them apart; each half must be as large, and so must items to choose on.
            enough = self.between.n_items + self.between.more_items
            ways += [f"about {2 * enough - self.between.n_items:,} more test items", f"{enough:,} items of their own to choose on"]
        if self.between.more_runs:
            ways.append(f"{self.between.more_runs} more runs")
        if self.between.low is not None and self.between.high is not None:
            ways.append(f"a margin of {max(-self.between.low, self.between.high):.2g}, if so much does not matter")
        return f"{one} or {other}: {', or '.join(ways)}."


def choose(
    test: Mapping[str, Side],
    uids: Sequence[str],
    costs: Mapping[str, float | None],
    rng: np.random.Generator,
    *,
    dev: Mapping[str, Side] | None = None,
    margin: float = 0.0,
    same_cost: float = 1.0,
    higher_is_better: bool = True,
) -> Choice:
    """Choose by the rule, and say how good the choice is.

    test, dev: per method what the metric said of the items, at the largest label budget (a method that needs no labels: as it is).
    uids: of the test items. costs: per query, in one unit. margin: a difference that does not matter. same_cost: costs up to so many times
    the least are equal to it, since seconds that were measured once are not exact.

    The rule: the leader has the best mean, unscored items counted as wrong (as the worst value there can be) for this choice only. Of the
    methods whose paired 95 % interval against the leader includes 0 or lies within the margin, the one cheapest per query is chosen; of
    equals the better. It is chosen on `dev` and reported on `test`, or, without dev, chosen on one half of the test items (by hash of the
    uid) and reported on the other, and the other way round, and the two figures averaged (two-fold cross-validation of the whole rule:
    Varma and Simon 2006, doi:10.1186/1471-2105-7-91). If the halves choose differently the answer is not settled; nor is it if both choose
    a cheap method that half of the items cannot tell from the leader, and all of them can.

    Raises InputError if the methods, items or costs do not fit together, or a half is empty.
    """
    _check(test, uids, costs, dev)
    sign = 1.0 if higher_is_better else -1.0
    if dev is not None:
        rule = _Rule(dev, costs, margin, sign, same_cost)
        everything = np.arange(_n_items(dev))
        winner, rivals = rule.pick(everything, rng)
        reported = figure(test[winner], np.arange(len(uids)), rng)
        return _choice(winner, rivals, "dev", None, reported, None, rule.n_unscored)
    rule = _Rule(test, costs, margin, sign, same_cost)
    fold = np.array([seed_for(0, "half", uid) % 2 for uid in uids])
    parts = [np.flatnonzero(fold == n) for n in _FOLDS]
    if not all(map(len, parts)):
        raise InputError(Problem(f"{len(uids)} test items cannot be halved", "Give more test items, or dev items to choose on."))
    chosen = [rule.pick(part, rng)[0] for part in parts]
    figures = [figure(test[name], other, rng) for name, other in zip(chosen, reversed(parts), strict=True)]
    winner, rivals = rule.pick(np.arange(len(uids)), rng)
    between, interval = None, _averaged(figures)
    if chosen[0] == chosen[1]:
        interval = figure(test[chosen[0]], np.arange(len(uids)), rng)
        if winner != chosen[0]:
            between = paired([(test[winner], test[chosen[0]])], rng)
    else:
        # The interval of either half's figure is of half the items; ends averaged, it holds for both and errs on the wide side.
        between = paired([(test[chosen[0]], test[chosen[1]])], rng)
    value = _averaged(figures)[0]
    reported = (value, *interval[1:]) if value is not None else interval
    return _choice(winner, rivals, "halves", (chosen[0], chosen[1]), reported, between, rule.n_unscored)


Figure = tuple[float | None, float | None, float | None]


def _choice(
    winner: str,
    rivals: tuple[Rival, ...],
    chosen_on: Literal["dev", "halves"],
    halves: tuple[str, str] | None,
    reported: Figure,
    between: Paired | None,
    n_unscored: int,
) -> Choice:
    value, low, high = reported
    if value is not None and low is not None and high is not None:
        low, high = min(low, value), max(high, value)
    settled = halves is None or between is None
    return Choice(winner, rivals[0].name, settled, chosen_on, halves, value, low, high, rivals[0].mean, rivals, between, n_unscored)


class _Rule:
    """The rule of the choice over one table of values."""

    def __init__(self, sides: Mapping[str, Side], costs: Mapping[str, float | None], margin: float, sign: float, same_cost: float) -> None:
        self.sides, self.costs, self.margin, self.sign, self.same_cost = sides, costs, margin, sign, same_cost
        self.n_unscored = sum(int(np.isnan(side.values).sum()) for side in sides.values())
        self.worst = _worst(sides.values(), sign)

    def pick(self, positions: NDArray[np.int64], rng: np.random.Generator) -> tuple[str, tuple[Rival, ...]]:
        """The method chosen on these items, and all of them, best first."""
        means = {name: self._mean(side, positions) for name, side in self.sides.items()}
        ranked = sorted(means, key=lambda name: -self.sign * means[name])
        leader = self._filled(self.sides[ranked[0]], positions)
        rivals = []
        for name in ranked:
            against = paired([(self._filled(self.sides[name], positions), leader)], rng)
            level = name == ranked[0] or against.value is None or not against.differs or against.level(self.margin)
            rivals.append(Rival(name, means[name], against, level, self.costs.get(name)))
        equals = [rival for rival in rivals if rival.level]
        least = min(math.inf if rival.cost is None else rival.cost for rival in equals)
        cheap = [rival for rival in equals if least == math.inf or (rival.cost is not None and rival.cost <= least * self.same_cost)]
        return cheap[0].name, tuple(rivals)  # the best comes first

    def _mean(self, side: Side, positions: NDArray[np.int64]) -> float:
        """Over runs; an unscored item is worth the worst value, in a metric that is no mean by the share of items it is."""
        values = []
        for run, function in zip(side.values[:, positions], _functions(side), strict=True):
            scored = ~np.isnan(run)
            figure = float(function(positions[scored][None])[0]) if scored.any() else self.worst
            values.append(self.worst + (figure - self.worst) * scored.mean() if math.isfinite(figure) else self.worst)
        return float(np.mean(values))

    def _filled(self, side: Side, positions: NDArray[np.int64]) -> Side:
        values = side.values[:, positions]
        if side.functions:
            moved = tuple(_moved(function, positions) for function in side.functions)
            return Side(values, moved, side.bounds)
        return Side(np.where(np.isnan(values), self.worst, values), (), side.bounds)


def _moved(function: Statistic, positions: NDArray[np.int64]) -> Statistic:
    return lambda samples: function(positions[samples])


def _functions(side: Side) -> tuple[Statistic, ...]:
    return side.functions or tuple(statistic(None, run, (), ()) for run in side.values)


def _worst(sides: Collection[Side], sign: float) -> float:
    """The worst value an item can have: the metric's bound, or without one the worst that was seen."""
    if bounds := [bound for side in sides for bound in side.bounds or ()]:
        return min(sign * bound for bound in bounds) * sign
    seen = [sign * float(v) for side in sides for v in side.values[~np.isnan(side.values)]]
    return sign * min(seen, default=0.0)


def figure(side: Side, positions: NDArray[np.int64], rng: np.random.Generator) -> Figure:
    """The mean over runs on these items, unscored ones left out, with the interval that any figure gets."""
    functions, values = _functions(side), side.values[:, positions]
    scored = ~np.isnan(values)
    if not scored.any(axis=1).all():
        return None, None, None
    value = float(np.mean([f(positions[row][None])[0] for f, row in zip(functions, scored, strict=True)]))
    used = positions[scored.all(axis=0) if side.functions else scored.any(axis=0)]
    if not len(used) or not math.isfinite(value):
        return (value if math.isfinite(value) else None), None, None
    if len(functions) > 1:
        low, high = several_runs(functions, used, rng)
    elif not side.functions and right_or_wrong(values):
        low, high = wilson(float(np.nansum(values)), len(used))
    else:
        low, high = one_run(functions[0], used, rng)
    if side.bounds == (0.0, 1.0) and high - low < 1e-12:
        low, high = wilson(value * len(used), len(used))  # every item the same in every run: resampling shows no spread at all
    elif side.bounds is not None:
        low, high = max(low, side.bounds[0]), min(high, side.bounds[1])
    return value, min(low, value), max(high, value)


def _averaged(figures: Sequence[Figure]) -> Figure:
    columns = [[one for one in column if one is not None] for column in zip(*figures, strict=True)]
    value, low, high = (float(np.mean(column)) if len(column) == len(figures) else None for column in columns)
    return value, low, high


def _n_items(sides: Mapping[str, Side]) -> int:
    return int(next(iter(sides.values())).values.shape[1])


def _check(test: Mapping[str, Side], uids: Sequence[str], costs: Mapping[str, float | None], dev: Mapping[str, Side] | None) -> None:
    problems = []
    if not test:
        problems.append(Problem("no method to choose from", "Give at least one.", field="test"))
    for name, side in test.items():
        if side.values.shape[1] != len(uids):
            problems.append(Problem(f"{name} has {side.values.shape[1]} items, there are {len(uids)} uids", field="test"))
    if unknown := sorted(set(costs) - set(test)):
        problems.append(Problem(f"costs of methods without values: {', '.join(unknown)}", field="costs"))
    if dev is not None and set(dev) != set(test):
        problems.append(Problem("dev and test are not of the same methods", "Judge every method on both.", field="dev"))
    if dev is not None and len({side.values.shape[1] for side in dev.values()}) > 1:
        problems.append(Problem("the methods have not the same dev items", field="dev"))
    if problems:
        raise InputError(problems)
