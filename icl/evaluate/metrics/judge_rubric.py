"""A language model's mark for each answer by a rubric, from 0 (the lowest mark) to 1 (the highest)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ..judging import RUBRIC, Judge
from ._judge import JUDGE, Judged, ModelName, Sentence

__all__ = ["KINDS", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: ModelName = Field(description=JUDGE)
    rubric: Sentence = Field(RUBRIC, description="What the marks mean.")
    top: int = Field(5, ge=2, le=9, description="The highest mark; the lowest is 1.")


def build(settings: Settings, context: Context) -> Judged:
    return Judged(settings.model, _values, rubric=settings.rubric, top=settings.top)


def _values(judge: Judge, items: Sequence[tuple[str, str, tuple[str, ...]]]) -> list[float]:
    return judge.mark([(task, answer) for task, answer, _ in items])
