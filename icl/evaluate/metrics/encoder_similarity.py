"""Cosine of answer and best reference as a sentence encoder sees them (-1 to 1). It says how alike two texts are, not whether both are true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ...values import Example, Prediction
from ._answers import references_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...protocols import Encoder

__all__ = ["KINDS", "EncoderSimilarity", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    encoder: str = Field("minilm", description="The sentence encoder; figures of different encoders cannot be compared.")


class EncoderSimilarity:
    bounds = (-1.0, 1.0)

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64 in [-1, 1], nan where there is no answer. All texts are encoded in one call, each once."""
        import numpy as np

        pairs = [(p.answer, references_of(e)) for p, e in zip(predictions, examples, strict=True)]
        texts = list(dict.fromkeys(text for answer, refs in pairs if answer is not None for text in (answer, *refs)))
        vectors = dict(zip(texts, self.encoder.encode(texts), strict=True)) if texts else {}

        def value(answer: str | None, references: tuple[str, ...]) -> float:
            if answer is None or not references:
                return float("nan")
            # Rounding may leave a text's cosine with itself a hair above 1.
            return min(1.0, max(float(vectors[answer] @ vectors[reference]) for reference in references))

        return np.array([value(*pair) for pair in pairs], dtype=np.float64)

    def signature(self, examples: Sequence[Example]) -> str:
        """Which encoder it was."""
        return f"{self.encoder.name} {self.encoder.fingerprint}"


def build(settings: Settings, context: Context) -> EncoderSimilarity:
    """Raises InputError if there is no such encoder."""
    from ...retrieve import load_encoder

    return EncoderSimilarity(load_encoder(settings.encoder))
