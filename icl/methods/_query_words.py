"""The words of a query, and the query without one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

from ..values import Example

_APART = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Scripts that are written without spaces between words: Thai, Lao, Burmese, Khmer, kana, Chinese characters."""
_WORD = re.compile(rf"[{_APART}]|[^\W{_APART}]+(?:['’-][^\W{_APART}]+)*|[^\w\s]")


class Place(NamedTuple):
    """Characters of a query."""

    field: str
    turn: int | None
    """In a conversation: which turn's text."""
    start: int
    end: int


def _parts(query: Example, inputs: Sequence[str]) -> Iterator[tuple[str, int | None, str]]:
    for name in inputs or tuple(query.fields):
        value: Any = query.fields[name]
        if isinstance(value, str):
            yield name, None, value
        elif isinstance(value, Sequence):
            for i, turn in enumerate(value):
                yield name, i, turn["text"]


def text_of(query: Example, place: Place) -> str:
    """The text that a place is in."""
    value: Any = query.fields[place.field]
    return str(value if place.turn is None else value[place.turn]["text"])


def places_in(query: Example, inputs: Sequence[str], most: int) -> list[Place]:
    """Where the query's words stand; with more than `most` runs of neighbouring words, of about equal number."""
    parts = [[Place(field, turn, *found.span()) for found in _WORD.finditer(text)] for field, turn, text in _parts(query, inputs)]
    total = sum(map(len, parts))
    if total <= most:
        return [place for part in parts for place in part]
    result = []
    for part in filter(None, parts):
        n = max(1, len(part) * most // total)
        cuts = [i * len(part) // n for i in range(n + 1)]
        result += [part[a]._replace(end=part[b - 1].end) for a, b in pairwise(cuts)]
    return result


def without(query: Example, place: Place) -> Example:
    """The query without these characters, and without one of the two spaces they stood between."""
    text = text_of(query, place)
    before, behind = text[: place.start], text[place.end :]
    if behind[:1].isspace() and (not before or before[-1].isspace()):
        behind = behind[1:]
    elif not behind and before[-1:].isspace():
        before = before[:-1]
    value: Any = before + behind
    if place.turn is not None:
        turns: Any = query.fields[place.field]
        value = [{**turn, "text": value} if i == place.turn else turn for i, turn in enumerate(turns)]
    fields: Mapping[str, Any] = {**query.fields, place.field: value}
    return replace(query, fields=fields)
