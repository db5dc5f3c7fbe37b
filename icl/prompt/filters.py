"""What templates may call: Jinja's filters that are safe as they are, and our own versions of those that are not.

Left out on purpose: `random` and `lipsum` (a prompt is a pure function of its row), `attr` (a way around the sandbox), everything about
HTML (it returns marked-up text that escapes what is joined to it), `groupby`, `pprint`, `urlize`, `xmlattr`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jinja2 import Undefined

if TYPE_CHECKING:
    from .sandbox import Meter

PLAIN = frozenset(
    [
        "abs",
        "count",
        "length",
        "d",
        "default",
        "dictsort",
        "first",
        "float",
        "int",
        "items",
        "last",
        "list",
        "map",
        "max",
        "min",
        "reject",
        "rejectattr",
        "reverse",
        "select",
        "selectattr",
        "sort",
        "unique",
    ]
)
TEXT = frozenset(["capitalize", "lower", "title", "trim", "truncate", "upper", "wordcount"])
"""Filters that turn whatever they get into text: they get text or a number."""
TESTS = frozenset(
    [
        "boolean",
        "defined",
        "divisibleby",
        "eq",
        "equalto",
        "even",
        "false",
        "float",
        "ge",
        "greaterthan",
        "gt",
        "in",
        "integer",
        "iterable",
        "le",
        "lessthan",
        "lower",
        "lt",
        "mapping",
        "ne",
        "none",
        "number",
        "odd",
        "sameas",
        "sequence",
        "string",
        "true",
        "undefined",
        "upper",
        "==",
        "!=",
        ">",
        ">=",
        "<",
        "<=",
    ]
)
WIDEST = 999
"""Widest field of a format string."""


def scalar(value: Any) -> str:
    """Text of a string, number or truth value. Raises TypeError for anything else, whose text nobody means to send to a model."""
    if type(value) is str:
        return value
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, Undefined):
        return str(value)  # StrictUndefined raises with the name
    if isinstance(value, list | tuple):
        raise TypeError("a list cannot be written as it is: loop over it, or use | join(', ')")
    if isinstance(value, dict):
        raise TypeError("a mapping cannot be written as it is: name one of its keys, or use | tojson")
    raise TypeError(f"only text and numbers can be written, not {'none' if value is None else type(value).__name__}")


def narrow(spec: str) -> None:
    """Refuse a format specification with a width or precision beyond `WIDEST`."""
    if any(int(number) > WIDEST for number in re.findall(r"\d{1,9}", spec)):
        raise ValueError(f"a width in a format is at most {WIDEST}")


def narrow_percent(text: str, values: Any) -> None:
    """The same for `%` formats, which also may not take a width from their values, nor write anything but text and numbers."""
    for spec in re.findall(r"%(?:\([^)]*\))?([-#0 +]*[\d.*]*)", text):
        if "*" in spec:
            raise ValueError("'*' is not allowed in a format")
        narrow(spec)
    for value in values if isinstance(values, tuple) else values.values() if isinstance(values, dict) else (values,):
        scalar(value)


def growth(method: str, text: str, args: tuple[Any, ...]) -> int:
    """Characters that a str method may make beyond those it was given. Raises ValueError for an absurd width."""
    if method in ("center", "ljust", "rjust", "zfill") and args:
        return _width(args[0])
    if method == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
        return text.count(args[0]) * len(args[1])
    if method == "join" and args:
        return len(text) * len(args[0]) if hasattr(args[0], "__len__") else 0
    return 0


def _width(width: Any) -> int:
    if not isinstance(width, int) or width > 10_000:
        raise ValueError(f"a width is a whole number up to 10000, got {str(width)[:20]}")
    return max(width, 0)


def _batch(meter: Meter, value: Any, size: int) -> list[list[Any]]:
    items = list(value)
    return [items[i : i + max(1, size)] for i in range(0, len(items), max(1, size))]


def _center(meter: Meter, value: Any, width: int = 80) -> str:
    meter.charge(_width(width))
    return scalar(value).center(width)


def _format(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> str:
    text, values = scalar(value), kwargs or args
    narrow_percent(text, values)
    meter.charge(text.count("%") * (meter.size(values) + WIDEST))
    return str(text % values)


def _indent(meter: Meter, value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = " " * _width(width) if isinstance(width, int) else scalar(width)
    lines = scalar(value).split("\n")
    meter.charge(len(lines) * len(margin))
    return "\n".join(margin + line if (line or blank) and (i or first) else line for i, line in enumerate(lines))


def _join(meter: Meter, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    texts = [scalar(item if attribute is None else item[attribute]) for item in value]
    glue = scalar(d)
    meter.charge(sum(map(len, texts)) + len(glue) * len(texts))
    return glue.join(texts)


def _replace(meter: Meter, value: Any, old: str, new: str, count: int = -1) -> str:
    text, old, new = scalar(value), scalar(old), scalar(new)
    meter.charge(text.count(old) * len(new))
    return text.replace(old, new, count)


def _round(meter: Meter, value: float, precision: int = 0) -> float:
    if abs(precision) > 30:
        raise ValueError("a number is rounded to at most 30 places")
    return round(float(value), precision)


def _string(meter: Meter, value: Any) -> str:
    return scalar(value)


def _sum(meter: Meter, value: Any) -> float:
    if not all(isinstance(item, int | float) for item in value):
        raise TypeError("only numbers can be summed")
    return float(sum(value)) if any(isinstance(item, float) for item in value) else int(sum(value))


def _tojson(meter: Meter, value: Any, indent: int | None = None) -> str:
    # Not Jinja's own, which escapes <, > and & for HTML.
    if indent is not None and not 0 <= indent <= 8:
        raise ValueError("tojson indents by 0 to 8")
    meter.charge(4 * meter.size(value))
    return json.dumps(value, ensure_ascii=False, indent=indent)


OWN: Mapping[str, Callable[..., Any]] = {
    "batch": _batch,
    "center": _center,
    "format": _format,
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "string": _string,
    "sum": _sum,
    "tojson": _tojson,
}
