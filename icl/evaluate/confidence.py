"""How far stated probabilities can be trusted: the bins of a reliability diagram, and the curve of accuracy against coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..values import Example, Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS, POINTS = 15, 20


class Bin(NamedTuple):
    """The answers whose confidence lies in one part of [0, 1]."""

    confidence: float
    """Their mean confidence."""
    accuracy: float
    n: int


class Point(NamedTuple):
    """What is left if only the answers at least as sure as the threshold are given."""

    coverage: float
    """The share of answers given."""
    accuracy: float
    """The share of those that are right."""
    threshold: float


def stated(predictions: Sequence[Prediction], examples: Sequence[Example]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(m,) confidences and (m,) whether the answer is right, of the m predictions that state a probability for their answer.

    A withheld answer counts with its probability, as if it had been given: so both say the same whether a method abstains or not.
    """
    import numpy as np

    found = []
    for prediction, example in zip(predictions, examples, strict=True):
        answer = prediction.withheld if prediction.withheld is not None else prediction.answer
        share = None if answer is None or prediction.probabilities is None else prediction.probabilities.get(answer)
        if share is not None:
            found.append((share, answer == example.target))
    return np.array([c for c, _ in found], dtype=np.float64), np.array([r for _, r in found], dtype=np.bool_)


def bin_of(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """(n,) confidence -> (n,) bin of equal width: bin b holds (b/bins, (b+1)/bins], the first one 0 too."""
    import numpy as np

    # A probability may exceed 1 by rounding.
    result: NDArray[np.int64] = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return result


def reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> list[Bin]:
    """The bins that hold any answer, in order. Their gaps, weighted by n, add up to the metric `ece` with as many bins."""
    import numpy as np

    at = bin_of(confidence, bins)
    counts = np.bincount(at, minlength=bins)
    sums, hits = (np.bincount(at, values, minlength=bins) for values in (confidence, right))
    return [Bin(float(sums[b] / n), float(hits[b] / n), int(n)) for b, n in enumerate(counts) if n]


def coverage_curve(confidence: NDArray[np.float64], right: NDArray[np.bool_], points: int = POINTS) -> list[Point]:
    """At most `points` of the curve, from few answers to all, about evenly spaced in coverage. Equally sure answers go together."""
    import numpy as np

    n = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    sorted_, hits = confidence[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(sorted_[1:] != sorted_[:-1], n > 0))  # the last of each group of equally sure answers
    wanted = np.ceil(np.arange(1, points + 1) * n / points).astype(np.int64)
    chosen: list[int] = np.unique(np.searchsorted(last + 1, wanted)).tolist() if n else []
    return [Point(float((last[g] + 1) / n), float(hits[last[g]] / (last[g] + 1)), float(sorted_[last[g]])) for g in chosen]


def confidence_record(
    cell: Mapping[str, Any], runs: Sequence[Sequence[Prediction]], examples: Sequence[Example], bins: int
) -> dict[str, Any] | None:
    """A method at a label budget, the answers of all its seeds together; None if none of them states a probability.

    bins: [confidence, accuracy, n] each; curve: [coverage, accuracy, threshold] each; n: answers with a probability.
    """
    confidence, right = stated([p for run in runs for p in run], [e for _ in runs for e in examples])
    if not len(confidence):
        return None
    return {
        **{key: cell[key] for key in ("model", "task", "method", "budget")},
        "n": len(confidence),
        "n_bins": bins,
        "bins": [list(each) for each in reliability(confidence, right, bins)],
        "curve": [list(each) for each in coverage_curve(confidence, right)],
    }
