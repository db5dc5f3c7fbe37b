"""Share of the answers that are a reference letter for letter, but for what is told to be left out: the exact match of evaluation harnesses."""

from __future__ import annotations

import string
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ... import patterns
from ...plugins import Context
from ...values import Example
from ._answers import PerAnswer, best_of

__all__ = ["KINDS", "Settings", "build"]

KINDS = frozenset({"answer"})
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_DIGITS = str.maketrans("", "", string.digits)


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    remove: list[str] = Field(default_factory=list, description="Regular expressions; what they match is taken out first, in this order.")
    ignore_case: bool = Field(False, description="Whether letters are compared in lower case.")
    ignore_punctuation: bool = Field(False, description="Whether ASCII punctuation is taken out.")
    ignore_numbers: bool = Field(False, description="Whether the digits 0 to 9 are taken out.")

    @field_validator("remove")
    @classmethod
    def _compiles(cls, value: list[str]) -> list[str]:
        for expression in value:
            if problem := patterns.problem(expression):
                raise ValueError(f"{expression!r} is {problem}")
        return value


def build(settings: Settings, context: Context) -> PerAnswer:
    """1 where the answer equals one of the item's references, else 0, without the white space at both ends. An item on which an expression
    does not end in time is not scored."""
    plain = normaliser(settings)
    best = best_of(lambda answer, reference: float(plain(answer) == plain(reference)))

    def value(answer: str, example: Example) -> float:
        try:
            return best(answer, example)
        except patterns.TooSlow:
            return float("nan")

    return PerAnswer(value)


def normaliser(settings: Settings) -> Callable[[str], str]:
    """What is compared: as `exact_match` of Hugging Face's evaluate, and of lm-evaluation-harness, makes it. Raises patterns.TooSlow."""
    compiled = [patterns.compiled(expression) for expression in settings.remove]

    def plain(text: str) -> str:
        text = text.strip()
        for pattern in compiled:
            text = patterns.without(pattern, text)
        text = text.lower() if settings.ignore_case else text
        text = text.translate(_PUNCTUATION) if settings.ignore_punctuation else text
        return (text.translate(_DIGITS) if settings.ignore_numbers else text).strip()

    return plain
