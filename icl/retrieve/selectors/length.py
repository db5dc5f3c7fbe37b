"""Takes out rows whose text is too long or too short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from ...errors import InputError, Problem
from ...plugins import Context
from ...protocols import Selector
from ...values import Example, embedded_text
from ..filters import Filter
from ._common import StageSettings


class Settings(StageSettings):
    at_most: int | None = Field(None, ge=0, description="Longest text that stays.")
    at_least: int = Field(0, ge=0, description="Shortest text that stays.")
    unit: Literal["words", "characters", "tokens"] = Field("words", description="What is counted; tokens are those of the language model.")


def build(settings: Settings, context: Context) -> Selector:
    """The length is that of the input fields, joined as they are embedded; words are what stands between white space."""
    measure = _measure(settings.unit, context)

    def why(example: Example, key: Any) -> str | None:
        length = measure(embedded_text(example.fields))
        if settings.at_most is not None and length > settings.at_most:
            return f"more than {settings.at_most} {settings.unit}"
        return f"fewer than {settings.at_least} {settings.unit}" if length < settings.at_least else None

    return Filter(context.pool, why)


def _measure(unit: str, context: Context) -> Callable[[str], int]:
    if unit == "words":
        return lambda text: len(text.split())
    if unit == "characters":
        return len
    if context.count_tokens is None:
        raise InputError(Problem("nothing counts tokens here", "Give a model or a tokenizer, or take another unit.", field="length.unit"))
    return context.count_tokens
