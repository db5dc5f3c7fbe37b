"""Rows that stand for many others and are unlike each other (vote-k), the same for all queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from ...plugins import Context
from ...protocols import Selector
from ...values import Example, Hit
from ..annotate import NEIGHBOURS, RHO, Votes
from ..guard import Copies
from ._common import FromPool, StageSettings


class Settings(StageSettings):
    neighbours: int = Field(NEIGHBOURS, ge=1, description="How many of its nearest rows a row votes for.")
    rho: float = Field(RHO, gt=1, description="A row's vote is divided by this for each of its choices that is taken already.")


def build(settings: Settings, context: Context) -> Selector:
    """Rows in the order in which vote-k takes them, from the pool (one sequence for all queries) or among candidates. Scores are 0.

    Su et al. 2022, https://arxiv.org/abs/2209.01975, sec. 2.2, the first stage; as a policy of what to label, with its second
    stage, it is `icl.retrieve.vote_k`.
    """
    copies = Copies()

    def votes(rows: Sequence[Example]) -> Votes:
        return Votes(context.index.vectors_of(list(rows)), settings.neighbours, settings.rho)

    of_the_pool = FromPool(context.pool, votes)

    def first(voting: Votes, rows: Sequence[Example], query: Example, k: int) -> list[Hit]:
        found: list[Hit] = []
        place = 0
        while len(found) < k and len(voting.best(place + 1)) > place:
            row = rows[voting.taken[place]]
            place += 1
            if not copies(query, row):
                found.append(Hit(row.uid, 0.0, row))
        # Where none was left out, these are the rows that every query gets.
        return found if place > len(found) else [replace(hit, shared=True) for hit in found]

    def select(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        if candidates is None:
            voting, pool = of_the_pool(), context.pool
            return [first(voting, pool, query, k) for query in queries]
        allowed = [[hit.example for hit in hits] for hits in candidates]
        chosen = [first(votes(rows), rows, query, k) if rows else [] for query, rows in zip(queries, allowed, strict=True)]
        return [[replace(hit, shared=False) for hit in hits] for hits in chosen]

    return select
