"""95 % intervals for every figure. Generators are passed in: the same generator state gives the same interval.

Which interval a figure gets:

- one run, items worth 0 or 1, the metric their mean: Wilson's score interval (Wilson 1927, doi:10.1080/01621459.1927.10502953;
  recommended by Brown, Cai and DasGupta 2001, doi:10.1214/ss/1009213286, for it neither leaves [0, 1] nor collapses at its ends);
- one run, anything else: percentile bootstrap over items (Efron and Tibshirani 1993, ch. 13), 2,000 resamples, the percentiles moved
  by the mean difference between resampled and observed value, which is simulation noise for a mean, and for ECE and the like the
  bias that resampling adds;
- several runs (seeds): the figure is the mean over the runs. Items are resampled together for all runs, since the runs share them,
  and to each resample the error of a mean over so few runs is added, drawn from Student's t with n_runs - 1 degrees of freedom times
  the standard error between the runs. Departure from resampling the runs themselves: three runs resampled with replacement give a
  variance too small by a third and can never leave the range seen, so their interval covers far less than 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Z = 1.959963984540054
"""97.5 % point of the normal distribution."""
N_RESAMPLES = 2000
LEVEL = (2.5, 97.5)
_CHUNK = 4_000_000
"""Most positions drawn at once: 32 MB."""

Interval: TypeAlias = "tuple[float, float]"
Statistic: TypeAlias = "Callable[[NDArray[np.int64]], NDArray[np.float64]]"
"""(r, m) item positions -> (r,) values of the metric, nan where nothing in the row was scored."""


def wilson(n_right: float, n: int) -> Interval:
    """Wilson's 95 % score interval for a share. n_right: sum of the items' values, 0 ≤ n_right ≤ n; n ≥ 1."""
    assert n >= 1
    share = n_right / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return 0.0 if n_right <= 0 else centre - half, 1.0 if n_right >= n else centre + half  # the ends exactly, not but for rounding


def resamples(n: int, rng: np.random.Generator, count: int = N_RESAMPLES) -> Iterator[NDArray[np.int64]]:
    """`count` rows of n positions drawn with replacement, in chunks (r, n) that fit in little memory."""
    rows = max(1, _CHUNK // n)
    for start in range(0, count, rows):
        yield rng.integers(0, n, (min(rows, count - start), n))


def statistic(metric: Any, values: NDArray[np.float64], predictions: Sequence[Any], examples: Sequence[Any]) -> Statistic:
    """The metric as a function of item positions: its own `aggregate`, else the mean of the values that are not nan.

    values: (n,) what the metric said of each item. For a metric with an `aggregate`, the positions must be those of scored items.
    """
    import numpy as np

    if hasattr(metric, "aggregate"):
        return lambda samples: metric.aggregate(predictions, examples, samples)
    scored = ~np.isnan(values)
    filled = np.where(scored, values, 0.0)

    def mean(samples: NDArray[np.int64]) -> NDArray[np.float64]:
        counts = scored[samples].sum(axis=1)
        sums: NDArray[np.float64] = filled[samples].sum(axis=1)
        means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(len(samples), np.nan), where=counts > 0)
        return means

    return mean


def one_run(function: Statistic, positions: NDArray[np.int64], rng: np.random.Generator) -> Interval:
    """Percentile bootstrap over the items at `positions`, (n,) with n ≥ 1."""
    import numpy as np

    value = float(function(positions[None])[0])
    drawn = np.concatenate([function(positions[rows]) for rows in resamples(len(positions), rng)])
    return _percentiles(drawn, value, drawn)


def several_runs(functions: Sequence[Statistic], positions: NDArray[np.int64], rng: np.random.Generator) -> Interval:
    """For the mean over runs that share their items. functions: one per run, at least 2; positions: (n,), n ≥ 1.

    The distribution used is the sum of the resampled mean and a scaled Student's t, known as Behrens and Fisher's.
    """
    import numpy as np

    n_runs = len(functions)
    observed = np.array([float(f(positions[None])[0]) for f in functions])
    drawn = np.concatenate([np.mean([f(positions[rows]) for f in functions], axis=0) for rows in resamples(len(positions), rng)])
    between = rng.standard_t(n_runs - 1, len(drawn)) * (observed.std(ddof=1) / math.sqrt(n_runs))
    return _percentiles(drawn + between, float(observed.mean()), drawn)


def _percentiles(spread: NDArray[np.float64], value: float, drawn: NDArray[np.float64]) -> Interval:
    """The 95 % percentiles of `spread`, moved by what resampling alone (`drawn`) shifts the value."""
    import numpy as np

    low, high = np.nanpercentile(spread, LEVEL)
    shift = float(np.nanmean(drawn)) - value
    # Rounding could leave the value itself a hair outside an interval of no width.
    return min(float(low) - shift, value), max(float(high) - shift, value)
