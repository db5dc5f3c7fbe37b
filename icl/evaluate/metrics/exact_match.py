"""Share of the answers equal to one of the references after the usual normalisation (SQuAD)."""

from __future__ import annotations

from ...plugins import Context
from ._answers import PerAnswer, best_of
from ._squad import Settings, after, exact

__all__ = ["KINDS", "Settings", "build"]

KINDS = frozenset({"answer"})


def build(settings: Settings, context: Context) -> PerAnswer:
    """1 where the answer equals one of the item's references, else 0."""
    return PerAnswer(best_of(after(settings, exact)))
