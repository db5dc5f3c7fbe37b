"""The command tree and the entry point."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from .. import __version__
from . import (
    compare,
    decide,
    doctor,
    export,
    harmful,
    importing,
    index,
    init,
    label_errors,
    ls,
    predict,
    prompt,
    pull,
    report,
    run,
    suggest,
    train,
    validate,
)
from .guard import FINE, INTERRUPTED, guarded
from .output import say

app = typer.Typer(
    name="icl",
    help="Prompt or fine-tune? Few-shot prompts from your labelled examples, judged beside cheap rivals.",
    epilog="Exit codes: 0 fine, 1 run-time error, 2 wrong usage or configuration, 3 a stated threshold was missed, "
    "4 finished but some items failed (3 wins over 4), 130 interrupted (can be resumed).",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"icl {__version__}")
        raise typer.Exit


@app.callback()
def icl(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    pass


COMMANDS: tuple[Callable[..., int | None], ...] = (
    init.init,
    run.run,
    decide.decide,
    compare.compare,
    report.report,
    prompt.prompt,
    ls.ls,
    validate.validate,
    export.export,
    predict.predict,
    pull.pull,
    doctor.doctor,
)
for command in COMMANDS:
    app.command(command.__name__)(guarded(command))
index.app.command("harmful")(guarded(harmful.harmful))
index.app.command("errors")(guarded(label_errors.errors))
index.app.command("suggest")(guarded(suggest.suggest))
app.add_typer(index.app, name="index")
app.add_typer(train.app, name="train")
app.add_typer(importing.app, name="import")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line on `args` (default: the program's own) and return the exit code."""
    try:
        app(args=list(sys.argv[1:] if args is None else args), prog_name="icl")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else FINE
    except KeyboardInterrupt:
        return INTERRUPTED
    return FINE
