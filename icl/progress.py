"""Progress for long work: a bar on a terminal, a plain line now and then elsewhere, nothing when quiet."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_EVERY_S = 10.0
_shown: list[Progress] = []
"""What is on the terminal now."""


class Advance(Protocol):
    """Call it with the number of units done since the last call."""

    def __call__(self, n: int = 1) -> None: ...


def quiet() -> bool:
    """True if `ICL_QUIET` is set: no progress at all (libraries and tests)."""
    return bool(os.environ.get("ICL_QUIET"))


def note(text: str) -> None:
    """One plain line on stderr, so that stdout stays usable by other programs."""
    if not quiet():
        print(text, file=sys.stderr, flush=True)


@contextmanager
def _display() -> Iterator[Progress]:
    """The bars that are on the terminal now, or new ones: two displays at once would draw over each other."""
    if _shown:
        yield _shown[0]
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        _shown.append(bars)
        try:
            yield bars
        finally:
            _shown.clear()


@contextmanager
def progress(description: str, total: int | Callable[[], int], unit: str = "items") -> Iterator[Advance]:
    """Show the progress of `total` units while the block runs; a function is asked each time, for work that turns out to be more.

    A rich bar if stderr is a terminal and neither `NO_COLOR` nor `CI` is set; otherwise a line every 10 seconds and one at the end,
    if the work took that long. Work within other work has a bar of its own below the other's.
    """

    def known() -> int:
        return total if isinstance(total, int) else total()

    if quiet() or (isinstance(total, int) and total <= 0):
        yield lambda n=1: None
        return
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR") and not os.environ.get("CI"):
        with _display() as bars:
            task = bars.add_task(description, total=known(), unit=unit)
            try:
                yield lambda n=1: bars.update(task, total=known(), advance=n)
            finally:
                bars.remove_task(task)
        return
    started = last = time.monotonic()
    done = 0

    def advance(n: int = 1) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= PLAIN_EVERY_S:
            last = now
            note(f"{description}: {done}/{known()} {unit}, {now - started:.0f} s")

    yield advance
    if last != started:
        note(f"{description}: {done}/{known()} {unit} done, {time.monotonic() - started:.0f} s")
