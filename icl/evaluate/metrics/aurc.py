"""Area under the risk-coverage curve: the error left if only the surest answers are given, averaged over all shares of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...plugins import Context, NoSettings
from ...values import Example, Prediction
from .accuracy import right_or_wrong

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = frozenset({"classify", "choose"})
Settings = NoSettings


class AreaUnderRiskCoverage:
    """Geifman et al. 2019, https://arxiv.org/abs/1805.08206, sec. 2: the mean over k of the error among the k surest answers.

    How sure: the probability of the answer. Lower is better; equal to the error rate where probabilities say nothing. Equally sure
    answers stand in no order, so each takes the mean of its group's errors: the value does not depend on the order of the items.
    An answer without probabilities (a model that only generates) is not scored.
    """

    bounds = (0.0, 1.0)
    higher_is_better = False

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64: the probability of the answer, nan where there is none; the area comes from `aggregate`."""
        import numpy as np

        return np.array([np.nan if p.confidence is None else p.confidence for p in predictions], dtype=np.float64)

    def aggregate(self, predictions: Sequence[Prediction], examples: Sequence[Example], samples: NDArray[np.int64]) -> NDArray[np.float64]:
        """samples: (r, m) positions of scored items. Returns (r,) float64 in [0, 1]."""
        import numpy as np

        confidence = self(predictions, examples)
        wrong = np.nan_to_num(1 - right_or_wrong(predictions, examples))
        places = np.arange(1, samples.shape[1] + 1)
        areas = []
        for row in samples:
            _, group = np.unique(-confidence[row], return_inverse=True)
            sizes = np.bincount(group)
            shared = np.bincount(group, wrong[row]) / sizes
            areas.append(float((np.cumsum(np.repeat(shared, sizes)) / places).mean()))
        return np.array(areas)


def build(settings: NoSettings, context: Context) -> AreaUnderRiskCoverage:
    return AreaUnderRiskCoverage()
