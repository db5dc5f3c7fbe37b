"""From predictions to figures: a metric's value on one run or as the mean over runs, with its interval and what was left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem
from ..plugins import Context, build, parse_spec
from ..seeds import numpy_rng_for
from ..values import RAW_QUERY, Example, Prediction
from .intervals import Interval, one_run, several_runs, statistic, wilson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure with its 95 % interval."""

    value: float | None
    """None if no item could be scored."""
    low: float | None
    high: float | None
    n_scored: int
    n_failed: int
    """Items that could not be scored. They are left out of the value, never counted as wrong."""
    n_abstained: int = 0
    """Items that the method would not answer (see `Prediction.abstained`). They are left out too, and are no failures."""

    @property
    def coverage(self) -> float | None:
        """The share of the items that the value is about among those that the method could answer; None if there are none."""
        return coverage(self.n_scored, self.n_abstained)

    def __str__(self) -> str:
        left_out = f", {self.n_abstained} abstained" if self.n_abstained else ""
        if self.value is None:
            return f"none of {self.n_failed + self.n_abstained} items could be scored{left_out}"
        left_out += f", {self.n_failed} not scored" if self.n_failed else ""
        interval = "" if self.low is None else f" [{self.low:.4f}, {self.high:.4f}]"
        return f"{self.value:.4f}{interval} ({self.n_scored} items{left_out})"


def coverage(n_scored: int, n_abstained: int) -> float | None:
    """Scored items among those that a method could answer; None if there are none."""
    return n_scored / (n_scored + n_abstained) if n_scored + n_abstained else None


def score(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    metrics: Sequence[str | Mapping[str, Any]] = ("accuracy",),
    *,
    seed: int = 0,
    plugins: Sequence[str | Path] = (),
) -> dict[str, Metric]:
    """Judge predictions against the examples' targets.

    examples, predictions: in the same order, one prediction each. metrics: names, or mappings such as `{"ece": {"bins": 10}}`.
    seed: of the bootstrap. plugins: folders with metrics of your own. Returns metric name -> value with 95 % interval and counts.
    Raises InputError if lengths differ, a prediction belongs to another example, or an example has no target.
    """
    problems = []
    if len(examples) != len(predictions):
        raise InputError(
            Problem(f"{len(predictions)} predictions for {len(examples)} examples", "Give one prediction per example, in order.")
        )
    for n, (example, prediction) in enumerate(zip(examples, predictions, strict=True)):
        if example.target is None and not example.references:
            problems.append(Problem("the example has no target to judge by", "Judge labelled examples only.", field=f"examples.{n}"))
        if prediction.uid != example.uid and not prediction.uid.startswith(RAW_QUERY):
            fix = f"It is of example {prediction.uid}, not {example.uid}: give both in the same order."
            problems.append(Problem("the prediction is of another example", fix, field=f"predictions.{n}"))
    if problems:
        raise InputError(problems[:20])
    folders = tuple(Path(p) for p in plugins)
    results = {}
    for n, entry in enumerate(metrics):
        spec = parse_spec(entry, "metric", f"metrics.{n}")
        metric = build("metric", spec, Context(seed=seed), folders, f"metrics.{n}")
        results[spec.name] = judge(metric, predictions, examples, numpy_rng_for(seed, "score", spec.name))
    return results


def item_values(metric: Any, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
    """(n,) the metric's values; anything that is not finite counts as not scored."""
    import numpy as np

    values = np.asarray(metric(predictions, examples), dtype=np.float64)
    assert values.shape == (len(examples),), f"a metric returned shape {values.shape} for {len(examples)} items"
    return np.where(np.isfinite(values), values, np.nan)


def judge(metric: Any, predictions: Sequence[Prediction], examples: Sequence[Example], rng: np.random.Generator) -> Metric:
    """One run: the value over the scored items, its interval, and the counts."""
    import numpy as np

    values = item_values(metric, predictions, examples)
    positions = np.flatnonzero(~np.isnan(values))
    n_abstained = n_withheld(values, predictions)
    n_failed = len(values) - len(positions) - n_abstained
    if not len(positions):
        return Metric(None, None, None, 0, n_failed, n_abstained)
    function = statistic(metric, values, predictions, examples)
    value = float(function(positions[None])[0])
    if not math.isfinite(value):
        return Metric(None, None, None, 0, len(values) - n_abstained, n_abstained)
    scored = values[positions]
    is_share = not hasattr(metric, "aggregate") and getattr(metric, "bounds", (0.0, 1.0)) == (0.0, 1.0)  # a length of one word is none
    if is_share and bool(np.isin(scored, (0.0, 1.0)).all()):
        low, high = wilson(float(scored.sum()), len(scored))
    else:
        low, high = widened(metric, value, one_run(function, positions, rng), len(positions))
    return Metric(value, low, high, len(positions), n_failed, n_abstained)


def n_withheld(values: NDArray[np.float64], predictions: Sequence[Prediction]) -> int:
    """Items without a value that the method would not answer. values: (n,) as of `item_values`."""
    return sum(p.abstained and math.isnan(v) for p, v in zip(predictions, values.tolist(), strict=True))


def judge_runs(metric: Any, runs: Sequence[Sequence[Prediction]], examples: Sequence[Example], rng: np.random.Generator) -> Metric:
    """The mean over runs (seeds) on the same items, at least one run. The counts are sums over the runs.

    If a run could score nothing there is no mean. The interval of a metric with an `aggregate` is over the items that every run scored.
    """
    import numpy as np

    if len(runs) == 1:
        return judge(metric, runs[0], examples, rng)
    values = [item_values(metric, run, examples) for run in runs]
    scored = [np.flatnonzero(~np.isnan(v)) for v in values]
    n_scored = sum(map(len, scored))
    n_abstained = sum(n_withheld(v, run) for v, run in zip(values, runs, strict=True))
    n_failed = len(runs) * len(examples) - n_scored - n_abstained
    if not all(map(len, scored)):
        return Metric(None, None, None, n_scored, n_failed, n_abstained)
    functions = [statistic(metric, v, run, examples) for v, run in zip(values, runs, strict=True)]
    value = float(np.mean([f(at[None])[0] for f, at in zip(functions, scored, strict=True)]))
    mask = np.logical_and.reduce if hasattr(metric, "aggregate") else np.logical_or.reduce
    positions = np.flatnonzero(mask([~np.isnan(v) for v in values]))
    if not len(positions) or not math.isfinite(value):
        return Metric(value if math.isfinite(value) else None, None, None, n_scored, n_failed, n_abstained)
    low, high = several_runs(functions, positions, rng)
    low, high = widened(metric, value, (min(low, value), max(high, value)), len(positions))
    return Metric(value, low, high, n_scored, n_failed, n_abstained)


def widened(metric: Any, value: float, interval: Interval, n: int) -> Interval:
    """An interval kept within the metric's bounds; where resampling shows no spread at all (every item the same), Wilson's instead."""
    low, high = interval
    bounds: tuple[float, float] | None = getattr(metric, "bounds", None)
    if bounds is None:
        return low, high
    if high - low < 1e-12 and bounds == (0.0, 1.0):
        return wilson(value * n, n)
    return max(low, bounds[0]), min(high, bounds[1])
