"""Equally many rows of every label, drawn at random, one draw for all queries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice, zip_longest

from pydantic import Field

from ...plugins import Context
from ...protocols import Selector
from ...seeds import rng_for, seed_for
from ...values import Example, Hit
from ._common import FromPool, StageSettings


class Settings(StageSettings):
    per_query: bool = Field(
        False, description="A draw of its own for each query; by default all share one, so that their prompts begin alike."
    )


def build(settings: Settings, context: Context) -> Selector:
    """k rows, as many of each label as the pool allows (numbers differ by at most one while every label has rows left), mixed.

    From the whole pool: at random, less the query itself. Among candidates: the best of each label, in their order of rank.
    """
    seed = context.seed
    by_label = FromPool(context.pool, _by_label)

    def draw(labels: dict[str, list[Example]], k: int, own: str, parts: tuple[str, ...] = ()) -> list[Hit]:
        names = sorted(labels)
        rng_for(seed, "balanced", *parts).shuffle(names)
        queues = []
        for name in names:
            queue = list(labels[name])
            rng_for(seed, "balanced", name, *parts).shuffle(queue)
            queues.append([example for example in queue if example.uid != own])
        # Mixed by a key of each row, so that rows of one label do not stand together, nor labels in a cycle.
        mixed = sorted(_in_turn(queues, k), key=lambda example: seed_for(seed, "mixed", example.uid, *parts))
        return [Hit(example.uid, 0.0, example) for example in mixed]

    def select(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        if candidates is not None:
            return [_among([hit for hit in hits if hit.uid != query.uid], k) for query, hits in zip(queries, candidates, strict=True)]
        labels = by_label()
        if settings.per_query:
            return [draw(labels, k, query.uid, (query.uid,)) for query in queries]
        shared = [replace(hit, shared=True) for hit in draw(labels, k, "")]
        inside = {hit.uid for hit in shared}
        return [draw(labels, k, query.uid) if query.uid in inside else list(shared) for query in queries]

    return select


def _by_label(pool: Sequence[Example]) -> dict[str, list[Example]]:
    groups: dict[str, list[Example]] = {}
    for example in pool:
        groups.setdefault(str(example.target), []).append(example)
    return groups


def _in_turn(queues: Iterable[Sequence[Example]], k: int) -> list[Example]:
    """One of each queue, again and again, until there are k."""
    return list(islice((example for example in chain.from_iterable(zip_longest(*queues)) if example is not None), k))


def _among(hits: list[Hit], k: int) -> list[Hit]:
    chosen = {example.uid for example in _in_turn(_by_label([hit.example for hit in hits]).values(), k)}
    return [hit for hit in hits if hit.uid in chosen]
