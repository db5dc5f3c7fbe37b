"""`icl init`: a suite and a template for somebody's own file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, Problem
from ..files import write_text
from .output import say, tell


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Your labelled rows: CSV, TSV, JSONL, JSON or Parquet.")],
    input: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Input column; may be given several times. Guessed if left out.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Label or answer column. Guessed if left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there already.")] = False,
) -> None:
    """Write a suite and a template for your own file.

    Both go into the current folder, ready to run and to edit. Columns that are not named are guessed, with the reasons.
    """
    from . import guess as guessing
    from . import starter

    guess = guessing.guess(file, input or (), label)
    for reason in guess.reasons:
        tell(reason)
    name = starter.file_name(file)
    texts = {
        Path(f"{name}.jinja"): starter.template_text(guess, file),
        Path(f"{name}.yaml"): starter.suite_text(guess, file, Path.cwd(), name),
    }
    there = [path for path in texts if path.exists()]
    if there and not force:
        raise InputError(Problem("the file is there already", "Move it away, or say --force to overwrite it.", str(path)) for path in there)
    for path, text in texts.items():
        write_text(path, text)
        say(f"wrote {path}")
    _check(*texts)
    tell(f"Next: icl run {name}.yaml --plan, then icl run {name}.yaml")


def _check(template: Path, suite: Path) -> None:
    """Raises InputError if what was written does not hold; says how many rows there are to learn from and to test on."""
    from ..data import Task
    from ..evaluate import load_suite
    from ..prompt import lint

    problems = lint(template)
    if problems:
        raise InputError(problems)
    entry = load_suite(suite).suite.tasks[0]
    task = Task.load(entry.train, input=entry.input, label=entry.label, choices=entry.choices, references=entry.references)
    tell(f"{len(task.train)} rows to learn from, {len(task.test)} held out to test on")
    for warning in task.warnings:
        tell(str(warning))
