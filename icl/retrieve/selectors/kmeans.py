"""One row of each cluster of the pool (k-means), the same for all queries: rows that are unlike each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...plugins import Context
from ...protocols import Selector
from ...values import Example, Hit
from ..clusters import cluster_members
from ..guard import Copies
from ._common import FromPool, StageSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Settings(StageSettings):
    pass


def build(settings: Settings, context: Context) -> Selector:
    """k clusters of the sentence vectors; of each the row nearest to its centre, the largest cluster first. Scores are 0.

    From the whole pool the clusters are the same for all queries (for each k); where the row of a cluster is the query's own, the
    next one of that cluster stands in. Among candidates, those of each query are clustered. Zhang et al. 2022 (Auto-CoT),
    https://arxiv.org/abs/2210.03493, sec. 4.
    """
    copies = Copies()
    clusters: FromPool[dict[int, list[list[int]]]] = FromPool(context.pool, lambda pool: {})

    def of_the_pool(k: int) -> list[list[int]]:
        known = clusters()
        if k not in known:
            known[k] = _members(context, context.pool, k)
        return known[k]

    def select(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        if candidates is None:
            members, pool = of_the_pool(k), context.pool
            found = [_one_of_each(members, query, copies, pool, k) for query in queries]
            first = {pool[i].uid for i in _in_turn([iter(cluster) for cluster in members], k)}
            # Where a query's own row was left out, another stands in for that query alone.
            return [[replace(hit, shared=True) for hit in hits] if {hit.uid for hit in hits} == first else hits for hits in found]
        result = []
        for query, hits in zip(queries, candidates, strict=True):
            rows = [hit.example for hit in copies.others(query, hits)]
            result.append(_one_of_each(_members(context, rows, k), query, copies, rows, k))
        return result

    return select


def _members(context: Context, rows: Sequence[Example], k: int) -> list[list[int]]:
    if not len(rows):
        return []
    vectors: NDArray[np.float32] = context.index.vectors_of(list(rows))
    return cluster_members(vectors, k, context.seed)


def _one_of_each(members: list[list[int]], query: Example, copies: Copies, rows: Sequence[Example], k: int) -> list[Hit]:
    """The first of each cluster that is not the query's own; then, where clusters ran out, the second of each, and so on."""
    chosen = _in_turn([(i for i in cluster if not copies(query, rows[i])) for cluster in members], k)
    return [Hit(rows[i].uid, 0.0, rows[i]) for i in chosen]


def _in_turn(queues: Sequence[Iterator[int]], k: int) -> list[int]:
    """The first of each queue, then the second, and so on, until there are k."""
    chosen: list[int] = []
    while queues and len(chosen) < k:
        taken = [next(queue, None) for queue in queues]
        queues = [queue for queue, i in zip(queues, taken, strict=True) if i is not None]
        chosen += [i for i in taken if i is not None]
    return chosen[:k]
