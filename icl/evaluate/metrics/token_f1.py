"""F1 of the words shared by answer and reference after the usual normalisation (SQuAD), best over the references."""

from __future__ import annotations

from ...plugins import Context
from ._answers import PerAnswer, best_of
from ._squad import Settings, after, f1

__all__ = ["KINDS", "Settings", "build"]

KINDS = frozenset({"answer"})


def build(settings: Settings, context: Context) -> PerAnswer:
    """Of the item's references the one that the answer shares most with counts."""
    return PerAnswer(best_of(after(settings, f1)))
