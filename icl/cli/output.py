"""Where output goes: results to stdout, everything about them to stderr. Plain text, so that both can be piped and read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def say(text: str = "") -> None:
    """A line of the result, on stdout."""
    print(text)


def tell(text: str) -> None:
    """A line about the result, on stderr. Unlike progress it is not silenced by `--quiet`."""
    print(text, file=sys.stderr, flush=True)


def say_json(value: Any) -> None:
    """A result for programs: one JSON document."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def say_exactly(text: str) -> None:
    """`text` as UTF-8 bytes with nothing added; only a terminal gets a line end after it, so that the shell's prompt starts fresh."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8"))
    if sys.stdout.isatty() and not text.endswith("\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.flush()


def columns(rows: Iterable[Sequence[str]], indent: str = "") -> list[str]:
    """Rows as lines with aligned columns; the last column is not padded."""
    table = [tuple(row) for row in rows]
    if not table:
        return []
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]) - 1)]
    return [indent + "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in table]


def be_quiet(quiet: bool) -> None:
    """`--quiet`: no progress, here and in whatever is called."""
    if quiet:
        os.environ["ICL_QUIET"] = "1"
