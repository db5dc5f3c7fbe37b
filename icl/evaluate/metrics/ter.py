"""Translation edit rate of all answers together, in per cent of the references' words, by sacrebleu. Needs the extra `answers`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ._sacrebleu import EXTRA, PACKAGE, CorpusMetric

__all__ = ["EXTRA", "KINDS", "PACKAGE", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    normalized: bool = Field(False, description="Whether punctuation is split off and markup read first.")
    no_punct: bool = Field(False, description="Whether punctuation is left out.")
    asian_support: bool = Field(False, description="Whether Chinese and Japanese characters are words of their own (with `normalized`).")
    case_sensitive: bool = Field(False, description="Whether upper and lower case differ.")


def build(settings: Settings, context: Context) -> CorpusMetric:
    """Snover et al. 2006, https://aclanthology.org/2006.amta-papers.25. Lower is better; above 100 where there is more to edit than words."""
    return CorpusMetric("TER", higher_is_better=False, **settings.model_dump())
