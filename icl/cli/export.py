"""`icl export`: the winner of a run as a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import say, tell


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the predictor goes.")],
    method: Annotated[str | None, typer.Option(metavar="NAME", help="Which method; the best of the run if left out.")] = None,
) -> None:
    """Ship a method of a run as a folder of its own.

    `icl predict` and `icl.load` take it.
    """
    from ..ship import export as ship

    folder = ship(run, to, method)
    say(str(folder))
    tell(f"Next: icl predict {folder} FILE")
