"""`icl import`: others' tasks and templates as ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, Problem
from .guard import guarded
from .options import AsJson, Quiet
from .output import be_quiet, say, say_json, tell

if TYPE_CHECKING:
    from ..prompt.importers import Imported, Refused

    Reader = Callable[[Sequence[Path]], tuple[list[Imported], list[Refused]]]

app = typer.Typer(help="Others' templates and tasks as suites and templates of icl.", no_args_is_help=True, rich_markup_mode=None)
Files = Annotated[list[Path], typer.Argument(metavar="FILE…", help="Their files, or folders that are searched for them.")]
To = Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where suites and templates go.")]
MOST_SHOWN = 20


@app.command("lm-eval")
@guarded
def lm_eval(files: Files, to: To = Path("imported"), as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Task files of lm-evaluation-harness (YAML): multiple choice and written answers. No code of theirs is run; what cannot be taken is listed with its reason."""
    from ..prompt.importers import lm_eval as reader

    _import(reader.read, _found(files, "*.yaml"), to, as_json, quiet)


@app.command()
@guarded
def promptsource(files: Files, to: To = Path("imported"), as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Templates of promptsource (templates.yaml), one suite for each. What cannot be taken is listed with its reason."""
    from ..prompt.importers import promptsource as reader

    _import(reader.read, _found(files, "templates.yaml"), to, as_json, quiet)


def _found(files: Sequence[Path], pattern: str) -> list[Path]:
    """The files, and those in the folders. Raises InputError for what is not there."""
    missing = [Problem("there is no such file or folder", "Check the path.", str(file)) for file in files if not file.exists()]
    if missing:
        raise InputError(missing)
    return [each for file in files for each in (sorted(file.rglob(pattern)) if file.is_dir() else [file])]


def _import(read: Reader, files: Sequence[Path], to: Path, as_json: bool, quiet: bool) -> None:
    from ..prompt.importers import reasons, write

    be_quiet(quiet)
    imported, refused = read(files)
    if not (imported or refused):
        fix = "Name task files, or a folder of them. Lists of tasks and groups, and files that others include, hold none."
        raise InputError(Problem("no task or template of others is here", fix, str(files[0]) if len(files) == 1 else None))
    paths = write(imported, to)
    if as_json:
        left_out = [{"name": each.name, "file": each.source, "reason": each.reason, "detail": each.detail} for each in refused]
        say_json({"suites": [str(path) for path in paths], "refused": left_out, "reasons": reasons(refused)})
        return
    for path in paths[:MOST_SHOWN]:
        say(str(path))
    if len(paths) > MOST_SHOWN:
        say(f"… and {len(paths) - MOST_SHOWN} more in {to}")
    tell(f"{len(imported)} taken, {len(refused)} not taken.")
    for reason, n in reasons(refused).items():
        names = [each.name for each in refused if each.reason == reason]
        tell(f"  {n} × {reason}: {', '.join(names[:3])}{', …' if n > 3 else ''}")
    if paths:
        tell(f"Next: icl validate {paths[0]}")
