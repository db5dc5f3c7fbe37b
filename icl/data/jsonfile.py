"""JSON Lines, and JSON files that hold a list of objects. Numbers keep their spelling, and a key that stands twice is a problem."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from .rows import Number, Row, Rows, Trouble, text_lines


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key '{twice}' stands twice in one object")
    return result


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=Number, parse_float=Number, parse_constant=_constant)
_SPACE = " \t\r\n"


def read_jsonl(path: Path) -> Rows:
    """One object a line; blank lines are skipped."""
    trouble = Trouble(str(path))
    for line, text in enumerate(text_lines(path, trouble), 1):
        text = text.strip(_SPACE)
        if not text:
            continue
        try:
            value = _DECODER.decode(text)
        except (ValueError, RecursionError) as error:
            trouble.add(f"not valid JSON: {_reason(error)}", "Write one JSON object a line.", line)
            continue
        if isinstance(value, dict):
            if not trouble.problems:
                yield line, value
        else:
            trouble.add(
                f"the line holds {_what(value)}, not an object", 'Write one object a line, such as {"text": "…", "label": "…"}.', line
            )
    trouble.raise_any()


def read_json(path: Path) -> Rows:
    """A list of objects. A file that begins with `{` is read as JSON Lines."""
    trouble = Trouble(str(path))
    text = "".join(text_lines(path, trouble))
    trouble.raise_any()
    if text.lstrip(_SPACE).startswith("{"):
        return read_jsonl(path)
    return _elements(text, trouble)


def _elements(text: str, trouble: Trouble) -> Iterator[tuple[int, Row]]:
    fix = "The file must be one list of objects: [{…}, {…}]."
    line = 1
    at = 0

    def skip(position: int) -> int:
        while position < len(text) and text[position] in _SPACE:
            position += 1
        return position

    def advance(position: int) -> int:
        nonlocal line
        line += text.count("\n", at, position)
        return position

    at = advance(skip(0))
    if text[at : at + 1] != "[":
        trouble.add("not a list", fix, line)
    at = advance(skip(at + 1))
    while text[at : at + 1] != "]" and not trouble.problems:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            offset = text.count("\n", at, error.pos) if isinstance(error, json.JSONDecodeError) else 0
            trouble.add(f"not valid JSON: {_reason(error)}", fix, line + offset)
            break
        if isinstance(value, dict):
            yield line, value
        else:
            trouble.add(f"the list holds {_what(value)} where an object is expected", fix, line)
        at = advance(skip(end))
        if text[at : at + 1] == ",":
            at = advance(skip(at + 1))
        elif text[at : at + 1] != "]":
            trouble.add("not valid JSON: expecting ',' or ']'", fix, line)
    if not trouble.problems:
        at = advance(skip(at + 1))
        if at < len(text):
            trouble.add("there is more text after the list", fix, line)
    trouble.raise_any()


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _what(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, Number):
        return "a number"
    return "a list" if isinstance(value, list) else "a text"
