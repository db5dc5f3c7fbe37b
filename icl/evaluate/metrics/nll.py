"""Mean negative logarithm of the probability given to the right label, in nats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...plugins import Context, NoSettings
from ...values import Example, Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = frozenset({"classify", "choose"})
Settings = NoSettings
LEAST = 1e-12
"""A right label of probability 0 would make every other item invisible in the mean."""


class NegativeLogLikelihood:
    """Lower is better; log(n_labels) for one who knows nothing. Probabilities below 1e-12 count as 1e-12, as a label without one does.

    An answer without probabilities (a model that only generates) is not scored.
    """

    bounds = (0.0, -math.log(LEAST))
    higher_is_better = False

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64 in nats, nan where there are no probabilities."""
        import numpy as np

        return np.array([_loss(p, e) for p, e in zip(predictions, examples, strict=True)], dtype=np.float64)


def _loss(prediction: Prediction, example: Example) -> float:
    if prediction.answer is None or prediction.probabilities is None:
        return float("nan")
    return -math.log(min(1.0, max(prediction.probabilities.get(example.target or "", 0.0), LEAST)))


def build(settings: NoSettings, context: Context) -> NegativeLogLikelihood:
    return NegativeLogLikelihood()
