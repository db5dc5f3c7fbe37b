"""Clusters of unit vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..seeds import seed_for
from .nearest import faiss, inner, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ITERATIONS = 25


def centres(vectors: NDArray[np.float32], k: int, seed: int, weights: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """(min(k, n), d) unit vectors: the centres of a spherical k-means, deterministic under the seed. weights: (n,), of each vector, > 0."""
    import numpy as np

    n, d = vectors.shape
    if n <= k:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    means = faiss().Kmeans(
        d, k, niter=ITERATIONS, seed=seed_for(seed, "k-means") % 2**31, spherical=True, min_points_per_centroid=1, max_points_per_centroid=n
    )  # fmt: skip
    means.train(np.ascontiguousarray(vectors, dtype=np.float32), weights)
    found: NDArray[np.float32] = means.centroids
    return found


def assigned(vectors: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """(n,) number of each vector's nearest centre; ties to the lower number, whatever else is assigned with it."""
    import numpy as np

    if not len(vectors):
        return np.zeros(0, dtype=np.int64)
    return np.array([best[0] for best in nearest(vectors, centroids, 1)[0]], dtype=np.int64)


def cluster_members(vectors: NDArray[np.float32], k: int, seed: int, weights: NDArray[np.float32] | None = None) -> list[list[int]]:
    """Positions by cluster, the largest cluster first, in each the nearest to its centre first. Empty clusters are left out.
    weights: (n,), of each vector, > 0, where clusters are to be smaller among the heavy ones."""
    import numpy as np

    centroids = centres(vectors, k, seed, weights)
    cluster = assigned(vectors, centroids)
    near = inner(vectors, np.arange(len(vectors)), centroids, cluster)
    order = np.lexsort((np.arange(len(vectors)), -near))
    members: list[list[int]] = [[] for _ in centroids]
    for i in order.tolist():
        members[cluster[i]].append(i)
    return sorted((each for each in members if each), key=lambda each: (-len(each), each[0]))
