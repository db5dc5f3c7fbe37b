"""ROUGE-Lsum, the longest common subsequence line by line with the best reference, by rouge-score. Needs the extra `answers`."""

from __future__ import annotations

from ...plugins import Context
from ._answers import PerAnswer
from ._rouge import EXTRA, PACKAGE, Settings, rouge

__all__ = ["EXTRA", "KINDS", "PACKAGE", "Settings", "build"]

KINDS = frozenset({"answer"})


def build(settings: Settings, context: Context) -> PerAnswer:
    return rouge("rougeLsum", settings)
