"""Regular expressions that users write, looked for with a bound on time.

An expression such as `(a+)+$` may try every way to divide a text before it finds that none fits, which takes longer than anybody waits.
The package `regex` reads the same expressions as Python's `re` and can be told when to give up.
"""

from __future__ import annotations

import re
from typing import Any, Literal

SECONDS = 1.0
"""How long one search may take: those that end at all take thousandths of it."""


class TooSlow(Exception):
    """The search did not end in time."""


def problem(expression: str, groups: int | None = None) -> str | None:
    """What is wrong with an expression; None if nothing. groups: how many it must have."""
    try:
        its = compiled(expression).groups
    except (ValueError, RecursionError, OverflowError) as error:
        return f"not a regular expression: {error}"
    return None if groups in (None, its) else f"the expression needs exactly {'one group' if groups == 1 else f'{groups} groups'}"


def compiled(expression: str, flags: Literal["", "m"] = "") -> Any:
    """A pattern of `regex` for the functions below. flags: "m" for `^` and `$` at every line. Raises ValueError for what is none."""
    import regex

    try:
        re.compile(expression)  # so that nothing is taken which `re` does not know
        return regex.compile(expression, regex.MULTILINE if flags == "m" else 0)
    except (re.error, regex.error) as error:
        raise ValueError(str(error)) from None


def search(pattern: Any, text: str) -> Any:
    """The first match, or None. Raises TooSlow."""
    try:
        return pattern.search(text, timeout=SECONDS)
    except TimeoutError:
        raise TooSlow from None


def find_all(pattern: Any, text: str) -> list[Any]:
    """What `re.findall` gives. Raises TooSlow if all of them together take too long."""
    try:
        return list(pattern.findall(text, timeout=SECONDS))
    except TimeoutError:
        raise TooSlow from None


def without(pattern: Any, text: str) -> str:
    """The text without what the pattern matches. Raises TooSlow."""
    try:
        return str(pattern.sub("", text, timeout=SECONDS))
    except TimeoutError:
        raise TooSlow from None
