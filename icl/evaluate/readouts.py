"""What other read-outs of the same scores would give: the model was asked once, and the raw scores of every item are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from ..errors import IclError
from ..methods import reread
from ..seeds import numpy_rng_for
from ..values import Prediction
from .cells import Cell
from .prepare import TaskData
from .scoring import judge_runs

Facts: TypeAlias = Mapping[str, Any]
N_RESAMPLES = 2000
"""As for every interval of the results."""


def readouts_of(predictor: Any) -> Facts | None:
    """What the store keeps of a predictor: its own read-out first, then those that its scores allow too, and the model's dtype. None for
    a method without label scores."""
    try:
        allowed = list(getattr(predictor, "readouts", ()))
        return {"allowed": allowed, "dtype": predictor.lm.dtype} if allowed and predictor.lm is not None else None
    except IclError:  # a saved predictor that only writes prompts: its items say so
        return None


def readout_records(
    seed: int, data: TaskData, cell: Cell, runs: Sequence[Sequence[Prediction]], facts: Facts | None
) -> list[dict[str, Any]]:
    """A method at a label budget, over all its seeds: per read-out that its scores allow and metric the figure with its interval, its own
    read-out first, and the difference to that on the same items with its paired interval.

    All are read from the raw scores: nothing is calibrated or withheld, not in the method's own read-out either.
    facts: as `readouts_of` says. Empty where there is nothing to compare.
    """
    if facts is None or len(facts["allowed"]) < 2:
        return []
    of_all = replace(cell, seed=None)
    own: list[list[Prediction]] = []
    records = []
    for readout in facts["allowed"]:
        read = [[reread(prediction, readout, facts["dtype"]) for prediction in run] for run in runs]
        own = own or read
        for name, metric in data.metrics.items():
            rng = numpy_rng_for(seed, "interval", of_all.key, name)  # the same for all, so that equal answers have equal intervals
            figure = judge_runs(metric, read, data.test, rng)
            records.append(
                {
                    **of_all.as_dict(),
                    "readout": readout,
                    "own": readout == facts["allowed"][0],
                    "metric": name,
                    "value": figure.value,
                    "low": figure.low,
                    "high": figure.high,
                    "n_ties": sum(prediction.tie for run in read for prediction in run),
                    **_difference(metric, (read, own), data, numpy_rng_for(seed, "readout", of_all.key, readout, name)),
                }
            )
    return records


def _difference(
    metric: Any, sides: tuple[Sequence[Sequence[Prediction]], Sequence[Sequence[Prediction]]], data: TaskData, rng: Any
) -> dict[str, Any]:
    from .paired import paired, side

    if sides[0] is sides[1]:
        return {"difference": None, "difference_low": None, "difference_high": None}
    ours, own = (side(metric, runs, data.test) for runs in sides)
    found = paired([(ours, own)], rng, N_RESAMPLES)
    return {"difference": found.value, "difference_low": found.low, "difference_high": found.high}
