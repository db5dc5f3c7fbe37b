"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Templates = Annotated[
    list[Path] | None, typer.Option("--templates", metavar="FOLDER", help="A folder with your own templates; may be given several times.")
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugins", metavar="FOLDER", help="A folder with your own selectors, metrics, …, in Python; may be given several times."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
