"""Exact nearest neighbours among unit vectors, in an order that neither the batch nor the library decides."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLACK = 8
"""Neighbours fetched beyond k, so that ties at the border are seen."""
NOISE = 2e-6
"""More than two float32 inner products of the same unit vectors can differ by."""
ROWS = 1 << 16
"""Rows that are copied together where only some may be found."""
BLOCK = 4096
"""Inner products computed at once."""


@cache
def faiss() -> Any:
    """The library, imported after torch: each brings an OpenMP of its own, and on macOS the other order crashes."""
    if sys.platform == "darwin":
        import torch  # noqa: F401
    import faiss as library

    if sys.platform == "darwin":
        library.omp_set_num_threads(1)
    return library


def nearest(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
    """Positions and scores of the k rows with the largest inner product, best first; rows of equal score by position.

    queries: (m, d), vectors: (n, d), both finite. Returns per query arrays of length min(k, n). among: ascending positions of the
    only rows that count.

    FAISS alone would depend on the batch: it computes few queries another way than many (scores differ in the last bit, and so
    does the order of near ties), and of equal rows it returns the last ones. So more than k are fetched, scored again by `inner`,
    and sorted by (score, position); where equal scores may reach beyond what was fetched, more is fetched.
    """
    import numpy as np

    if among is not None:
        return _nearest_among(queries, vectors, k, among)
    m, n = len(queries), len(vectors)
    k = min(k, n)
    positions: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)] * m
    scores = [np.zeros(0, dtype=np.float32)] * m
    todo = np.arange(m if k > 0 else 0)
    fetch = min(n, k + SLACK)
    while len(todo):
        rough, found = faiss().knn(queries[todo], vectors, fetch, faiss().METRIC_INNER_PRODUCT)
        found.sort(axis=1)  # by position, so that a stable sort by score leaves ties that way
        exact = inner(queries, np.repeat(todo, fetch), vectors, found.ravel()).reshape(found.shape)
        order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
        for query, best, score in zip(todo, np.take_along_axis(found, order, 1), np.take_along_axis(exact, order, 1), strict=True):
            positions[query], scores[query] = best, score
        # The k-th best is settled if the worst that was fetched is clearly below it.
        settled = rough[:, k - 1] - rough[:, -1] > NOISE if fetch < n else np.ones(len(todo), dtype=bool)
        todo = todo[~settled]
        fetch = min(n, fetch * 4)
    return positions, scores


def _nearest_among(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int, among: NDArray[np.int64]
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
    """By blocks of rows, each copied together: the nearest of the nearest of the blocks."""
    import numpy as np

    parts = [nearest(queries, vectors[block], k) for block in np.split(among, range(ROWS, len(among), ROWS))]
    positions: list[NDArray[np.int64]] = []
    scores: list[NDArray[np.float32]] = []
    for i in range(len(queries)):
        where = np.concatenate([ROWS * b + found[i] for b, (found, _) in enumerate(parts)])
        score = np.concatenate([each[i] for _, each in parts])
        order = np.argsort(-score, kind="stable")[:k]
        positions.append(among[where[order]])
        scores.append(score[order])
    return positions, scores


def inner(
    queries: NDArray[np.float32], query_of: NDArray[np.int64], vectors: NDArray[np.float32], row_of: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Inner products of the pairs (query_of[i], row_of[i]), float32 from float64 sums: the same in any batch, and for equal rows."""
    import numpy as np

    result = np.empty(len(row_of), dtype=np.float32)
    for start in range(0, len(row_of), BLOCK):
        part = slice(start, start + BLOCK)
        result[part] = (vectors[row_of[part]].astype(np.float64) * queries[query_of[part]]).sum(axis=1)
    return result
