"""Share of one label's items that are answered with it, such as what is out of scope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ...values import Example, Prediction
from .accuracy import right_or_wrong

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = frozenset({"classify"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    label: str = Field(description="The label whose items are looked at.")


class Recall:
    """Of the items with this label, those answered with it. Items of other labels do not matter; without any there is no value."""

    bounds = (0.0, 1.0)

    def __init__(self, label: str) -> None:
        self.label = label

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64: 1 right, 0 wrong, nan not scored; which of them count is said by `aggregate`."""
        return right_or_wrong(predictions, examples)

    def aggregate(self, predictions: Sequence[Prediction], examples: Sequence[Example], samples: NDArray[np.int64]) -> NDArray[np.float64]:
        """samples: (r, m) positions of scored items. Returns (r,) float64, nan for a row without the label."""
        import numpy as np

        mine = np.array([example.target == self.label for example in examples])
        right = np.nan_to_num(right_or_wrong(predictions, examples)) * mine
        counts = mine[samples].sum(axis=1)
        value: NDArray[np.float64] = np.divide(right[samples].sum(axis=1), counts, out=np.full(len(samples), np.nan), where=counts > 0)
        return value


def build(settings: Settings, context: Context) -> Recall:
    return Recall(settings.label)
