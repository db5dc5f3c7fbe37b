"""What the user should know about a task and nothing fails on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..errors import Problem
from .task import LABELLED, Task


def task_warnings(task: Task) -> Iterable[Problem]:
    """Labels without rows, labels that are nearly the same, rejected rows."""
    checks: tuple[Callable[[Task], Iterable[Problem]], ...] = (_coverage, _similar_labels, _rejections)
    for check in checks:
        yield from check(task)


def repeated_ids(file: str, column: str, ids: Sequence[str | None], lines: Sequence[int]) -> Iterable[Problem]:
    """One warning for a source whose id column names several rows by one id. ids, lines: of each usable row.

    No error: rows are told apart by what they hold, and ids serve the leak guard alone.
    """
    at: dict[str, list[int]] = {}
    for own, line in zip(ids, lines, strict=True):
        if own is not None:
            at.setdefault(own, []).append(line)
    repeated = {own: found for own, found in at.items() if len(found) > 1}
    if repeated:
        own, found = next(iter(repeated.items()))
        others = len(repeated) - 1
        more = f"; {others:,} more {'id stands' if others == 1 else 'ids stand'} more than once" if others else ""
        yield Problem(
            f"the id '{own}' stands {len(found):,} times, first in lines {found[0]} and {found[1]}{more}",
            "Give every row an id of its own: rows to learn from that share one with a test row are left out as leaks.",
            file,
            found[0],
            column,
        )


def _coverage(task: Task) -> Iterable[Problem]:
    if task.kind != "classify":
        return
    present = {split: {example.target for example in getattr(task, split)} for split in LABELLED}
    for split, other in (("train", "test"), ("test", "train")):
        lacking = [label for label in task.labels if label not in present[split]]
        if lacking and getattr(task, split):
            listing = ", ".join(repr(label) for label in lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
            yield Problem(
                f"{split} has no row for {len(lacking)} of {len(task.labels)} labels: {listing}",
                f"They stay in the label set; add rows to {split}, or take them out of {other}.",
                field="label",
            )


def _similar_labels(task: Task) -> Iterable[Problem]:
    folded: dict[str, list[str]] = {}
    for label in task.labels:
        folded.setdefault(" ".join(label.casefold().split()), []).append(label)
    for same in folded.values():
        if len(same) > 1:
            yield Problem(
                f"the labels {', '.join(repr(label) for label in same)} differ only in case or white space",
                "They count as different labels; write them alike if they are one.",
                field="label",
            )


def _rejections(task: Task) -> Iterable[Problem]:
    if task.rejected:
        listing = ", ".join(f"{n} × {reason}" for reason, n in task.reasons.items())
        first = task.rejected[0]
        yield Problem(
            f"{len(task.rejected)} of {sum(task.n_rows.values())} rows are rejected: {listing}",
            f"The first is line {first.line} of {first.split}.",
        )
