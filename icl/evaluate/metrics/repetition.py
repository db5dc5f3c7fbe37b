"""Share of an answer's runs of n words that stood in it before (0: nothing is said twice). Lower is better."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ...values import Example
from ._answers import PerAnswer, ngrams, words_of

__all__ = ["KINDS", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: int = Field(4, ge=1, le=20, description="Words in a run.")


def build(settings: Settings, context: Context) -> PerAnswer:
    """Welleck et al. 2020, https://arxiv.org/abs/1908.04319, sec. 6 (seq-rep-n), of words. An answer shorter than n repeats nothing."""

    def value(answer: str, example: Example) -> float:
        runs = ngrams(words_of(answer), settings.n)
        return 1 - len(set(runs)) / len(runs) if runs else 0.0

    return PerAnswer(value, higher_is_better=False)
