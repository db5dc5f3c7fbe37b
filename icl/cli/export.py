"""`icl export`: the winner of a run as a folder of its own, or its prompt for use without icl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, Problem
from ..files import write_text
from .output import say, tell
from .rows import as_fields
from .run import Places


def export(
    places: Places,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run; with --prompt also a shipped folder.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Where the predictor goes.")] = None,
    method: Annotated[str | None, typer.Option(metavar="NAME", help="Which method; the best of the run if left out.")] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="With --to: fitted anew on all rows there are to learn from, which is not measured.")
    ] = False,
    prompt: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write its prompt for use without icl: .txt as plain text, .json with chat messages."),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(metavar="QUERY", help="With --prompt: show the demonstrations for this query. [default: those shown most often]"),
    ] = None,
) -> None:
    """Ship a method of a run as a folder of its own, or write its prompt for use elsewhere.

    `icl predict` and `icl.load` take the folder. The prompt has fixed demonstrations and a mark where each input belongs.
    """
    from ..ship import export as ship
    from ..ship import fixed_prompt
    from ..ship import refit as fit_again

    problems = []
    if to is None and prompt is None:
        problems.append(Problem("nothing is asked for", "Give --to FOLDER, or --prompt FILE.", field="--to"))
    if prompt is not None and prompt.suffix not in (".txt", ".json"):
        problems.append(
            Problem(f"'{prompt.suffix}' is no format of a prompt", "Give a name in .txt or .json.", str(prompt), field="--prompt")
        )
    if query is not None and prompt is None:
        problems.append(Problem("--query chooses the demonstrations of --prompt", "Give --prompt FILE.", field="--query"))
    if refit and to is None:
        problems.append(Problem("--refit fits what --to saves", "Give --to FOLDER.", field="--refit"))
    if problems:
        raise InputError(problems)
    if to is not None:
        if refit:
            where = (places.templates or (), places.plugins or ())
            folder = fit_again(run, to, method, templates=where[0], plugins=where[1], data_root=places.data_root)
        else:
            folder = ship(run, to, method)
        say(str(folder))
        tell(f"Next: icl predict {folder} FILE")
    if prompt is not None:
        found = fixed_prompt(run, method, None if query is None else as_fields(query))
        whole = json.dumps(found.as_dict(), ensure_ascii=False, indent=1) + "\n"
        write_text(prompt, found.text if prompt.suffix == ".txt" else whole)
        marks = ", ".join(f"{place} ({field})" for field, place in found.places.items())
        tell(f"Prompt: {prompt}, {len(found.demonstrations)} demonstrations; put a row in the place of {marks}")
        if found.slots:
            tell(f"In what is written, put the value of the row in the place of {', '.join(found.slots.values())}")
        if found.opening:
            tell(f"In what is written, the answer stands behind the last {found.opening!r}")
        if found.extract is not None:
            tell(f"In what is written, the answer is what extract: {found.extract} gives (docs/answers.md)")
        if found.schema is not None:
            whose = "the .json file has it" if prompt.suffix == ".txt" else "schema in the file"
            tell(f"icl holds the model to a JSON schema while it writes ({whose}): do the same for the same answers")
