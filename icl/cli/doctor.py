"""`icl doctor`: what this machine and a model can do."""

from __future__ import annotations

from typing import Annotated

import typer

from .output import say


def doctor(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A catalogue name, a folder, a .gguf file or a hub id.")] = None,
) -> None:
    """Say what this machine, and a model, can do.

    With a model: load it, and check that its scores do not depend on the batch.
    """
    from ..model import doctor as examine

    for line in examine(model):
        say(line)
