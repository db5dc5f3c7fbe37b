"""Rows drawn at random, one draw for all queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from ...plugins import Context
from ...protocols import Selector
from ...seeds import rng_for, seed_for
from ...values import Example, Hit
from ._common import StageSettings, shared_hits


class Settings(StageSettings):
    per_query: bool = Field(
        False, description="A draw of its own for each query; by default all share one, so that their prompts begin alike."
    )


def build(settings: Settings, context: Context) -> Selector:
    """The first k of one shuffled pool, less the query itself. Scores are 0: nothing is closer than another."""
    pool, seed = context.pool, context.seed
    drawn: list[int] = []

    def shared() -> list[int]:
        if len(drawn) != len(pool):
            drawn[:] = range(len(pool))
            rng_for(seed, "random").shuffle(drawn)
        return drawn

    def positions(query: Example, k: int) -> Sequence[int]:
        if settings.per_query:
            return rng_for(seed, "random", query.uid).sample(range(len(pool)), min(len(pool), k + 1))
        return shared()[: k + 1]

    def select(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        if candidates is None:
            found = [shared_hits([pool[i] for i in positions(q, k)], k, lambda row, q=q: row.uid == q.uid) for q in queries]  # type: ignore[misc]
            return [[replace(hit, shared=False) for hit in hits] for hits in found] if settings.per_query else found
        return [_drawn_from(hits, query, k) for query, hits in zip(queries, candidates, strict=True)]

    def _drawn_from(hits: list[Hit], query: Example, k: int) -> list[Hit]:
        own = (query.uid,) if settings.per_query else ()
        return sorted((hit for hit in hits if hit.uid != query.uid), key=lambda hit: seed_for(seed, "random", hit.uid, *own))[:k]

    return select
