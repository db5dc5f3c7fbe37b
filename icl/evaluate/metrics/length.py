"""Words per answer. It describes and ranks nobody; for a limit that answers must keep, see length_within."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ...values import Example
from ._answers import PerAnswer, words_of

__all__ = ["KINDS", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    unit: Literal["words", "characters"] = Field("words", description="What is counted.")


def build(settings: Settings, context: Context) -> PerAnswer:
    def value(answer: str, example: Example) -> float:
        return float(length_of(answer, settings.unit))

    return PerAnswer(value, bounds=None, ranked=False)


def length_of(text: str, unit: str) -> int:
    """Words, or characters without white space around the text."""
    return len(words_of(text)) if unit == "words" else len(text.strip())
