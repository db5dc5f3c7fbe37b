"""`icl report`: a finished run again, from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..files import write_text
from .guard import FINE
from .options import Plugins, Quiet
from .output import be_quiet, say, tell


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    figures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write figures here, as SVG: reliability diagrams, and accuracy against coverage."),
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(metavar="FORMAT", help="Also write the run as csv, parquet, junit or lm-eval; may be given several times."),
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="FOLDER", help="Where exports go. [default: RUN/export]")] = None,
    plugins: Plugins = None,
    quiet: Quiet = False,
) -> int:
    """Show a run's tables again, draw its figures, and write it in the formats of others."""
    from ..report import figures as drawn
    from ..suite import open_run

    be_quiet(quiet)
    found = open_run(run)
    say(found.table())
    if figures is not None:
        made = drawn(found.document)
        for name, svg in made.items():
            write_text(figures / name, svg)
        tell(f"{len(made)} figures in {figures}" if made else "no figures: the answers of this run have no probabilities")
    for name in export or ():
        from ..report.export import export_run

        for file in export_run(found.folder, name, to, plugins=plugins or ()):
            tell(f"Export: {file}")
    return FINE
