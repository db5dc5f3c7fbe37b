"""A file of which some rows have a label, or none has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError, Problem, suggest
from ..values import Example
from .examples import Columns, Reader, RejectedRow, label_text
from .rows import Row, plain
from .source import load_table


@dataclass(frozen=True, slots=True)
class PartLabelled:
    """The usable rows of a file."""

    labelled: tuple[Example, ...]
    unlabelled: tuple[Example, ...]
    rows: Mapping[str, tuple[int, Row]]
    """uid -> (line, the row as it stands in the file)."""
    reasons: Mapping[str, int]
    """Why other rows cannot be used -> how many."""


def read_part_labelled(path: Path | str, inputs: Mapping[str, str], label: str | None) -> PartLabelled:
    """Rows with a value in the column `label` (there may be no such column) are labelled, the others are not.

    inputs: field -> column. Raises InputError for a file that cannot be read, columns that it lacks, and one of which no row can be used.
    """
    table = load_table(path, split="unlabelled", data_root=None)
    problems = [
        Problem(
            f"there is no column '{column}'", suggest(column, [name for name in table.columns if name]), table.name, 1, f"input.{field}"
        )
        for field, column in inputs.items()
        if column not in table.columns
    ]
    if problems:
        raise InputError(problems)
    columns = Columns(dict(inputs), label=label if label in table.columns else None)
    readers = {known: Reader("classify", columns, labelled=known) for known in (True, False)}
    labelled: list[Example] = []
    unlabelled: list[Example] = []
    rows: dict[str, tuple[int, Row]] = {}
    seen: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for line, row in table.rows:
        try:
            known = columns.label is not None and label_text(row.get(columns.label)) is not None
            example = readers[known].example(row)
        except RejectedRow as reason:
            reasons[str(reason)] += 1
            continue
        own = replace(example, uid=f"{example.uid}-{seen[example.uid]}")
        seen[example.uid] += 1
        (labelled if known else unlabelled).append(own)
        rows[own.uid] = (line, {key: plain(value) for key, value in row.items()})
    if not rows:
        listing = ", ".join(f"{n} × {reason}" for reason, n in reasons.most_common())
        raise InputError(Problem(f"none of the {len(table.rows)} rows can be used: {listing}", "Check the input columns.", table.name))
    return PartLabelled(tuple(labelled), tuple(unlabelled), rows, dict(reasons.most_common()))
