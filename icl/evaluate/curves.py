"""Learning curves: the mean of a metric over runs at every number of labels, and how else it could have come out.

- `errors`: for runs r with curves y_r, the error of their mean is drawn as sum_r z_r (y_r - mean) / sqrt(R (R - 1)), z standard normal,
  divided by sqrt(chi2 / (R - 1)). That is multivariate Student's t with the runs' own covariance over label numbers, the correction for
  few runs of `intervals.several_runs` for a whole curve: at any one number of labels it gives the t interval. Items, if given, are
  resampled together for all methods, runs and label numbers, and what that moves the means by is added.
- `bootstrap`: runs drawn with replacement (Efron and Tibshirani 1993, ch. 6), which published figures mostly rest on. With three runs it
  gives a variance too small by a third and never leaves the range seen.

Points that have the same runs are drawn together, over label numbers and methods: a run is a seed, and its luck with the labels is shared.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, Problem
from .intervals import resamples
from .paired import interaction

Floats = NDArray[np.float64]
_MOST_PROBLEMS = 20
_NEAR = (-1, 0, 1)
"""The neighbours of a point over which variances are averaged."""


@dataclass(frozen=True, slots=True)
class Point:
    """One method at one number of labels."""

    method: str
    n_labels: int
    runs: tuple[Hashable, ...]
    values: tuple[float, ...]
    """One per run."""

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)


@dataclass(frozen=True, eq=False)
class Curves:
    """The points of some methods, each method's in order of labels, and their items' values."""

    points: tuple[Point, ...]
    items: Floats | None
    """(number of point-and-run pairs, n_items) in the order of the points and their runs; nan where not scored or not asked."""
    n_unscored: int

    @property
    def means(self) -> Floats:
        """(n_points,)"""
        return np.array([point.mean for point in self.points])

    def bootstrap(self, rng: np.random.Generator, count: int) -> Floats:
        """(count, n_points) means of runs drawn with replacement."""
        drawn = np.tile(self.means, (count, 1))
        for n_runs, at in self._groups():
            flat = rng.integers(0, n_runs, (count, n_runs)) + np.arange(count)[:, None] * n_runs
            weights = np.bincount(flat.ravel(), minlength=count * n_runs).reshape(count, n_runs) / n_runs
            drawn[:, at] = weights @ np.array([self.points[n].values for n in at]).T
        return drawn

    def errors(self, rng: np.random.Generator, count: int, *, smooth: bool = True) -> tuple[Floats, Floats]:
        """(count, n_points) what the means could be off by: normal, with their estimated covariance, and Student's t for few runs.

        smooth: variances are averaged over neighbouring points, which is needed where the best of many points counts. Without, any one
        sum of points that have the same runs has exactly the t interval of that sum.
        """
        normal, student = (np.zeros((count, len(self.points))) for _ in range(2))
        deviations = self._deviations(rng) if smooth else [np.array(point.values) - point.mean for point in self.points]
        for n_runs, at in self._groups():
            drawn = rng.standard_normal((count, n_runs)) @ np.array([deviations[n] for n in at]).T / math.sqrt(n_runs * (n_runs - 1))
            normal[:, at] = drawn
            df = self._freedom(n_runs, at) if smooth else n_runs - 1
            student[:, at] = drawn / np.sqrt(rng.chisquare(df, (count, 1)) / df)
        if self.items is not None:
            shifts = self._item_shifts(self.items, rng, count)
            normal, student = normal + shifts, student + shifts
        return normal, student

    def _groups(self) -> list[tuple[int, list[int]]]:
        """(number of runs, points) for every set of runs of more than one."""
        groups: dict[tuple[Hashable, ...], list[int]] = {}
        for n, point in enumerate(self.points):
            groups.setdefault(point.runs, []).append(n)
        return [(len(runs), at) for runs, at in groups.items() if len(runs) > 1]

    def _freedom(self, n_runs: int, at: list[int]) -> float:
        """Degrees of freedom of a variance averaged over neighbouring points: more than n_runs - 1 only if their runs vary independently.

        Satterthwaite 1946, doi:10.2307/3002019: variances of points whose runs correlate by r share r² of their noise. r² is estimated
        over all neighbours, unbiased for normal runs ((r² (R - 1) - 1) / (R - 2)), and one standard error is added, since with three runs
        the estimate is poor. Runs that are lucky at every number of labels alike leave n_runs - 1.
        """
        methods: dict[str, list[int]] = {}
        for n in at:
            methods.setdefault(self.points[n].method, []).append(n)
        pairs = [pair for one in methods.values() for pair in pairwise(one)]
        if n_runs == 2 or not pairs:
            return n_runs - 1
        found = []
        for pair in pairs:
            a, b = (np.array(self.points[n].values) - self.points[n].mean for n in pair)
            square = float(a @ a) * float(b @ b)
            found.append(float(a @ b) ** 2 / square if square > 0 else 1.0)
        shared = (np.array(found) * (n_runs - 1) - 1) / (n_runs - 2)
        likely = min(1.0, max(0.0, float(shared.mean() + shared.std() / math.sqrt(len(shared)))))
        width = min(len(_NEAR), *map(len, methods.values()), len(at))
        return (n_runs - 1) * width / (1 + (width - 1) * likely)

    def _deviations(self, rng: np.random.Generator) -> list[Floats]:
        """Per point its runs' distances to their mean, with a variance of at least the mean over the point and its two neighbours.

        With three runs one variance in twenty is too small by a factor of twenty, and of many points the one that looks certain by luck
        would decide.
        """
        own = [np.array(point.values) - point.mean for point in self.points]
        variance = np.array([float(one @ one) / max(1, len(one) - 1) for one in own])
        result = []
        for n, (point, one) in enumerate(zip(self.points, own, strict=True)):
            near = [
                i for i in (n + step for step in _NEAR) if 0 <= i < len(own) and self.points[i].method == point.method and len(own[i]) > 1
            ]
            if len(one) > 1 and (usual := float(variance[near].mean())) > variance[n]:
                if variance[n] < 1e-4 * usual:
                    one = rng.standard_normal(len(one))
                    one = one - one.mean()
                one = one * math.sqrt(usual * (len(one) - 1) / float(one @ one))
            result.append(one)
        return result

    def _item_shifts(self, items: Floats, rng: np.random.Generator, count: int) -> Floats:
        """(count, n_points) how resampling the items moves the means over runs."""
        scored = ~np.isnan(items)
        filled, scored_too = np.where(scored, items, 0.0).T, scored.T.astype(np.float64)
        n = items.shape[1]
        owners = np.repeat(np.arange(len(self.points)), [len(point.runs) for point in self.points])
        average = np.zeros((len(owners), len(self.points)))
        average[np.arange(len(owners)), owners] = [1 / len(self.points[owner].runs) for owner in owners]
        observed = np.nanmean(items, axis=1)
        parts = []
        for sample in resamples(n, rng, count):
            flat = (sample + np.arange(len(sample))[:, None] * n).ravel()
            times = np.bincount(flat, minlength=len(sample) * n).reshape(len(sample), n).astype(np.float64)
            totals = times @ scored_too
            # A resample that has none of a run's scored items says nothing of it.
            means = np.divide(times @ filled, totals, out=np.tile(observed, (len(sample), 1)), where=totals > 0)
            parts.append(means - observed)
        shifts = np.concatenate(parts)
        # What items and runs have together is in the spread of the runs already; what the points share is not touched.
        alone = np.array([interaction(shifts[:, owners == n]) for n in range(len(self.points))])
        together = shifts @ average
        whole = together.T @ together / count
        (values, vectors), (left, basis) = np.linalg.eigh(whole), np.linalg.eigh(whole - np.diag(alone))
        rescaled = vectors / np.sqrt(np.where(values > 1e-12 * values.max(initial=0.0), values, np.inf)) @ vectors.T
        result: Floats = together @ rescaled @ (basis * np.sqrt(np.maximum(left, 0.0))) @ basis.T
        return result


def read_curves(rows: Iterable[Any], methods: Iterable[str], items: Iterable[Any] | None = None) -> Curves:
    """rows: (method, n_labels, run, value); items: (method, n_labels, run, item, value), or mappings with these keys; None or nan in an
    item's value: not scored. n_labels None or 0: the method needs no labels. Rows of other methods are passed over.

    Raises InputError for rows that cannot be read, values that are not finite, the same run twice with different values (a row that is
    simply repeated is dropped, with a warning: it would narrow the interval), a method without rows, and runs whose items are missing.
    """
    wanted = tuple(dict.fromkeys(methods))
    problems: list[Problem] = []
    found: dict[tuple[str, int, Hashable], float] = {}
    n_repeated = 0
    for n, row in enumerate(rows):
        try:
            method, n_labels, run, value = _fields(row, ("method", "n_labels", "run", "value"))
            if str(method) not in wanted:
                continue
            key = (str(method), _whole(n_labels), run)
            number = float(value)
        except (TypeError, ValueError, KeyError) as error:
            problems.append(Problem(f"cannot be read: {error}", "Give (method, n_labels, run, value).", field=f"rows.{n}"))
            continue
        if not math.isfinite(number):
            problems.append(Problem(f"the value is {number}", "Leave out runs that have no figure.", field=f"rows.{n}"))
        elif key in found and found[key] != number:
            problems.append(Problem(f"run {run!r} of {method} at {key[1]} labels has two values", "Give each run once.", field=f"rows.{n}"))
        n_repeated += key in found
        found[key] = number
    problems += [Problem(f"no row of '{m}'", "Name methods that occur in the rows.") for m in wanted if not any(k[0] == m for k in found)]
    if problems:
        raise InputError(problems[:_MOST_PROBLEMS])
    if n_repeated:
        warnings.warn(f"{n_repeated} repeated rows were dropped: the same run counts once", stacklevel=3)
    groups: dict[tuple[str, int], dict[Hashable, float]] = {}
    for (method, n_labels, run), value in found.items():
        groups.setdefault((method, n_labels), {})[run] = value
    points = []
    for method, n_labels in sorted(groups, key=lambda key: (wanted.index(key[0]), key[1])):
        runs = sorted(groups[method, n_labels], key=lambda run: (str(type(run)), run))
        points.append(Point(method, n_labels, tuple(runs), tuple(groups[method, n_labels][run] for run in runs)))
    if items is None:
        return Curves(tuple(points), None, 0)
    table = _item_table(points, items, wanted)
    return Curves(tuple(points), table.values, table.n_unscored)


@dataclass(frozen=True, eq=False)
class _Items:
    values: Floats
    n_unscored: int


def _item_table(points: list[Point], items: Iterable[Any], wanted: tuple[str, ...]) -> _Items:
    rows = {(p.method, p.n_labels, run): n for n, (p, run) in enumerate((p, run) for p in points for run in p.runs)}
    columns: dict[Hashable, int] = {}
    at: list[tuple[int, int]] = []
    values: list[float] = []
    problems: list[Problem] = []
    for n, entry in enumerate(items):
        try:
            method, n_labels, run, item, value = _fields(entry, ("method", "n_labels", "run", "item", "value"))
            row = rows.get((str(method), _whole(n_labels), run)) if str(method) in wanted else None
            number = math.nan if value is None or row is None else float(value)
        except (TypeError, ValueError, KeyError) as error:
            fix = "Give (method, n_labels, run, item, value)."
            problems.append(Problem(f"cannot be read: {error}", fix, field=f"items.{n}"))
            continue
        if row is not None:
            at.append((row, columns.setdefault(item, len(columns))))
            values.append(number)
    table = np.full((len(rows), len(columns)), np.nan)
    if at:
        index = np.array(at).T
        table[index[0], index[1]] = values
        if len(set(at)) < len(at):
            problems.append(Problem("an item occurs twice in the same run", "Give each item once per run.", field="items"))
    for (method, n_labels, run), row in rows.items():
        if np.isnan(table[row]).all():
            fix = "Give the items of every run on both sides, or none (items=None)."
            problems.append(Problem(f"no scored item of {method}, {n_labels} labels, run {run!r}", fix, field="items"))
    if problems:
        raise InputError(problems[:_MOST_PROBLEMS])
    return _Items(table, int(np.isnan(values).sum()))


def _fields(row: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    if isinstance(row, Mapping):
        return tuple(row[name] for name in names)
    values = tuple(row)
    if isinstance(row, str) or len(values) != len(names):
        raise ValueError(f"{len(names)} fields are expected ({', '.join(names)}), not {row!r}")
    return values


def _whole(n_labels: Any) -> int:
    if n_labels is None:
        return 0
    number = int(n_labels)
    if number != float(n_labels) or number < 0:
        raise ValueError(f"n_labels is {n_labels!r}, a whole number is expected")
    return number
