"""ROUGE by rouge-score, Google's own implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ...values import Example
from ._answers import PerAnswer, need, references_of

PACKAGE, EXTRA = "rouge_score", "answers"


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    stemmer: bool = Field(True, description="Whether words are compared by their stems (Porter); for English.")
    measure: Literal["fmeasure", "precision", "recall"] = Field("fmeasure", description="What is reported of the best reference.")


def rouge(kind: str, settings: Settings) -> PerAnswer:
    """The reference with the best F counts, as in rouge-score's `score_multi` (Lin 2004, https://aclanthology.org/W04-1013).

    kind: rouge1 … rouge9, rougeL, or rougeLsum, where sentences stand on lines of their own. Raises MissingExtraError.
    """
    need(PACKAGE, "ROUGE")
    return PerAnswer(_scorer(kind, settings))


def _scorer(kind: str, settings: Settings) -> Callable[[str, Example], float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], use_stemmer=settings.stemmer)
    known: dict[tuple[str, tuple[str, ...]], float] = {}

    def value(answer: str, example: Example) -> float:
        references = references_of(example)
        if not references:
            return float("nan")
        key = (answer, references)
        if key not in known:
            known[key] = float(getattr(scorer.score_multi(list(references), answer)[kind], settings.measure))
        return known[key]

    return value
