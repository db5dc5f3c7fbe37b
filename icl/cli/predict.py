"""`icl predict`: a saved predictor answers the rows of a file."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from ..errors import InputError, Problem
from ..files import atomic_write
from ..progress import PLAIN_EVERY_S, note
from ..values import Prediction
from .guard import FINE, PARTLY
from .options import Quiet
from .output import be_quiet, tell

ROWS_AT_A_TIME = 256
"""Enough for full batches, few enough that a long file is answered while it is read."""
CSV_COLUMNS = ("line", "answer", "probability", "why", "withheld")


def predict(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A saved predictor.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows to answer: CSV, TSV, JSONL or Parquet with the input columns.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write here, .jsonl or .csv. JSONL on stdout if left out.")] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=COLUMN", help="Where a field has another name in this file; may be given several times."),
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Answer the rows of a file with a saved predictor.

    One line a row, in order. Exit code 4 if some rows could not be answered; to abstain is no such failure.
    """
    from ..data import read_rows
    from ..ship import load

    be_quiet(quiet)
    if out is not None and out.suffix not in (".jsonl", ".csv"):
        raise InputError(
            Problem(f"'{out.suffix}' is no format that predictions are written in", "Give --out a name in .jsonl or .csv.", str(out))
        )
    predictor: Any = load(folder)
    renamed = _renamed(predictor.inputs, input or ())
    rows = read_rows(file)
    columns: dict[str, str] = {}
    n_rows = n_failed = n_abstained = 0
    started = last = time.monotonic()
    with _writer(out) as write:
        while batch := list(itertools.islice(rows, ROWS_AT_A_TIME)):
            columns = columns or _columns(predictor.inputs, renamed, batch[0][1], file)
            for (line, _), prediction in zip(batch, _answer(predictor, batch, columns), strict=True):
                write(line, prediction)
                n_failed += prediction.answer is None and not prediction.abstained
                n_abstained += prediction.abstained
            n_rows += len(batch)
            if time.monotonic() - last >= PLAIN_EVERY_S:
                last = time.monotonic()
                note(f"predict: {n_rows} rows, {last - started:.0f} s")
    tell(
        f"{n_rows} rows answered"
        + (f", {n_abstained} of them withheld as too unsure" if n_abstained else "")
        + (f", {n_failed} of them could not be (see 'why')" if n_failed else "")
        + (f", written to {out}" if out else "")
    )
    return PARTLY if n_failed else FINE


def _renamed(inputs: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """Field -> column, as `--input` says."""
    renamed: dict[str, str] = {}
    for item in given:
        field, _, column = item.partition("=")
        if field not in inputs or not column:
            raise InputError(
                Problem(
                    f"'{item}' does not name one of this predictor's fields",
                    f"Write FIELD=COLUMN with a field of {list(inputs)}.",
                    field="--input",
                )
            )
        renamed[field] = column
    return renamed


def _columns(inputs: Sequence[str], renamed: Mapping[str, str], row: Mapping[str, Any], file: Path) -> dict[str, str]:
    """Field -> column of the file: as `--input` says, else of the field's name, else one that becomes it as an identifier (`Body text`).

    Raises InputError naming every field that the file has no column for.
    """
    as_fields = {re.sub(r"\W+", "_", column, flags=re.ASCII).strip("_"): column for column in row}
    columns = {field: renamed.get(field) or (field if field in row else as_fields.get(field, field)) for field in inputs}
    problems = [
        Problem(
            f"there is no column '{column}', which the predictor's field '{field}' is read from",
            f"Columns here: {', '.join(row)}. Say which it is: --input {field}=COLUMN.",
            str(file),
            1,
            column,
        )
        for field, column in columns.items()
        if column not in row
    ]
    if problems:
        raise InputError(problems)
    return columns


def _answer(predictor: Any, batch: Sequence[tuple[int, Mapping[str, Any]]], columns: Mapping[str, str]) -> list[Prediction]:
    """One Prediction per row; a row that lacks an input column is answered with why."""
    whole = [row for _, row in batch if all(row.get(column) is not None for column in columns.values())]
    queries = [{**{field: row[column] for field, column in columns.items()}, **_choices(row)} for row in whole]
    answers = iter(predictor.predict(queries) if queries else ())
    return [_lacking(row, columns) if any(row.get(c) is None for c in columns.values()) else next(answers) for _, row in batch]


def _lacking(row: Mapping[str, Any], columns: Mapping[str, str]) -> Prediction:
    missing = [column for column in columns.values() if row.get(column) is None]
    return Prediction("", None, why=f"the row has no {', '.join(repr(column) for column in missing)}")


def _choices(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"choices": row["choices"]} if isinstance(row.get("choices"), list) else {}


@contextlib.contextmanager
def _writer(out: Path | None) -> Iterator[Callable[[int, Prediction], None]]:
    """A function that writes one prediction. A file appears whole when all is done; stdout is written line by line."""
    if out is None:
        yield lambda line, prediction: _write_json(sys.stdout, line, prediction)
        return
    with atomic_write(out) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        if out.suffix == ".csv":
            table = csv.writer(file, lineterminator="\n")
            table.writerow(CSV_COLUMNS)
            yield lambda line, prediction: table.writerow(_cells(line, prediction))
        else:
            yield lambda line, prediction: _write_json(file, line, prediction)


def _write_json(file: IO[str], line: int, prediction: Prediction) -> None:
    record: dict[str, Any] = {"line": line, "answer": prediction.answer}
    if prediction.probabilities is not None:
        record["probabilities"] = {label: float(p) for label, p in prediction.probabilities.items()}
    if prediction.demonstrations:
        record["demonstrations"] = list(prediction.demonstrations)
    if prediction.why:
        record["why"] = prediction.why
    if prediction.withheld is not None:
        record["withheld"] = prediction.withheld
    file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _cells(line: int, prediction: Prediction) -> tuple[Any, ...]:
    held = prediction.withheld is not None
    probability = (prediction.probabilities or {}).get(str(prediction.withheld if held else prediction.answer))
    return line, prediction.answer, None if probability is None else float(probability), prediction.why, prediction.withheld
