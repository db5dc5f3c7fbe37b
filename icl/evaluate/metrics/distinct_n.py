"""Different runs of n words in all answers together, as a share of all runs: how varied a method writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ...values import Example, Prediction
from ._answers import ngrams, words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["KINDS", "DistinctN", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: int = Field(2, ge=1, le=20, description="Words in a run.")


class DistinctN:
    """Li et al. 2016, https://arxiv.org/abs/1510.03055, sec. 5. It falls with the length of the texts: compare methods on the same items.

    A resample holds some items twice, which lowers it; the interval is moved by what resampling takes away.
    """

    bounds = (0.0, 1.0)

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64: the share within each answer, nan where there is none or it is too short; the metric comes from `aggregate`."""
        import numpy as np

        runs = [self._runs(p) for p in predictions]
        return np.array([len(set(found)) / len(found) if found else np.nan for found in runs], dtype=np.float64)

    def aggregate(self, predictions: Sequence[Prediction], examples: Sequence[Example], samples: NDArray[np.int64]) -> NDArray[np.float64]:
        """samples: (r, m) positions of scored items. Returns (r,) float64 in [0, 1]."""
        import numpy as np

        places: dict[tuple[str, ...], int] = {}
        coded = [np.array([places.setdefault(run, len(places)) for run in self._runs(p)], dtype=np.int64) for p in predictions]
        sizes = np.array([len(each) for each in coded])
        own = [np.unique(each) for each in coded]
        values = []
        for row in samples:
            seen = np.zeros(len(places), dtype=bool)
            for position in np.unique(row):
                seen[own[position]] = True
            values.append(seen.sum() / sizes[row].sum())
        return np.array(values, dtype=np.float64)

    def _runs(self, prediction: Prediction) -> list[tuple[str, ...]]:
        return [] if prediction.answer is None else ngrams(words_of(prediction.answer), self.n)


def build(settings: Settings, context: Context) -> DistinctN:
    return DistinctN(settings.n)
