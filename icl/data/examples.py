"""One row to one Example, or the reason why not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..values import Example, Fields, FieldValue, Kind, content_digest
from .rows import Number, Row, plain

_UNUSABLE = re.compile("[\ud800-\udfff\0]")
_DIGITS = re.compile(r"[0-9]+")
_ROLE_KEYS, _TEXT_KEYS = ("role",), ("text", "content")


class RejectedRow(Exception):
    """Why a row cannot be used, in the same words for every such row, so that reasons can be counted."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what."""

    inputs: Mapping[str, str]
    """Template field -> column."""
    label: str | None = None
    choices: str | None = None
    references: str | None = None
    rationale: str | None = None
    id: str | None = None

    def named(self) -> dict[str, str]:
        """Option -> column, for every column asked for."""
        named = {f"input.{name}" if name != column else "input": column for name, column in self.inputs.items()}
        if len(named) < len(self.inputs):
            named = {f"input.{name}": column for name, column in self.inputs.items()}
        optional = {name: getattr(self, name) for name in ("label", "choices", "references", "rationale", "id")}
        return named | {name: column for name, column in optional.items() if column is not None}


def as_text(value: Any) -> str | None:
    """A value as the text it is written as; None for a missing one (null, NaN). Raises RejectedRow for lists, mappings and bytes."""
    if value is None or isinstance(value, str):
        return None if value is None else str(value)
    if hasattr(value, "item") and not isinstance(value, list | dict):  # a numpy scalar
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, bytes | bytearray | list | tuple | dict | set):
        raise RejectedRow(f"a {type(value).__name__} where a text is expected")
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas' markers for a missing value
        return None
    return str(value)


def label_text(value: Any) -> str | None:
    """As `as_text`; a label of white space alone counts as missing, any other is kept byte for byte."""
    text = as_text(value)
    return text if text is not None and text.strip() else None


def field_value(value: Any) -> FieldValue:
    """A field: text, number, or the turns of a conversation. Missing -> "". Raises RejectedRow."""
    if isinstance(value, Number):
        number = plain(value)
        return number if isinstance(number, int | float) else str(value)
    if isinstance(value, list | tuple) or (hasattr(value, "tolist") and getattr(value, "ndim", 0) > 0):
        return _turns(list(value))
    if hasattr(value, "item") and not isinstance(value, dict):
        value = value.item()
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return as_text(value) or ""


def _turns(items: list[Any]) -> list[dict[str, str]]:
    turns = []
    for item in items:
        if not isinstance(item, Mapping):
            raise RejectedRow("a list that is no conversation where an input is expected")
        role = next((as_text(item[key]) for key in _ROLE_KEYS if key in item), None)
        text = next((as_text(item[key]) for key in _TEXT_KEYS if key in item), None)
        if role is None or text is None:
            raise RejectedRow("a turn of a conversation without role or text")
        turns.append({"role": role, "text": text})
    return turns


def as_list(value: Any) -> list[Any] | None:
    """A list: as it is, written as JSON in a text (the only way to have one in CSV), or under `text` in a mapping, as SQuAD and
    other sets on the hub keep their answers and choices. None if it is no list."""
    if isinstance(value, dict) and "text" in value:
        return as_list(value["text"])
    if isinstance(value, list | tuple):
        return list(value)
    if hasattr(value, "tolist") and getattr(value, "ndim", 0) > 0:
        return list(value.tolist())
    if isinstance(value, str) and not isinstance(value, Number) and value.lstrip().startswith("["):
        try:
            found = json.loads(value, parse_int=Number, parse_float=Number)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, list) else None
    return None


def choice_mode(rows: Sequence[Row], columns: Columns) -> Literal["index", "text"]:
    """How the labels of a choose task are written: 0-based indices, or the text of the right choice. One answer for all rows.

    Numbers are indices. Texts (all there is in CSV) are choice texts if every one equals a choice of its row, else indices if every
    one is digits: deciding row by row would read the index 4 as the choice "4" wherever a row happens to have one.
    """
    assert columns.label is not None
    assert columns.choices is not None
    digits = texts = total = 0
    for row in rows:
        value = row.get(columns.label)
        if (isinstance(value, Number) and _DIGITS.fullmatch(value)) or (not isinstance(value, str | bool) and hasattr(value, "__index__")):
            return "index"
        if isinstance(value, str) and value.strip():
            total += 1
            digits += bool(_DIGITS.fullmatch(value))
            texts += value in [_quiet_text(item) for item in as_list(row.get(columns.choices)) or ()]
    return "index" if digits == total and texts < total else "text"


def _quiet_text(value: Any) -> str | None:
    try:
        return as_text(value)
    except RejectedRow:
        return None


@dataclass(frozen=True, slots=True)
class Reader:
    """Makes Examples of the rows of one task."""

    kind: Kind
    columns: Columns
    mode: Literal["index", "text"] = "text"
    labelled: bool = True
    """False for unlabelled rows: whatever stands in the label column is not read."""

    def example(self, row: Row) -> Example:
        """The row as an Example whose uid lacks the occurrence. Raises RejectedRow."""
        columns = self.columns
        fields: Fields = {name: field_value(row.get(column)) for name, column in columns.inputs.items()}
        if all(value == [] or (isinstance(value, str) and not value.strip()) for value in fields.values()):
            raise RejectedRow("empty text")
        choices = self._choices(row) if self.kind == "choose" else ()
        references: tuple[str, ...] = ()
        target: str | None = None
        if self.labelled:
            if self.kind == "answer":
                references = self._references(row)
                target = references[0]
            else:
                target = self._label(row, choices)
        rationale = label_text(row.get(columns.rationale)) if columns.rationale and self.labelled else None
        for text in (*_texts(fields), *choices, *references, target or "", rationale or ""):
            if found := _UNUSABLE.search(text):
                raise RejectedRow("a NUL character" if found[0] == "\0" else "half a surrogate pair, which is no text")
        return Example(content_digest(fields, choices), fields, target, choices, references, rationale)

    def _choices(self, row: Row) -> tuple[str, ...]:
        items = as_list(row.get(self.columns.choices or ""))
        if not items:
            raise RejectedRow(
                "no choices" if items is not None or row.get(self.columns.choices or "") in (None, "") else "choices are no list"
            )
        choices = [label_text(item) for item in items]
        if any(choice is None for choice in choices):
            raise RejectedRow("an empty choice")
        if len(choices) < 2:
            raise RejectedRow("fewer than two choices")
        return tuple(choice for choice in choices if choice is not None)

    def _label(self, row: Row, choices: tuple[str, ...]) -> str:
        text = label_text(row.get(self.columns.label or ""))
        if text is None:
            raise RejectedRow("no label")
        if self.kind == "classify":
            return text
        if self.mode == "text":
            if text not in choices:
                raise RejectedRow("the label is none of the choices")
            return text
        if not _DIGITS.fullmatch(text):
            raise RejectedRow("the label is no index from 0")
        if len(text) > 9 or int(text) >= len(choices):
            raise RejectedRow("label index out of range")
        return choices[int(text)]

    def _references(self, row: Row) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for column in (self.columns.label, self.columns.references):
            if column is None:
                continue
            value = row.get(column)
            items = as_list(value)
            texts = [label_text(item) for item in (items if items is not None else [value])]
            found.update(dict.fromkeys(text for text in texts if text is not None))
        if not found:
            raise RejectedRow("no answer")
        return tuple(found)


def _texts(fields: Fields) -> list[str]:
    texts: list[str] = []
    for value in fields.values():
        if isinstance(value, str):
            texts.append(value)
        elif not isinstance(value, int | float):
            texts += [part for turn in value for part in (turn["role"], turn["text"])]
    return texts
