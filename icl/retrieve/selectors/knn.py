"""The nearest rows by sentence embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import Field

from ...plugins import Context
from ...protocols import Selector
from ...values import Example, Hit
from ..approximate import Kind
from ..index import DemoIndex
from ._common import FromPool, StageSettings


class Settings(StageSettings):
    encoder: str | None = Field(None, description="Another encoder than the index has: a catalogue name, a hub id, a folder.")
    index: Kind | None = Field(None, description="Another kind of search than the index has: exact, or approximate by hnsw or ivf.")


def build(settings: Settings, context: Context) -> Selector:
    """Hits by cosine, best first, ties by position in the pool (among candidates: by their rank)."""
    return nearest(_index(context, settings))


def nearest(index: Callable[[], DemoIndex]) -> Selector:
    """The selector that searches an index, asked for with each call."""

    def select(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        if candidates is None:
            found = index().search(queries, k + 1)
            return [[hit for hit in hits if hit.uid != query.uid][:k] for query, hits in zip(queries, found, strict=True)]
        allowed = [[hit.example for hit in hits if hit.uid != query.uid] for query, hits in zip(queries, candidates, strict=True)]
        scores = index().similarities(queries, allowed)
        return [_best(examples, row, k) for examples, row in zip(allowed, scores, strict=True)]

    return select


def _index(context: Context, settings: Settings) -> Callable[[], DemoIndex]:
    encoder, kind = settings.encoder, settings.index
    if encoder is not None:
        return FromPool(context.pool, lambda pool: DemoIndex.build(pool, encoder=encoder, kind=kind or "auto"))
    if kind is not None:
        return FromPool(context.pool, lambda pool: context.index.searched_by(kind))
    return lambda: context.index


def _best(examples: Sequence[Example], scores: Sequence[float], k: int) -> list[Hit]:
    hits = [Hit(example.uid, score, example) for example, score in zip(examples, scores, strict=True)]
    return sorted(hits, key=lambda hit: -hit.score)[:k]
