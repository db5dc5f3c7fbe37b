"""Demonstrations that clusters of queries share, the query's own ones next to it: prompts begin alike, and are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from ...plugins import Context
from ...protocols import Selector
from ...values import Example, Hit
from ..clusters import assigned, centres, cluster_members
from ..guard import Copies
from ._common import FromPool, StageSettings, shared_hits
from ._sets import nearest_candidates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Settings(StageSettings):
    clusters: int = Field(8, ge=1, description="Clusters of the pool; queries of one cluster share demonstrations. 1: all queries do.")
    own: int = Field(0, ge=0, description="Demonstrations that are the query's own, its nearest; the others are shared.")


def build(settings: Settings, context: Context) -> Selector:
    """The `own` nearest rows, best first, then the demonstrations of the query's cluster, in the same order for all of its queries.

    With the order `similar_last` the shared ones stand first and the own ones next to the query, so that all prompts of a cluster
    begin alike: few clusters and few own ones compute the fewest tokens, many of them come close to `knn`. Clusters are fitted on
    the pool, so that they depend neither on the queries nor on the batch; a query belongs to the nearest centre. Shared
    demonstrations are one row of each of k - `own` clusters within the cluster. Where one is the query's own row or a copy,
    another stands in, for that query alone.

    Among candidates only those are taken, so it is best as the first stage.
    """
    copies = Copies()
    nearest = nearest_candidates(context, 0)
    clustered = FromPool(context.pool, lambda pool: _Clusters.of(context, pool, settings.clusters))

    def select(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        clusters = clustered()
        if not len(queries) or not clusters.rows:
            return [[] for _ in queries]
        n_shared = max(0, k - settings.own)
        vectors = context.index.encode(queries)
        cluster_of = assigned(vectors, clusters.centres).tolist()
        # As many as are asked for in all, since some of the nearest may be shared ones.
        near = nearest(queries, k, candidates)
        result = []
        for i, (query, cluster) in enumerate(zip(queries, cluster_of, strict=True)):
            left_out = partial(_left_out, copies, query, None if candidates is None else {hit.uid for hit in candidates[i]})
            shared = shared_hits(clusters.ranked(cluster, n_shared), n_shared, left_out)
            inside = {hit.uid for hit in shared}
            own = [hit for hit in near[i] if hit.uid not in inside][: k - len(shared)]
            result.append([*own, *shared])
        return result

    return select


def _left_out(copies: Copies, query: Example, allowed: set[str] | None, row: Example) -> bool:
    return copies(query, row) or (allowed is not None and row.uid not in allowed)


@dataclass(frozen=True)
class _Clusters:
    rows: Sequence[Example]
    vectors: NDArray[np.float32]
    centres: NDArray[np.float32]
    members: list[list[int]]
    seed: int
    _ranked: dict[tuple[int, int], list[Example]]

    @classmethod
    def of(cls, context: Context, pool: Sequence[Example], n: int) -> _Clusters:
        import numpy as np

        rows = list(pool)
        vectors = context.index.vectors_of(rows)
        found = centres(vectors, n, context.seed)
        cluster = assigned(vectors, found)
        members = [np.flatnonzero(cluster == c).tolist() for c in range(len(found))]
        return cls(rows, vectors, found, members, context.seed, {})

    def ranked(self, cluster: int, n: int) -> list[Example]:
        """The rows that a cluster shares, n of them as unlike each other as can be, then spares, the whole cluster at last."""
        if (cluster, n) not in self._ranked:
            members = self.members[cluster]
            parts = cluster_members(self.vectors[members], max(1, n), self.seed) if members else []
            turns = [[part[turn] for part in parts if turn < len(part)] for turn in range(max(map(len, parts), default=0))]
            self._ranked[cluster, n] = [self.rows[members[i]] for turn in turns for i in turn]
        return self._ranked[cluster, n]
