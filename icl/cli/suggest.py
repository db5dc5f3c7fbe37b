"""`icl index suggest`: which rows to label next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import InputError, Problem
from .label_errors import pool_rows
from .options import AsJson, Quiet
from .output import be_quiet, columns, say, say_json, tell
from .records import check_out, write_records
from .rows import Columns, fields_and_columns

if TYPE_CHECKING:
    from ..data.part_labelled import PartLabelled
    from ..evaluate.suggest import Suggestions
    from ..values import Example

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Choosing:
    """By what rows are chosen."""

    by: Annotated[
        Literal["auto", "uncertainty", "disagreement", "diversity", "votek"],
        typer.Option(
            metavar="HOW",
            help="auto, uncertainty, disagreement, diversity or votek. auto: uncertainty where labelled rows have two labels, disagreement if "
            "--predictor is given too; else diversity.",
        ),
    ] = "auto"
    predictor: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="A saved predictor, such as a prompt, whose answers count too; may be given several times."),
    ] = None
    most_asked: Annotated[int, typer.Option(metavar="N", min=1, help="Rows that predictors are asked about, the most uncertain.")] = 256
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of clusters and of the kernel.")] = 0


def suggest(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows to choose among; those with a label count as labelled.")],
    budget: Annotated[int, typer.Option(metavar="N", min=1, help="How many rows to suggest.")],
    how: Choosing,
    names: Columns,
    pool: Annotated[Path | None, typer.Option(metavar="FILE|FOLDER", help="Labelled rows, or the folder of an index.")] = None,
    encoder: Annotated[str | None, typer.Option(metavar="NAME", help="A sentence encoder. [default: the index's, or minilm]")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The rows with an empty label and the reason, in .csv or .jsonl.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """The rows to label next within a label budget, and why.

    They are chosen by a head on embeddings of the labelled rows; without any, by diversity. No language model is needed.
    """
    from ..evaluate.suggest import suggest as choose
    from ..report.why import plain, shown
    from ..ship import load

    be_quiet(quiet)
    check_out(out)
    known, by = pool_rows(pool, names, encoder) if pool is not None else ((), encoder or "minilm")
    label = names.label or "label"
    given = _given(file, names, known, label)
    if pool is None and label not in (there := list(next(iter(given.rows.values()))[1])):
        tell(f"{file} has no column '{label}' (it has {', '.join(there)}), so no row counts as labelled")
    predictors = [load(folder) for folder in how.predictor or ()]
    found = choose(
        given.unlabelled, budget, labelled=[*known, *given.labelled], by=how.by, encoder=by, predictors=predictors,
        most_asked=how.most_asked, seed=how.seed,
    )  # fmt: skip
    if out is not None:
        write_records(out, [_sheet_row(given, each, label) for each in _records(given, found)])
        tell(f"{len(found.rows)} rows to label, written to {out}")
    if as_json:
        counts = {"n_labelled": found.n_labelled, "n_unlabelled": found.n_unlabelled, "n_copies": found.n_copies}
        say_json({"by": found.by, "rows": _records(given, found), **counts, "n_asked": found.n_asked, "rejected": dict(given.reasons)})
        return
    for line in columns([(str(given.rows[each.example.uid][0]), shown(each.example), plain(each.reason)) for each in found.rows[:SHOWN]]):
        say(line)
    for note in _notes(found, given.reasons):
        tell(note)


def _given(file: Path, names: Columns, known: Sequence[Example], label: str) -> PartLabelled:
    from ..data.part_labelled import read_part_labelled

    inputs = fields_and_columns(names.input)
    if names.choices is not None:
        raise InputError(Problem("rows with choices have no label that others share", "Leave --choices out.", field="--choices"))
    if not isinstance(inputs, Mapping):
        inputs = {name: name for name in ([inputs] if isinstance(inputs, str) else inputs)}
    if known and set(known[0].fields) != set(inputs):
        message = f"the labelled rows have the fields {', '.join(known[0].fields)}, and {', '.join(inputs)} are read here"
        raise InputError(Problem(message, "Name them with --input FIELD=COLUMN.", str(file), field="--input"))
    given = read_part_labelled(file, inputs, label)
    if not given.unlabelled:
        raise InputError(Problem("every row has a label already", f"Leave '{label}' empty where there is none.", str(file), field=label))
    return given


def _records(given: PartLabelled, found: Suggestions) -> list[dict[str, Any]]:
    return [
        {
            "line": given.rows[each.example.uid][0], "uid": each.example.uid, "guess": each.guess, "uncertainty": each.uncertainty,
            "disagreement": each.disagreement, "reason": each.reason, "fields": each.example.fields,
        }
        for each in found.rows
    ]  # fmt: skip


def _sheet_row(given: PartLabelled, record: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The row as it stands in the file, its label empty, then what is said of it."""
    line, row = given.rows[record["uid"]]
    said = {"line": line, **{key: record[key] for key in ("guess", "uncertainty", "disagreement", "reason")}}
    return {**row, label: None, **{f"suggest_{key}" if key in row or key == label else key: value for key, value in said.items()}}


def _notes(found: Suggestions, reasons: Mapping[str, int]) -> list[str]:
    of = f"chosen by {found.by} out of {found.n_unlabelled:,} rows, with {found.n_labelled:,} labelled"
    copies = f"{found.n_copies:,} copies of other rows, or of labelled ones, left out" if found.n_copies else ""
    asked = f"predictors were asked about {found.n_asked:,} rows" if found.n_asked else ""
    more = f"the first {SHOWN} of {len(found.rows):,} shown" if len(found.rows) > SHOWN else ""
    rejected = ", ".join(f"{n:,} × {reason}" for reason, n in reasons.items())
    return [note for note in (of, copies, asked, more, f"rows that cannot be used: {rejected}" if rejected else "") if note]
