"""Share of the words or phrases that an answer must contain and does: those of a field of the item, or a list that is the same for all."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ... import patterns
from ...plugins import Context
from ...values import Example, field_text
from ._answers import PerAnswer, words_of

__all__ = ["KINDS", "Settings", "build", "fields_of"]

KINDS = frozenset({"answer"})
_SEPARATORS = re.compile(r"[,;\n]+")


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    field: str | None = Field(None, description="The input field that names what is required.")
    words: list[str] = Field(default_factory=list, description="Words or phrases that every answer must contain.")
    pattern: str | None = Field(
        None, description="Regular expression with one group that finds what is required in the field; default: split at commas and lines."
    )
    inflected: bool = Field(False, description="Whether a word also counts where it begins a longer one (run, running).")

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        if value is not None and (problem := patterns.problem(value, groups=1)):
            raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _something(self) -> Settings:
        if self.field is None and not self.words:
            raise ValueError("give 'field' or 'words': there is nothing to look for")
        if self.pattern is not None and self.field is None:
            raise ValueError("'pattern' reads a field: give 'field' too")
        return self


def fields_of(settings: Settings) -> list[str]:
    """The input fields that an item must have."""
    return [] if settings.field is None else [settings.field]


def build(settings: Settings, context: Context) -> PerAnswer:
    """An item of which nothing is required is not scored, nor is one whose field keeps the pattern busy for too long. Compared word by
    word, case-folded, punctuation left out."""

    def value(answer: str, example: Example) -> float:
        try:
            required = required_of(settings, example)
        except patterns.TooSlow:
            return float("nan")
        words = words_of(answer)
        found = [stands_in(phrase, words, settings.inflected) for phrase in required]
        return sum(found) / len(found) if found else float("nan")

    return PerAnswer(value)


def required_of(settings: Settings, example: Example) -> list[list[str]]:
    """The phrases required of an item's answer, each as words; every phrase once. Raises patterns.TooSlow."""
    phrases = list(settings.words)
    if settings.field is not None:
        text = field_text(example.fields.get(settings.field, ""))
        phrases += patterns.find_all(patterns.compiled(settings.pattern), text) if settings.pattern is not None else _SEPARATORS.split(text)
    return [list(words) for words in dict.fromkeys(tuple(words_of(phrase)) for phrase in phrases) if words]


def stands_in(phrase: list[str], words: list[str], inflected: bool) -> bool:
    """Whether the words of a phrase follow each other somewhere; of an inflected one the last may go on."""
    n = len(phrase)
    for at in range(len(words) - n + 1):
        here = words[at : at + n]
        if here == phrase or (inflected and here[:-1] == phrase[:-1] and here[-1].startswith(phrase[-1])):
            return True
    return False
