"""`icl report`: finished runs again, from their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, Problem
from ..evaluate.results import PAGE
from ..files import write_text
from .guard import FINE
from .options import Plugins, Quiet
from .output import be_quiet, say, tell


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="The folder of a run; of several, to see them on one page.")],
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the page goes. [default: report.html, in the run's folder, or here for several runs]"),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write figures here, as SVG: reliability diagrams, and accuracy against coverage."),
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORMAT",
            help="Also write the run as csv, parquet, junit or lm-eval, or track it in mlflow or wandb; may be given several times.",
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Where exports go. [default: RUN/export]")] = None,
    plugins: Plugins = None,
    quiet: Quiet = False,
) -> int:
    """Show runs again: their tables, and one HTML page with curves, costs and every item; draw figures; write the formats of others."""
    from ..report import figures as drawn
    from ..suite import open_run

    be_quiet(quiet)
    if len(runs) > 1 and (figures is not None or export):
        fix = "Give the runs one by one."
        raise InputError(Problem("figures and exports are of one run", fix, field="--figures" if figures is not None else "--export"))
    found = [open_run(run, unfinished=figures is None and not export, plugins=plugins or ()) for run in runs]
    for each in found:
        say("\n".join([*([f"{each.folder}", ""] if len(found) > 1 else []), each.table()]))
    page = html or (found[0].folder / PAGE if len(found) == 1 else Path(PAGE))
    tell(f"Page: {found[0].to_html(page, *found[1:])}")
    if figures is not None:
        made = drawn(found[0].document)
        for name, svg in made.items():
            write_text(figures / name, svg)
        tell(f"{len(made)} figures in {figures}" if made else "no figures: the answers of this run have no probabilities")
    for name in export or ():
        from ..report.export import export_run

        for file in export_run(found[0].folder, name, to, plugins=plugins or ()):
            tell(f"Export: {file}")
    return FINE
