"""How small a difference a comparison could show, and how many more items or runs would settle one.

The variance of a mean over items and runs is the sum of a share of the items, which falls as 1 / n_items, one of the runs, which falls as
1 / n_runs, and one of the two together, which falls with either: as the interval of `paired` is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

POWER = 0.8
_MOST = 1e6
"""No more than this many times the items, or runs, are called an answer."""


@dataclass(frozen=True, slots=True)
class Part:
    """The uncertainty of one task's figure."""

    n_items: int
    n_runs: int
    items: float
    """Variance of the figure that is owed to the items."""
    runs: float
    """Variance of the figure that is owed to the runs; 0 where there is one."""
    shared: float
    """Variance of the figure that is owed to items behaving differently from run to run."""
    freedom: float
    """Degrees of freedom that the last two were estimated with."""


def detectable(parts: Sequence[Part], items: float = 1.0, runs: float = 1.0) -> float:
    """The smallest true mean over the parts whose 95 % interval leaves out 0 with a probability of 80 %.

    items, runs: times as many of them as there were. Student's t with Satterthwaite's degrees of freedom (1946, doi:10.2307/3002019);
    the usual (t_0.975 + t_0.8) · standard error.
    """
    from scipy.special import stdtrit

    terms = []
    for part in parts:
        freedom = part.freedom * runs + (runs - 1) if part.n_runs > 1 else math.inf
        terms += [(part.items / items, max(1.0, part.n_items * items - 1)), ((part.runs + part.shared / items) / runs, freedom)]
    variance = sum(term for term, _ in terms) / len(parts) ** 2
    if variance <= 0:
        return 0.0
    df = sum(term for term, _ in terms) ** 2 / sum(term**2 / df for term, df in terms)
    return float((stdtrit(df, 0.975) + stdtrit(df, POWER)) * math.sqrt(variance))


def more_items(parts: Sequence[Part], difference: float) -> int | None:
    """Items to add, over all parts and in proportion, until a difference so large is `detectable`; None: no number of items is enough."""
    times = _smallest(lambda times: detectable(parts, items=times) <= abs(difference), step=1e-4)
    return None if times is None else sum(math.ceil(part.n_items * (times - 1) - 1e-9) for part in parts)


def more_runs(parts: Sequence[Part], difference: float) -> int | None:
    """Runs to add on each side until a difference so large is `detectable`; None: no number is enough, or there was but one."""
    n_runs = min(part.n_runs for part in parts)
    if detectable(parts) <= abs(difference):
        return 0
    if n_runs == 1:
        return None
    times = _smallest(lambda times: detectable(parts, runs=times) <= abs(difference), step=1 / n_runs)
    return None if times is None else round(n_runs * (times - 1))


def _smallest(enough: Callable[[float], bool], step: float) -> float | None:
    """The smallest 1 + k·step, k a whole number, that is enough; None if none up to _MOST is."""
    if enough(1.0):
        return 1.0
    low, high = 0, 1
    while not enough(1 + high * step):
        low, high = high, high * 2
        if 1 + high * step > _MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(1 + middle * step) else (middle, high)
    return 1 + high * step
