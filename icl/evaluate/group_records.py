"""Figures by group for results.json: how well a method does for each value of a column, the largest gap, and its bias to a label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import CostLimitError
from ..seeds import numpy_rng_for
from ..values import Example, Prediction
from .cells import Cell
from .crossed import merged

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Inputs that say nothing (Zhao et al. 2021, https://arxiv.org/abs/2102.09690, sec. 5)."""
Runs = Sequence[Sequence[Prediction]]


def group_records(
    seed: int,
    cell: Cell,
    metrics: Mapping[str, Any],
    runs: Runs,
    test: Sequence[Example],
    grouped: Mapping[str, Mapping[str, str]],
    replicates: Sequence[int | None] = (),
) -> list[dict[str, Any]]:
    """A record per column and metric, over the seeds of a method at a label budget. cell: any of its cells. grouped: column -> uid -> value. replicates: see
    `crossed.merged`.

    figures: per value, in order of first occurrence, the metric on its items with a 95 % interval. gap: the largest difference between two
    of them, with an interval that takes all pairs into account; null with fewer than two that are large enough. left_out: those too small.
    """
    import numpy as np

    from .by_group import by_group
    from .paired import side

    records = []
    over_seeds = Cell(cell.model, cell.task, cell.method, cell.budget, None)
    for column, values in grouped.items():
        groups = [values[example.uid] for example in test]
        for name, metric in metrics.items():
            judged = merged(side(metric, runs, test), replicates) if replicates else side(metric, runs, test)
            if np.isnan(judged.values).all():
                continue
            found = by_group(judged, groups, numpy_rng_for(seed, "groups", over_seeds.key, column, name))
            gap = None
            if found.gap is not None:
                names = ("highest", "lowest", "value", "low", "high")
                gap = {key: getattr(found.gap, key) for key in names}
            figures = [
                {key: getattr(each, key) for key in ("group", "value", "low", "high", "n_items", "n_unscored")} for each in found.figures
            ]
            whole = {**over_seeds.as_dict(), "metric": name, "column": column, "figures": figures, "gap": gap}
            del whole["seed"]
            records.append({**whole, "left_out": list(found.left_out)})
    return records


def content_free(inputs: Sequence[str]) -> list[Example]:
    """Queries that say nothing. inputs: the fields of a query."""
    return [Example(f"content-free-{n}", dict.fromkeys(inputs, text), None) for n, text in enumerate(CONTENT_FREE)]


def bias_record(predictor: Any, queries: Sequence[Example], labels: Sequence[str]) -> dict[str, Any] | None:
    """What a method answers to inputs without content: the mean share of each label, and how far they are from equal shares (0: not at all).

    queries: of `content_free`. None for a method without probabilities, or one that cannot answer such inputs. Raises CostLimitError:
    what may not be paid now is asked when the run goes on.
    """
    import numpy as np

    from .by_group import label_bias

    try:
        shares = [answer.probabilities for answer in predictor.predict(queries)]
    except CostLimitError:
        raise
    except Exception:  # what it cannot answer says nothing of its bias
        return None
    known = [share for share in shares if share]
    if not known or len(labels) < 2:
        return None
    scores = np.array([[math.log(max(share.get(label, 0.0), 1e-12)) for label in labels] for share in known])
    found = label_bias(scores)
    return {"shares": dict(zip(labels, found.shares, strict=True)), "bias": found.bias}
