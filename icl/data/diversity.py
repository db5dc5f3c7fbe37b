"""How many distinct texts a set amounts to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def effective_number(vectors: NDArray[np.floating]) -> float:
    """The Vendi score: exp of the entropy of the eigenvalues of K / n, where K is the matrix of cosines.

    vectors: (n, d), rows of length 1. Between 1 (all the same) and min(n, d) (all at right angles); 0 for no rows.
    Friedman & Dieng 2023, https://arxiv.org/abs/2210.02410, with the cosine as kernel. K / n has the non-zero eigenvalues of the
    (d, d) matrix X'X / n, so that the work grows with n, not with its square (their sec. 3).
    """
    import numpy as np

    x = np.asarray(vectors, np.float64)
    n, d = x.shape
    if n == 0:
        return 0.0
    eigenvalues = np.linalg.eigvalsh((x.T @ x if d <= n else x @ x.T) / n)
    positive = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-np.sum(positive * np.log(positive))))
