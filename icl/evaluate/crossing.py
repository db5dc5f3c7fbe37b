"""Two sides of learning curves, and the number of labels from which one stays above the other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, Problem
from .curves import Curves
from .intervals import LEVEL

Floats = NDArray[np.float64]
_PIECES = 8
"""Where a side has several methods, the best may change between two measured numbers of labels; it is looked up this often between."""


@dataclass(frozen=True, eq=False)
class Sides:
    """Where the points of each side lie, and the numbers of labels at which the sides are compared."""

    curves: Curves
    prompt: tuple[int, ...]
    trained: tuple[int, ...]
    grid: Floats
    """(g,) log of the number of labels, rising."""
    first: int
    last: int

    @classmethod
    def of(cls, curves: Curves, prompt: Collection[str], trained: Collection[str]) -> Sides:
        ours, theirs = (tuple(n for n, point in enumerate(curves.points) if point.method in side) for side in (prompt, trained))
        labels = [point.n_labels for point in curves.points]
        if not all(labels[n] for n in theirs):
            raise InputError(Problem("a trained method has a row without labels", "n_labels is at least 1.", field="rows"))
        first, last = max(min(labels[n] for n in ours), min(labels[n] for n in theirs)), max(labels[n] for n in theirs)
        if first > last:
            raise InputError(Problem(f"the prompts start at {first} labels, training ends at {last}", "Measure both at the same numbers."))
        grid = np.log(sorted({first, *(n for n in labels if first <= n <= last)}))
        if len(prompt) + len(trained) > 2:
            steps = np.arange(_PIECES) / _PIECES
            grid = np.append((grid[:-1, None] + np.diff(grid)[:, None] * steps).ravel(), grid[-1])
        return cls(curves, ours, theirs, grid, first, last)

    def cross(self, means: Floats) -> Floats:
        """means: (r, n_points), higher is better. Returns (r,) the crossover, inf where training is not ahead at the end."""
        return self._last_root(self._best(means, self.trained, running=False) - self._best(means, self.prompt, running=True))

    def bounds(self, means: Floats, covariance: Floats, student: Floats) -> tuple[float, float]:
        """The 95 % interval: means (n_points,), their covariance, and (b, n_points) draws of their errors.

        At one number of labels training is ahead by the least, over all candidates k for the prompt's curve, of T - P_k. Upper end: beyond it
        T - P_k is surely above 0 for every k; each alone at 97.5 %, since all must hold (Berger 1982, doi:10.1080/00401706.1982.10487790).
        Lower end: up to it some T - P_k is surely not above 0; any of many could look so by chance, hence 97.5 % for all of them together
        that training does not clearly beat: Chernozhukov, Lee and Rosen 2013, doi:10.3982/ECTA8718, sec. 2 (intersection bounds).
        Departures: they select by a fixed rule, here it is the simultaneous 97.5 % bound, and the draws are Student's t.
        """
        level = LEVEL[1] / 100
        surely, margins, extremes = [], [], []
        for x in self.grid:
            trained, prompts = self._trained_at(x), self._candidates_at(x, means)
            weights = trained[:, None, :] - prompts[None]  # (j, k, n_points)
            gaps = weights @ means
            errors = np.sqrt(np.maximum(((weights @ covariance) * weights).sum(axis=2), 1e-24))
            drawn = (student @ weights.reshape(-1, len(means)).T).reshape(len(student), *gaps.shape) / errors
            # Ahead of a candidate is whoever of several trained methods is, so these are simultaneous.
            surely.append(float((gaps - errors * np.quantile(drawn.max(axis=1), level, axis=0)).max(axis=0).min()))
            best = int(gaps.min(axis=1).argmax())
            margins.append((gaps, errors))
            extremes.append((-drawn[:, best], gaps[best] / errors[best]))
        critical, worst = np.zeros(len(self.grid)), np.full(len(student), -np.inf)
        for n in reversed(range(len(self.grid))):
            draws, ratios = extremes[n]
            # What training clearly beats cannot be what it is behind; the closest always may.
            near = (ratios <= np.quantile(draws.max(axis=1), level)) | (ratios == ratios.min())
            worst = np.maximum(worst, draws[:, near].max(axis=1))
            critical[n] = np.quantile(worst, level)
        # Between two numbers of labels the stricter value, that of the left one, holds.
        strict = np.append(critical[0], critical[:-1])
        possibly = [float((gaps + c * errors).max(axis=0).min()) for c, (gaps, errors) in zip(strict, margins, strict=True)]
        low, high = self._last_root(np.array([possibly, surely]))
        return float(low), float(high)

    def _last_root(self, gap: Floats) -> Floats:
        """gap: (r, g) how far training is ahead. Returns (r,) the number of labels from which on it is."""
        behind = gap <= 0
        # The last number of labels at which training is not ahead; -1 if there is none.
        at = np.where(behind.any(axis=1), gap.shape[1] - 1 - np.argmax(behind[:, ::-1], axis=1), -1)
        crossing = np.where(at < 0, float(self.first), np.inf)
        rows = np.flatnonzero((at >= 0) & (at < gap.shape[1] - 1))
        left = at[rows]
        low, high = gap[rows, left], gap[rows, left + 1]
        # Where nothing was trained with so few labels (-inf), training is ahead from the first number at which something was.
        share = np.divide(low, low - high, out=np.ones(len(rows)), where=np.isfinite(low))
        crossing[rows] = np.exp(self.grid[left] + share * (self.grid[left + 1] - self.grid[left]))
        return crossing

    def _best(self, means: Floats, side: Sequence[int], *, running: bool) -> Floats:
        """(r, g) the best method of a side at every number of labels."""
        best = np.full((len(means), len(self.grid)), -np.inf)
        for at, labels in self._methods(side):
            values = np.maximum.accumulate(means[:, at], axis=1) if running else means[:, at]
            if labels[0] == 0:
                best = np.maximum(best, values[:, :1])
                labels, values = labels[1:], values[:, 1:]
            if len(labels):
                curve = values @ _linear(np.log(labels), self.grid).T
                best = np.maximum(best, np.where(self.grid >= np.log(labels[0]), curve, -np.inf))
        return best

    def _methods(self, side: Sequence[int]) -> list[tuple[list[int], NDArray[np.int64]]]:
        """Per method of a side its points and their numbers of labels, rising."""
        methods: dict[str, list[int]] = {}
        for n in side:
            methods.setdefault(self.curves.points[n].method, []).append(n)
        return [(at, np.array([self.curves.points[n].n_labels for n in at])) for at in methods.values()]

    def _trained_at(self, x: float) -> Floats:
        """(j, n_points) weights of the means that give every trained method's value at log labels x, where it has one."""
        rows = []
        for at, labels in self._methods(self.trained):
            if np.log(labels[0]) <= x:
                row = np.zeros(len(self.curves.points))
                row[at] = _linear(np.log(labels), np.array([x]))[0]
                rows.append(row)
        return np.array(rows)

    def _candidates_at(self, x: float, means: Floats) -> Floats:
        """(k, n_points) weights of the means of which the prompt's curve at x is the largest.

        Those of all points with no more labels, and where x lies between two, the line from the best of them to the next.
        """
        rows = []
        unit = np.eye(len(self.curves.points))
        for at, labels in self._methods(self.prompt):
            owned = [n for n, count in zip(at, labels, strict=True) if count == 0 or np.log(count) <= x]
            rows += [unit[n] for n in owned]
            if owned and owned[-1] != at[-1] and labels[len(owned) - 1] > 0:
                start, end = np.log(labels[len(owned) - 1 : len(owned) + 1])
                share = (x - start) / (end - start)
                if share > 0:
                    rows.append((1 - share) * unit[max(owned, key=lambda n: means[n])] + share * unit[at[len(owned)]])
        return np.array(rows)


def _linear(measured: Floats, grid: Floats) -> Floats:
    """(g, k) weights of the measured values, linear between them, flat outside."""
    return np.stack([np.interp(grid, measured, one) for one in np.eye(len(measured))], axis=1)
