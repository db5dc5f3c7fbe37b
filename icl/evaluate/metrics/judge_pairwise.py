"""A language model's verdict whether an answer is better than the reference, asked in both orders; a verdict that turns with the order is a tie."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ..judging import CRITERION, Judge
from ._judge import JUDGE, Judged, ModelName, Sentence

__all__ = ["KINDS", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: ModelName = Field(description=JUDGE)
    criterion: Sentence = Field(CRITERION, description='What decides; it goes on from "Which answer".')


def build(settings: Settings, context: Context) -> Judged:
    """1 better than the item's first reference, 0 worse, 0.5 a tie. A judge is an opinion: see `judging.agreement`."""
    return Judged(settings.model, _values, criterion=settings.criterion)


def _values(judge: Judge, items: Sequence[tuple[str, str, tuple[str, ...]]]) -> list[float]:
    return [preference.value for preference in judge.compare([(task, answer, references[0]) for task, answer, references in items])]
