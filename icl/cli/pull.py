"""`icl pull`: catalogue weights into the cache."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Quiet
from .output import be_quiet, say


def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="smollm2 or minilm; see: icl ls models.")],
    quiet: Quiet = False,
) -> None:
    """Fetch catalogue weights into the cache.

    Every file is checked by sha256; the folder is printed. Loading a model does it by itself.
    """
    from ..weights import fetch

    be_quiet(quiet)
    say(str(fetch(name)))
