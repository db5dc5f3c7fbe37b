"""Expected calibration error: how far the stated probability of the answer is from how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ...values import Example, Prediction
from ..confidence import BINS, bin_of
from .accuracy import right_or_wrong

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = frozenset({"classify", "choose"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bins: int = Field(default=BINS, ge=1, le=1000, description="Number of bins of equal width over the probability of the answer.")


class ExpectedCalibrationError:
    """Guo et al. 2017, https://arxiv.org/abs/1706.04599, sec. 3: equal-width bins over [0, 1], bin b holds (b/n, (b+1)/n].

    Lower is better. An answer without probabilities (a model that only generates) is not scored.
    """

    bounds = (0.0, 1.0)
    higher_is_better = False

    def __init__(self, bins: int = BINS) -> None:
        self.bins = bins

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64: the probability of the answer, nan where there is none; the error itself comes from `aggregate`."""
        import numpy as np

        return np.array([np.nan if p.confidence is None else p.confidence for p in predictions], dtype=np.float64)

    def aggregate(self, predictions: Sequence[Prediction], examples: Sequence[Example], samples: NDArray[np.int64]) -> NDArray[np.float64]:
        """samples: (r, m) positions of scored items. Returns (r,) float64 in [0, 1]."""
        import numpy as np

        confidence = self(predictions, examples)
        gap = np.nan_to_num(right_or_wrong(predictions, examples) - confidence)
        at = bin_of(np.nan_to_num(confidence), self.bins)
        row = np.arange(len(samples))[:, None] * self.bins
        sums = np.bincount((row + at[samples]).ravel(), gap[samples].ravel(), minlength=len(samples) * self.bins)
        value: NDArray[np.float64] = np.abs(sums.reshape(len(samples), self.bins)).sum(axis=1) / samples.shape[1]
        return value


def build(settings: Settings, context: Context) -> ExpectedCalibrationError:
    return ExpectedCalibrationError(settings.bins)
