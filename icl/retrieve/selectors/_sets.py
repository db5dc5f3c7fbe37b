"""What selectors share that choose a set among the candidates of each query, one row after the other, by their vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from pydantic import Field

from ...plugins import Context, build
from ...protocols import Selector
from ...values import Example, Hit
from ..guard import without_duplicates
from ._common import StageSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK = 512
"""Queries whose candidates' vectors are gathered at once."""

Choose: TypeAlias = "Callable[[NDArray[np.float64], NDArray[np.float32], int], list[int]]"
"""(vectors of the candidates (n, d), their cosines to the query (n,), k) -> positions of at most k different ones, best first."""


class SetSettings(StageSettings):
    candidates: int = Field(200, ge=1, description="As a first stage: how many of the nearest rows it chooses among.")


def nearest_candidates(context: Context, n: int, name: str = "knn") -> Selector:
    """Candidates: those given, less the query itself; else the n rows (at least k) that selector `name` finds, less copies of the query."""
    find = without_duplicates(build("selector", name, context))

    def candidates_of(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        if candidates is None:
            return find(queries, max(k, n), None)
        return [[hit for hit in hits if hit.uid != query.uid] for query, hits in zip(queries, candidates, strict=True)]

    return candidates_of


def by_vectors(context: Context, n: int, choose: Choose) -> Selector:
    """The selector that `choose` makes. A hit's score is its cosine to the query.

    Sums are taken in float64 and cosines rounded to float32, so that the choice depends neither on the batch nor on where
    equal rows stand: of those, the one that ranks first is taken.
    """
    candidates_of = nearest_candidates(context, n)

    def select(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        result: list[list[Hit]] = []
        for start in range(0, len(queries), CHUNK):
            part = queries[start : start + CHUNK]
            result += _chosen(context, part, k, candidates_of(part, k, candidates and candidates[start : start + CHUNK]), choose)
        return result

    return select


def _chosen(context: Context, queries: Sequence[Example], k: int, found: list[list[Hit]], choose: Choose) -> list[list[Hit]]:
    import numpy as np

    rows = {hit.uid: hit.example for hits in found for hit in hits}
    if not rows:
        return [[] for _ in queries]
    place = {uid: i for i, uid in enumerate(rows)}
    vectors = context.index.vectors_of(list(rows.values()))
    query_vectors = context.index.encode(queries).astype(np.float64)
    result = []
    for query, hits in zip(query_vectors, found, strict=True):
        own = vectors[[place[hit.uid] for hit in hits]].astype(np.float64)
        cosines = (own @ query).astype(np.float32)
        result.append([Hit(hits[i].uid, float(cosines[i]), hits[i].example) for i in choose(own, cosines, k)])
    return result
