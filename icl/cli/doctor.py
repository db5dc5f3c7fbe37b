"""`icl doctor`: what this machine and a model can do."""

from __future__ import annotations

from typing import Annotated

import typer

from .output import say


def doctor(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A catalogue name, a folder, a .gguf file or a hub id.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda:1, several (cuda:0,cuda:1), all, or auto: one model over all.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; 16 bits are compared with 32.")] = None,
) -> None:
    """Say what this machine, and a model, can do.

    With a model: load it, and check that its scores do not depend on the batch.
    """
    from ..model import doctor as examine

    for line in examine(model, device=device, dtype=dtype):
        say(line)
    if model is None:
        from ..evaluate.sandbox import missing

        why = missing()
        say(f"programs that a model wrote: {'can be run in a sandbox' if why is None else f'no sandbox here, so they are not run: {why}'}")
