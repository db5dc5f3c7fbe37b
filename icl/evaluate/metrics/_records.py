"""What the metrics of records share: two records (JSON objects) compared field by field."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from ...readout import read_answer
from ...values import Example, canonical_json
from ._answers import PerAnswer, references_of


def per_record(value: Callable[[dict[str, float]], float], *, fields: Collection[str] = (), tolerance: float = 0.0) -> PerAnswer:
    """A metric of records: the best over an item's references that are records. An answer that is no JSON object is not scored.

    value: (field -> how far answer and reference agree) -> value. fields: those that are looked at; none: all.
    """

    def only(record: dict[str, Any]) -> dict[str, Any]:
        return {name: each for name, each in record.items() if not fields or name in fields}

    def best(answer: str, example: Example) -> float:
        ours = record_of(answer)
        records = [record for reference in references_of(example) if (record := record_of(reference)) is not None]
        if ours is None or not records:
            return float("nan")
        return max(value(share(only(ours), only(record), tolerance)) for record in records)

    return PerAnswer(best)


def record_of(text: str) -> dict[str, Any] | None:
    """The first whole JSON object in a text; None if there is none."""
    found, _ = read_answer(text, extract="json_object")
    value = None if found is None else json.loads(found)
    return value if isinstance(value, dict) else None


def share(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float = 0.0) -> dict[str, float]:
    """Field -> how far the two agree, from 0 to 1, over the fields of both. A field that is null is taken as one that is not there.

    Text is compared without regard to case and spaces, numbers within `tolerance` (a share of theirs), lists by the F1 of what they share,
    records inside by the mean of their fields.
    """
    names = dict.fromkeys(name for record in (theirs, ours) for name, value in record.items() if value is not None)
    return {name: _alike(ours.get(name), theirs.get(name), tolerance) for name in names}


def _alike(ours: Any, theirs: Any, tolerance: float) -> float:
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return float(ours is theirs)
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        try:
            return float(ours == theirs or abs(ours - theirs) <= tolerance * abs(theirs))
        except OverflowError:  # a whole number of more digits than a float can hold
            return 0.0
    if isinstance(ours, str) and isinstance(theirs, str):
        return float(_folded(ours) == _folded(theirs))
    if isinstance(ours, list) and isinstance(theirs, list):
        a, b = ({_key(each) for each in values} for values in (ours, theirs))
        return 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0
    if isinstance(ours, dict) and isinstance(theirs, dict):
        inner = share(ours, theirs, tolerance)
        return sum(inner.values()) / len(inner) if inner else 1.0
    return 0.0


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _key(value: Any) -> str:
    """What stands for a value in a set."""
    if isinstance(value, str):
        return _folded(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return canonical_json(value)
