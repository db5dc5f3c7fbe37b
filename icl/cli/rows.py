"""Options that name columns, shared by the commands that read a file of labelled rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, Problem

if TYPE_CHECKING:
    from ..data import Task
    from ..values import Example


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file are what."""

    input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Input column, or FIELD=COLUMN where the template's field has another name; may be given several times. [default: text]",
        ),
    ] = None
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Label column. [default: label]")] = None
    choices: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column with the list of choices (multiple choice).")] = None
    references: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with the right answer in words, or a list of them, instead of a label.")
    ] = None

    def named(self) -> dict[str, Any]:
        """Those of `Task.load`'s arguments that name columns."""
        return {
            "input": fields_and_columns(self.input),
            "label": self.label or "label",
            "choices": self.choices,
            "references": self.references,
        }


def read_rows_as_task(file: Path, columns: Columns, **more: Any) -> Task:
    """`Task.load` of one file with the columns named on the command line."""
    from ..data import Task

    return Task.load(file, **{**columns.named(), **more})


def fields_and_columns(given: Sequence[str] | None) -> str | list[str] | dict[str, str]:
    """`["text=body"]` as `Task.load` takes it. Raises InputError for a name without both sides."""
    pairs: dict[str, str] = {}
    for item in given or ("text",):
        field, equals, column = item.partition("=")
        if not field or (equals and not column):
            raise InputError(Problem(f"'{item}' names no column", "Write COLUMN, or FIELD=COLUMN.", field="--input"))
        pairs[field] = column or field
    return list(pairs) if all(field == column for field, column in pairs.items()) else pairs


def as_fields(query: str) -> str | dict[str, Any]:
    """A query as typed: a JSON object is a mapping of fields, anything else is the text itself."""
    if not query.lstrip().startswith("{"):
        return query
    try:
        value = json.loads(query)
    except json.JSONDecodeError:
        return query
    return value if isinstance(value, dict) else query


def shortened(example: Example, width: int = 90) -> str:
    """The row's fields on one line, for a listing."""
    from ..values import embedded_text

    text = " ".join(embedded_text(example.fields).split())
    return text if len(text) <= width else text[: width - 1] + "…"
