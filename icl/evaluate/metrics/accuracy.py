"""Share of the items answered with their label (or choice)."""

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


class Accuracy:
    bounds = (0.0, 1.0)

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64: 1 right, 0 wrong, nan not scored."""
        return right_or_wrong(predictions, examples)


def right_or_wrong(predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
    """(n,) float64: 1 where the answer is the target, 0 where it is not, nan where there is no answer."""
    import numpy as np

    pairs = zip(predictions, examples, strict=True)
    return np.array([np.nan if p.answer is None else float(p.answer == e.target) for p, e in pairs], dtype=np.float64)


def build(settings: NoSettings, context: Context) -> Accuracy:
    return Accuracy()
