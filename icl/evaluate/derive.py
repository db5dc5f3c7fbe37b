"""Columns of a task that its suite makes out of others (`derive`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..progress import note


def with_derived(sources: Mapping[str, Any], expressions: Mapping[str, str], data_root: str | Path | None) -> dict[str, Any]:
    """Split -> its rows with the new columns. What a row does not give is None there, so that the row is rejected and counted like any
    other that lacks a value. Raises InputError for a source that cannot be read, and for a column that no row gives."""
    from ..data.rows import plain
    from ..data.source import load_table
    from ..prompt.columns import derived

    result = {}
    for split, source in sources.items():
        table = load_table(source, split=split, data_root=data_root)
        try:
            rows, n_failed = derived([{name: plain(value) for name, value in row.items()} for _, row in table.rows], expressions)
        except InputError as error:
            raise InputError([replace(problem, file=table.name) for problem in error.problems]) from None
        if n_failed:
            note(f"{table.name}: {n_failed} values of {', '.join(expressions)} could not be made; those rows are rejected")
        lines = [line for line, _ in table.rows]
        names = tuple(dict.fromkeys((*table.columns, *expressions)))
        result[split] = replace(
            table, rows=list(zip(lines, rows, strict=True)), columns=names, origin={**table.origin, "derive": dict(expressions)}
        )
    return result
