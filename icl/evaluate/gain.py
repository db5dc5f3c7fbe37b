"""What to label next: what more labels are expected to bring each side."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, Problem
from ..seeds import numpy_rng_for
from .curves import Curves, Floats, read_curves
from .intervals import LEVEL

N_RESAMPLES = 1000
_LAST = 3
"""Points at the end of the curve that the slope is taken from."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What `more` labels on top of `n_labels` are expected to add to the metric of a side's best method."""

    method: str
    n_labels: int
    more: int
    value: float
    low: float
    high: float
    """95 % interval; of the extrapolation as it stands, not of whether the curve goes on as it did."""


def expected_gain(
    rows: Iterable[Any],
    methods: Collection[str],
    more: int,
    items: Iterable[Any] | None = None,
    *,
    rng: np.random.Generator | None = None,
    higher_is_better: bool = True,
) -> Gain:
    """The gain of the method that is best with the most labels, from the last (up to three) points of its learning curve.

    rows, items: as in `icl.crossover`; methods: those of one side. Near its end a learning curve is close to a line in log N, whatever
    law it follows (power laws: Hestness et al. 2017, https://arxiv.org/abs/1712.00409, sec. 4): gain = slope · log(1 + more / n_labels),
    slope by least squares. Curves flatten, so the further beyond the last point, the more this is an upper estimate; `more` up to
    `n_labels`, one doubling, is what it is meant for. It is negative where more labels did harm. The interval is that of the runs (and
    items), Student's t as in `Curves.errors`.

    Raises InputError if the best method was measured with fewer than two numbers of labels, or `more` is not positive.
    """
    if more < 1:
        raise InputError(Problem(f"{more} more labels", "Give at least 1.", field="more"))
    curves = read_curves(rows, methods, items)
    at = _best(curves, 1.0 if higher_is_better else -1.0)
    labels = np.array([curves.points[n].n_labels for n in at])
    if len(at) < 2:
        method = curves.points[at[0]].method
        raise InputError(Problem(f"'{method}' was measured with {labels[0]} labels only", "Run it with at least two label budgets."))
    x = np.log(labels) - np.log(labels).mean()
    weights = x / (x @ x) * np.log1p(more / labels[-1])
    value = float(curves.means[at] @ weights)
    _, student = curves.errors(numpy_rng_for(0, "gain") if rng is None else rng, N_RESAMPLES, smooth=False)
    low, high = (float(v) for v in np.percentile(value + student[:, at] @ weights, LEVEL))
    return Gain(curves.points[at[0]].method, int(labels[-1]), more, value, min(low, value), max(high, value))


def _best(curves: Curves, sign: float) -> list[int]:
    """The last points, with labels, of the method that is best with the most labels it has."""
    methods: dict[str, list[int]] = {}
    for n, point in enumerate(curves.points):
        if point.n_labels:
            methods.setdefault(point.method, []).append(n)
    if not methods:
        raise InputError(Problem("no method of this side learns from labels", "More labels bring it nothing.", field="methods"))
    means: Floats = curves.means
    return max(methods.values(), key=lambda at: sign * means[at[-1]])[-_LAST:]
