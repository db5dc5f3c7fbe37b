"""Share of the answers that keep to a length: at least so many words, at most so many."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...plugins import Context
from ...values import Example
from ._answers import PerAnswer
from .length import length_of

__all__ = ["KINDS", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    least: int = Field(0, ge=0, description="The shortest length that is right.")
    most: int | None = Field(None, ge=0, description="The longest length that is right; default: no limit.")
    unit: Literal["words", "characters"] = Field("words", description="What is counted.")

    @model_validator(mode="after")
    def _a_limit(self) -> Settings:
        if self.most is not None and self.most < self.least:
            raise ValueError("'most' is less than 'least': no text is both")
        if self.most is None and not self.least:
            raise ValueError("give 'least', 'most' or both")
        return self


def build(settings: Settings, context: Context) -> PerAnswer:
    """1 where the answer's length is within the limits, both included, else 0."""

    def value(answer: str, example: Example) -> float:
        n = length_of(answer, settings.unit)
        return float(settings.least <= n and (settings.most is None or n <= settings.most))

    return PerAnswer(value)
