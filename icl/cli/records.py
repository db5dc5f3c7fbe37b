"""Records of rows as a CSV or JSONL file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, Problem
from ..files import write_text


def check_out(out: Path | None) -> None:
    """Raises InputError for a name whose ending is no format that rows are written in."""
    if out is not None and out.suffix not in (".csv", ".jsonl"):
        raise InputError(Problem(f"'{out.suffix}' is no format that rows are written in", "Give --out a name in .jsonl or .csv.", str(out)))


def write_records(out: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """One line a record. Its `fields` become columns of their own, behind the others; in CSV a conversation is JSON."""
    flat = [{**{key: value for key, value in each.items() if key != "fields"}, **_fields(each)} for each in records]
    if out.suffix == ".jsonl":
        write_text(out, "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in flat))
        return
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(key for each in flat for key in each)), lineterminator="\n")
    table.writeheader()
    table.writerows({key: _cell(value) for key, value in each.items()} for each in flat)
    write_text(out, text.getvalue())


def _fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Under names that the record does not have."""
    return {name if name not in record else f"field_{name}": value for name, value in record.get("fields", {}).items()}


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
