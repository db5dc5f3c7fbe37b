"""F1 of each label, averaged over the labels with equal weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...plugins import Context, NoSettings
from ...values import Example, Prediction
from .accuracy import right_or_wrong

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = frozenset({"classify"})
Settings = NoSettings


class MacroF1:
    """Over the labels that occur among the items looked at, as target or as answer: `sklearn.metrics.f1_score(average="macro")`.

    A label that never occurs has no F1, so a resample without it is averaged over the labels it has.
    """

    bounds = (0.0, 1.0)

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64: 1 right, 0 wrong, nan not scored; what an item contributes depends on the others, see `aggregate`."""
        return right_or_wrong(predictions, examples)

    def aggregate(self, predictions: Sequence[Prediction], examples: Sequence[Example], samples: NDArray[np.int64]) -> NDArray[np.float64]:
        """samples: (r, m) positions of scored items. Returns (r,) float64."""
        import numpy as np

        names = [name for p, e in zip(predictions, examples, strict=True) for name in (e.target or "", p.answer or "")]
        labels, codes = np.unique(np.array(names, dtype=object), return_inverse=True)
        gold, answer = codes[0::2], codes[1::2]
        n_rows, n_labels = len(samples), len(labels)
        row = np.arange(n_rows)[:, None] * n_labels

        def count(codes: NDArray[np.int64], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
            flat = (row + codes[samples]).ravel()
            sampled = None if weights is None else weights[samples].ravel()
            return np.bincount(flat, sampled, minlength=n_rows * n_labels).reshape(n_rows, n_labels).astype(np.float64)

        hits = count(gold, (gold == answer).astype(np.float64))
        occurrences = count(gold) + count(answer)
        f1 = np.divide(2 * hits, occurrences, out=np.zeros_like(hits), where=occurrences > 0)
        value: NDArray[np.float64] = f1.sum(axis=1) / (occurrences > 0).sum(axis=1)
        return value


def build(settings: NoSettings, context: Context) -> MacroF1:
    return MacroF1()
