"""F1 of the words shared by answer and reference after the usual normalisation (SQuAD), best over the references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...plugins import Context, NoSettings
from ...values import Example, Prediction
from ._squad import best_over_references, f1

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = frozenset({"answer"})
Settings = NoSettings


class TokenF1:
    bounds = (0.0, 1.0)

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64 in [0, 1], nan where there is no answer."""
        return best_over_references(f1, predictions, examples)


def build(settings: NoSettings, context: Context) -> TokenF1:
    return TokenF1()
