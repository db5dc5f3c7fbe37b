"""BLEU of all answers together, 0 to 100, by sacrebleu; its signature stands in the results. Needs the extra `answers`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ._sacrebleu import EXTRA, PACKAGE, CorpusMetric

__all__ = ["EXTRA", "KINDS", "PACKAGE", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = Field("13a", description="How sacrebleu splits texts into words.")
    lowercase: bool = Field(False, description="Whether upper and lower case are the same.")
    smooth: Literal["exp", "floor", "add-k", "none"] = Field("exp", description="What is done about n-grams without a match.")


def build(settings: Settings, context: Context) -> CorpusMetric:
    """Papineni et al. 2002, https://aclanthology.org/P02-1040. Items alone are scored with the effective order, as sacrebleu advises."""
    return CorpusMetric(
        "BLEU",
        sentence={"effective_order": True},
        tokenize=settings.tokenize,
        lowercase=settings.lowercase,
        smooth_method=settings.smooth,
        force=True,
    )
