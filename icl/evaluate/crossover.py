"""From how many labels on training wins over the best prompt."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, Problem
from ..seeds import numpy_rng_for
from .crossing import Sides
from .curves import read_curves
from .intervals import LEVEL

N_RESAMPLES = 1000
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Crossover:
    """The number of labels from which training wins, with its 95 % interval."""

    estimate: float | None
    """None: training is not ahead at the largest number of labels it was measured with."""
    interval: tuple[float, float]
    """math.inf: beyond the largest number of labels that training was measured with."""
    share_beyond: float
    """Share of the resamples in which training is not ahead there."""
    share_before: float
    """Share of the resamples in which training is ahead from the smallest number of labels on; the crossover may lie below it."""
    first: int
    """Smallest number of labels at which the sides can be compared; an estimate or end of the interval of this value means "or fewer"."""
    last: int
    """Largest number of labels that training was measured with."""
    n_runs: tuple[int, int]
    """Fewest runs behind a point, of the prompt and of the trained side."""
    n_items: int | None
    """Items resampled; None: runs alone."""
    n_unscored: int
    """Items, counted once per run, that were not scored and are left out of the resampling."""

    def __str__(self) -> str:
        low, high = (f"beyond {self.last}" if math.isinf(n) else f"{n:.0f}" for n in self.interval)
        found = f"not within {self.last} labels" if self.estimate is None else f"{self.estimate:.0f} labels"
        return f"{found} (95 % interval {low} to {high}; beyond in {self.share_beyond:.0%} of the resamples)"


def crossover(
    rows: Iterable[Any],
    prompt: Collection[str],
    trained: Collection[str],
    items: Iterable[Any] | None = None,
    resample: Literal["runs+items", "runs"] = "runs+items",
    *,
    rng: np.random.Generator | None = None,
    higher_is_better: bool = True,
) -> Crossover:
    """The smallest number of labels from which the trained curve stays above the best prompt's.

    rows: (method, n_labels, run, value) or mappings with these keys; items: (method, n_labels, run, item, value) for both sides, value nan
    or None where the item could not be scored. prompt, trained: names of methods; rows of others are passed over.

    The rule. A prompt's curve is the running maximum of its means over runs, flat after its last number of labels: whoever owns more
    labels may show fewer. A method that needs no labels (n_labels None or 0) counts from the start. The trained curve is what was
    measured. Between measured numbers both are piecewise linear in log N; of several methods on a side the best counts at every N, and one
    that was trained with fewer labels than another stays flat from there on. Equal is not above.

    The interval is of 95 %, from 1,000 resamples; those without a crossing count as beyond (math.inf).

    - "runs+items", the default: corrected for few runs by multivariate Student's t in place of resampled runs (`Curves.errors`), items
      resampled along. Its ends are not percentiles of the resamples' crossovers, since noise draws the running maximum and the last of
      several crossings upwards, in resamples once more: they are the numbers of labels from which on training is surely ahead, and up to
      which it is surely not (`Sides.bounds`). Without items it is made of the runs alone, with a warning: other items would widen it.
      How often it covers a known crossover: docs/statistics.md.
    - "runs": runs drawn with replacement, plain percentiles, items never. It reproduces published figures and is too narrow for few runs.

    Raises InputError as `read_curves` does, if a method is on both sides, a trained method has no labels, or nothing can be resampled.
    """
    _check(prompt, trained, resample)
    default = resample == "runs+items"
    curves = read_curves(rows, [*prompt, *trained], items if default else None)
    sides = Sides.of(curves, frozenset(prompt), frozenset(trained))
    generator = numpy_rng_for(0, "crossover") if rng is None else rng
    if default and items is None:
        warnings.warn("no items were given: the interval is that of the runs alone, on these items; others would widen it", stacklevel=2)
    if curves.items is None and all(len(point.runs) == 1 for point in curves.points):
        raise InputError(Problem("one run of every method and no items: nothing says how sure the figure is", "Give items, or more runs."))
    sign = 1.0 if higher_is_better else -1.0
    means = sign * curves.means
    estimate = float(sides.cross(means[None])[0])
    if default:
        normal, student = (sign * errors for errors in curves.errors(generator, N_RESAMPLES))
        drawn = sides.cross(means + student)
        low, high = sides.bounds(means, normal.T @ normal / len(normal), student)
    else:
        drawn = sides.cross(sign * curves.bootstrap(generator, N_RESAMPLES))
        low, high = _percentiles(drawn)
    fewest = [min(len(curves.points[n].runs) for n in side) for side in (sides.prompt, sides.trained)]
    return Crossover(
        None if math.isinf(estimate) else estimate,
        (min(low, estimate), max(high, estimate)),
        float(np.isinf(drawn).mean()),
        float((drawn <= sides.first).mean()),
        sides.first,
        sides.last,
        (fewest[0], fewest[1]),
        None if curves.items is None else curves.items.shape[1],
        curves.n_unscored,
    )


def _check(prompt: Collection[str], trained: Collection[str], resample: str) -> None:
    problems = []
    for field, names in (("prompt", prompt), ("trained", trained)):
        if isinstance(names, str) or not names:
            problems.append(Problem("names of methods are expected", 'Give a set, such as {"knn-8"}.', field=field))
    if not problems and (both := set(prompt) & set(trained)):
        problems.append(Problem(f"on both sides: {', '.join(sorted(both))}", "A method is either a prompt or trained."))
    if resample not in ("runs+items", "runs"):
        problems.append(Problem(f"'{resample}' is not known", 'Give "runs+items" or "runs".', field="resample"))
    if problems:
        raise InputError(problems)


def _percentiles(drawn: Floats) -> tuple[float, float]:
    """Order statistics, never between two, since there is nothing between a number and infinity."""
    ordered = np.sort(drawn)
    low, high = (float(ordered[max(0, math.ceil(level / 100 * len(drawn)) - 1)]) for level in LEVEL)
    return low, high
