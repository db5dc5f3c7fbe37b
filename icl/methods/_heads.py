"""What decides on sentence embeddings: a linear head, one in the features of a kernel, or neighbours. Arrays only, so it is saved as such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HeadKind: TypeAlias = Literal["logistic", "kernel", "knn"]
CENTRES = 512
"""Rows that the kernel's features are built on, at most: training stays linear in the pool."""
GAMMA = 1.0
"""Of the kernel exp(-γ‖x - y‖²): on unit vectors it falls from 1 for equal texts to e⁻² for unrelated ones."""
NEIGHBOURS = 8
SMALLEST_WEIGHT = 1e-6


@dataclass(frozen=True)
class Head:
    """A fitted head over `n_labels` labels."""

    kind: HeadKind
    n_labels: int
    arrays: Mapping[str, NDArray[Any]]

    def shares(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, n_labels), rows that add up to 1, from unit vectors (n, d). The same for any number of rows."""
        import numpy as np

        from ..readout import probabilities

        if self.kind == "knn":
            return self._votes(vectors)
        features = vectors.astype(np.float64)
        if self.kind == "kernel":
            features = _features(features, self.arrays["centres"], self.arrays["basis"])
        # Not `@`: einsum adds in the same order for any number of rows, so that a prediction does not depend on its batch.
        logits: NDArray[np.float64] = np.einsum("nd,ld->nl", features, self.arrays["weights"]) + self.arrays["bias"]
        return probabilities(logits)

    def _votes(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """The nearest rows' labels, each with its cosine."""
        import numpy as np

        from ..retrieve.nearest import nearest

        rows, targets = self.arrays["vectors"].astype(np.float32, copy=False), self.arrays["targets"]
        result = np.zeros((len(vectors), self.n_labels))
        for row, positions, scores in zip(result, *nearest(vectors, rows, NEIGHBOURS), strict=True):
            np.add.at(row, targets[positions], np.maximum(scores, SMALLEST_WEIGHT))
        shares: NDArray[np.float64] = result / result.sum(axis=1, keepdims=True)
        return shares


def fit_head(kind: HeadKind, vectors: NDArray[np.float32], targets: Sequence[int], n_labels: int, c: float = 10.0, seed: int = 0) -> Head:
    """A head for unit vectors (n, d) and the positions of their labels.

    logistic: multinomial logistic regression. kernel: the same in Nyström features of a Gaussian kernel (Williams and Seeger 2001,
    "Using the Nyström Method to Speed Up Kernel Machines"), on at most 512 rows drawn with the seed. knn: the 8 nearest vote, weighted by
    their cosine. c: inverse strength of the L2 penalty of the first two. With one label there is nothing to learn.
    """
    import numpy as np

    if kind == "knn":
        return Head(kind, n_labels, {"vectors": vectors.astype(np.float32), "targets": np.asarray(targets, dtype=np.int64)})
    features, more = vectors.astype(np.float64), {}
    if kind == "kernel":
        centres, basis = _nystroem(features, seed)
        features, more = _features(features, centres, basis), {"centres": centres, "basis": basis}
    weights, bias = _logistic(features, targets, n_labels, c)
    # The order of an array in memory decides the order of sums: as it is loaded.
    return Head(kind, n_labels, {name: np.ascontiguousarray(array) for name, array in {"weights": weights, "bias": bias, **more}.items()})


def fit_soft_head(
    kind: HeadKind, vectors: NDArray[np.float32], shares: NDArray[np.float64], c: float = 10.0, seed: int = 0, unseen: float = -30.0
) -> Head:
    """As `fit_head`, from probabilities (n, n_labels) instead of labels: each row counts for every label by its probability, those below
    `SMALLEST_SHARE` left out. Neighbours learn the most likely label. unseen: the logit of a label that no row has any share of."""
    import numpy as np

    n_labels = shares.shape[1]
    if kind == "knn":
        return fit_head(kind, vectors, shares.argmax(axis=1).tolist(), n_labels)
    features, more = vectors.astype(np.float64), {}
    if kind == "kernel":
        centres, basis = _nystroem(features, seed)
        features, more = _features(features, centres, basis), {"centres": centres, "basis": basis}
    kept = np.where(shares >= SMALLEST_SHARE, shares, 0.0)
    kept /= kept.sum(axis=1, keepdims=True)
    rows, labels = np.nonzero(kept)
    seen = np.unique(labels)
    weights, bias = np.zeros((n_labels, features.shape[1])), np.full(n_labels, unseen)
    part = _logistic(features[rows], np.searchsorted(seen, labels).tolist(), len(seen), c, kept[rows, labels])
    weights[seen], bias[seen] = part
    return Head(kind, n_labels, {name: np.ascontiguousarray(array) for name, array in {"weights": weights, "bias": bias, **more}.items()})


SMALLEST_SHARE = 0.01


def _logistic(
    features: NDArray[np.float64], targets: Sequence[int], n_labels: int, c: float, counts: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """((n_labels, d), (n_labels,)) float64. counts: how much each row counts, by default 1."""
    import warnings

    import numpy as np

    if n_labels == 1:
        return np.zeros((1, features.shape[1])), np.zeros(1)
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # With few rows of many labels it asks whether this was not meant as a regression.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        # float64 and lbfgs: deterministic, and the optimum does not depend on the order of the rows beyond the solver's tolerance.
        head = LogisticRegression(C=c, max_iter=2000).fit(features, np.asarray(targets), sample_weight=counts)
    if n_labels == 2:  # sklearn keeps one row for two labels: its sigmoid is our softmax over (0, logit)
        return np.vstack([np.zeros_like(head.coef_), head.coef_]), np.concatenate([[0.0], head.intercept_])
    return head.coef_, head.intercept_


def _nystroem(rows: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """((m, d) centres, (m, m) the inverse square root of their kernel)."""
    import numpy as np

    from ..seeds import numpy_rng_for

    m = min(CENTRES, len(rows))
    centres = rows[np.sort(numpy_rng_for(seed, "kernel").choice(len(rows), m, replace=False))]
    values, vectors = np.linalg.eigh(_kernel(centres, centres))
    return centres, (vectors / np.sqrt(np.maximum(values, 1e-12))) @ vectors.T


def _kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * np.einsum("nd,md->nm", a, b)
    result: NDArray[np.float64] = np.exp(-GAMMA * np.maximum(squared, 0))
    return result


def _features(rows: NDArray[np.float64], centres: NDArray[np.float64], basis: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    result: NDArray[np.float64] = np.einsum("nm,mk->nk", _kernel(rows, centres), basis)
    return result


def save_head(head: Head, path: Path) -> None:
    """As a safetensors file."""
    from safetensors.numpy import save_file

    save_file(dict(head.arrays), path)


def load_head(path: Path, kind: HeadKind, n_labels: int) -> Head:
    """What `save_head` wrote."""
    from safetensors.numpy import load_file

    return Head(kind, n_labels, load_file(path))
