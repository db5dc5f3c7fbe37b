"""Seeds that are crossed: each source of chance drawn anew for every value of the others, so that their shares can be told apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

from .scoring import Metric, item_values, judge_runs, widened
from .variance import ITEM, REST, Split, split_variance

if TYPE_CHECKING:
    import numpy as np

    from ..values import Example, Prediction
    from .paired import Side

FACTORS = ("draw", "demonstrations", "order", "train")
"""Which labelled examples are owned; which of them are shown; in which order; and all chance in a training."""
Levels: TypeAlias = Mapping[str, int]
"""Factor -> which of its values, from 0."""


def levels_of(index: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """The values of all factors of the run with that number. sizes: factor -> how many values it takes."""
    found = {}
    for name in reversed(FACTORS):
        index, found[name] = divmod(index, sizes[name])
    return {name: found[name] for name in FACTORS}


def indices(sizes: Mapping[str, int], varied: frozenset[str]) -> Iterator[int]:
    """The numbers of the runs of a method in which these factors of chance play a part; the others keep their first value."""
    ranges = [range(sizes[name]) if name in varied else range(1) for name in FACTORS]
    for values in product(*ranges):
        index = 0
        for name, value in zip(FACTORS, values, strict=True):
            index = index * sizes[name] + value
        yield index


def replicate_of(levels: Levels, sizes: Mapping[str, int]) -> int:
    """Runs that share a draw of the labels are no independent runs: comparisons take all of one draw as one. Without several draws, the
    next factor that has several values stands in."""
    return next((levels[name] for name in FACTORS if sizes[name] > 1), 0)


def merged(side: Side, replicates: Sequence[int | None]) -> Side:
    """A side whose runs of one replicate are averaged. replicates: per run; None: runs stand for themselves."""
    import numpy as np

    from .paired import Side

    places: dict[int, list[int]] = {}
    for at, replicate in enumerate(replicates):
        if replicate is None:
            return side
        places.setdefault(replicate, []).append(at)
    if len(places) == len(replicates):
        return side
    values = np.stack([side.values[at].mean(axis=0) for at in places.values()])
    functions = tuple(_mean_of([side.functions[n] for n in at]) for at in places.values()) if side.functions else ()
    return Side(values, functions, side.bounds)


def _mean_of(functions: Sequence[Any]) -> Any:
    import numpy as np

    return lambda positions: np.mean([function(positions) for function in functions], axis=0)


def judge_crossed(
    metric: Any,
    runs: Sequence[Sequence[Prediction]],
    levels: Sequence[Levels],
    examples: Sequence[Example],
    rng: np.random.Generator,
) -> tuple[Metric, Split | None]:
    """As `scoring.judge_runs`, for crossed runs: the interval is Student's t times the standard error that the parts of the variance make
    together, with Satterthwaite's degrees of freedom (1946, doi:10.2307/3002019). Also the split itself.

    A metric that is no mean over items has no split by items: its runs are averaged per replicate, and judged as that many runs.
    """
    plain = judge_runs(metric, runs, examples, rng)
    factors = [name for name in FACTORS if len({each[name] for each in levels}) > 1]
    if hasattr(metric, "aggregate") or plain.value is None or not factors:
        return plain, None
    import numpy as np

    values = np.stack([item_values(metric, run, examples) for run in runs])
    values = values[:, ~np.isnan(values).any(axis=0)]
    if values.shape[1] < 2:
        return plain, None
    order = sorted(range(len(runs)), key=lambda at: [levels[at][name] for name in factors])
    shape = [len({each[name] for each in levels}) for name in factors]
    split = split_variance(values[order].reshape(*shape, -1), [*factors, ITEM])
    low, high = widened(metric, plain.value, _interval(plain.value, split), values.shape[1])
    return replace(plain, low=min(low, plain.value), high=max(high, plain.value)), split


def _interval(value: float, split: Split) -> tuple[float, float]:
    from scipy.special import stdtrit

    parts = {names: part for names, part in split.of_mean.items() if part > 0}
    if not parts:
        return value, value
    freedom = {
        names: math.prod(n - 1 for n in split.sizes.values()) if names == (REST,) else _freedom(names, split.sizes) for names in parts
    }
    whole = sum(parts.values())
    df = whole**2 / sum(part**2 / max(1, freedom[names]) for names, part in parts.items())
    half = float(stdtrit(df, 0.975)) * math.sqrt(whole)
    return value - half, value + half


def _freedom(names: tuple[str, ...], sizes: Mapping[str, int]) -> int:
    return math.prod(sizes[name] - 1 for name in names)


def variance_record(cell: Mapping[str, Any], metric: str, split: Split) -> dict[str, Any]:
    """For results.json: where the uncertainty of a figure comes from, and how much one more value of each factor would narrow its interval."""
    of_mean = split.of_mean
    return {
        **cell,
        "metric": metric,
        "sizes": dict(split.sizes),
        "components": [
            {"of": list(names), "variance": value, "of_mean": of_mean[names], "clipped": names in split.clipped}
            for names, value in split.components.items()
        ],
        "error": split.error,
        "one_more": {name: split.narrower(name) for name in split.sizes if name != ITEM and split.sizes[name] > 1},
    }
