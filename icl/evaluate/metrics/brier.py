"""Squared distance of the stated probabilities from what was right (Brier score, 0 to 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...plugins import Context, NoSettings
from ...values import Example, Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = frozenset({"classify", "choose"})
Settings = NoSettings


class Brier:
    """Brier 1950: the sum over the labels of (p - [label is right])². Lower is better; 2 for the certainty of a wrong one.

    An answer without probabilities (a model that only generates) is not scored.
    """

    bounds = (0.0, 2.0)
    higher_is_better = False

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64 in [0, 2], nan where there are no probabilities."""
        import numpy as np

        return np.array([_distance(p, e) for p, e in zip(predictions, examples, strict=True)], dtype=np.float64)


def _distance(prediction: Prediction, example: Example) -> float:
    shares = prediction.probabilities
    if prediction.answer is None or shares is None:
        return float("nan")
    # A right label that is no candidate had the probability 0.
    missed = 0.0 if example.target in shares else 1.0
    return missed + sum((p - (label == example.target)) ** 2 for label, p in shares.items())


def build(settings: NoSettings, context: Context) -> Brier:
    return Brier()
