"""What the stages of a method's retriever did, the tokens it planned, and why items have no answer, added up over a label budget's items."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..values import Prediction, Step

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def stages(predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    """Per stage, in their order: for how many queries it ran, rows it was given and left, rows it brought forward and for how many
    queries, and how many rows it left out for which reason. Sums over the queries. Empty for a method without a retriever."""
    columns: list[list[Step]] = []
    for prediction in predictions:
        for at, step in enumerate(prediction.steps):
            if at == len(columns):
                columns.append([])
            columns[at].append(step)
    return [_stage(column) for column in columns]


def _stage(steps: Sequence[Step]) -> dict[str, Any]:
    dropped: Counter[str] = Counter()
    for step in steps:
        dropped.update(step.dropped)
    return {
        "stage": steps[0].stage,
        "n_queries": len(steps),
        "n_in": sum(step.n_in for step in steps),
        "n_out": sum(step.n_out for step in steps),
        "n_changed": sum(step.n_changed for step in steps),
        "queries_changed": sum(step.n_changed > 0 for step in steps),
        "dropped": dict(sorted(dropped.items())),
    }


def reasons(predictions: Iterable[Prediction]) -> dict[str, int]:
    """Why there is no answer -> for how many items, the most frequent first; numbers in a reason are left out, so that it is one reason.
    Answers that were withheld are not among them."""
    found = Counter(_NUMBER.sub("…", p.why or "no reason was given") for p in predictions if p.answer is None and not p.abstained)
    return dict(sorted(found.items(), key=lambda each: (-each[1], each[0])))


def group_record(cell: Mapping[str, Any], facts: Sequence[Mapping[str, Any]], runs: Sequence[Sequence[Prediction]]) -> dict[str, Any]:
    """A method at a label budget, over all its seeds. facts: what the store says of its finished cells."""
    tokens = {key: [fact.get(key) for fact in facts] for key in ("tokens_computed", "tokens_naive")}
    return {
        **{key: cell[key] for key in ("model", "task", "method", "budget")},
        "runs": len(runs),
        **{key: None if None in values else sum(values) for key, values in tokens.items()},
        "unanswered": reasons(prediction for run in runs for prediction in run),
        "stages": stages(prediction for run in runs for prediction in run),
    }
