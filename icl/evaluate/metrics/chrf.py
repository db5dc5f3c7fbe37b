"""chrF of all answers together, 0 to 100, by sacrebleu (character n-grams; chrF++ with word_order 2). Needs the extra `answers`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ._sacrebleu import EXTRA, PACKAGE, CorpusMetric

__all__ = ["EXTRA", "KINDS", "PACKAGE", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    char_order: int = Field(6, ge=1, le=20, description="Longest run of characters.")
    word_order: int = Field(0, ge=0, le=10, description="Longest run of words; 2 is chrF++.")
    beta: int = Field(2, ge=1, le=10, description="How much more recall counts than precision.")
    lowercase: bool = Field(False, description="Whether upper and lower case are the same.")


def build(settings: Settings, context: Context) -> CorpusMetric:
    """Popović 2015, https://aclanthology.org/W15-3049, and 2017, https://aclanthology.org/W17-4770."""
    return CorpusMetric("CHRF", **settings.model_dump())
