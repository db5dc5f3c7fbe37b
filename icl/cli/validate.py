"""`icl validate`: everything that is wrong with templates, suites and data files, before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, Problem
from ..protocols import PromptCodec
from .options import Plugins, Templates
from .output import say
from .rows import Columns, read_rows_as_task


@dataclass(frozen=True, slots=True)
class With:
    """What the checks may use."""

    model: Annotated[
        str | None, typer.Option(metavar="M", help="Also check templates against this model's tokenizer; the model itself is not loaded.")
    ] = None
    templates: Templates = None
    plugins: Plugins = None


def validate(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Templates (.jinja), suites (.yaml), data files, or folders of them.")
    ],
    using: With,
    names: Columns,
) -> None:
    """Show all that is wrong with templates, suites, data files.

    Each problem comes with file, line, field and fix. For a data file the data report is printed, which loads the encoder.
    """
    problems: list[Problem] = []
    for path in _files(paths):
        try:
            found = _check(path, using, names)
        except InputError as error:
            found = list(error.problems)
        if not found:
            say(f"{path}: fine")
        problems += found
    if problems:
        raise InputError(dict.fromkeys(problems))


def _files(paths: Sequence[Path]) -> list[Path]:
    """The paths with folders replaced by the templates and suites in them."""
    files: list[Path] = []
    for path in paths:
        files += sorted(p for p in path.rglob("*") if p.suffix in (".jinja", ".yaml", ".yml")) if path.is_dir() else [path]
    return files


def _check(path: Path, using: With, names: Columns) -> list[Problem]:
    if path.suffix == ".jinja":
        from ..prompt import lint

        return lint(path, folders=tuple(using.templates or ()), codec=_codec(using.model))
    if path.suffix in (".yaml", ".yml"):
        return _check_suite(path, using)
    return _check_rows(path, using, names)


def _check_suite(path: Path, using: With) -> list[Problem]:
    from ..evaluate import load_suite

    load_suite(path, templates=using.templates or (), plugins=using.plugins or ())
    return []


def _check_rows(path: Path, using: With, names: Columns) -> list[Problem]:
    from ..data import report
    from ..retrieve import load_encoder

    task = read_rows_as_task(path, names)
    codec = _codec(using.model)
    for line in report(task, load_encoder("minilm"), codec.count if codec else None).lines():
        say(line)
    return []


def _codec(model: str | None) -> PromptCodec | None:
    if model is None:
        return None
    from ..model import load_codec

    codec: PromptCodec = load_codec(model)
    return codec
