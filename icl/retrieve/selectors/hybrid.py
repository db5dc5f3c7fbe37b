"""Several selectors at once, their ranks added up (reciprocal-rank fusion)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from ...plugins import Context
from ...plugins import build as build_component
from ...protocols import Selector
from ...values import Example, Hit
from ._common import StageSettings


class Settings(StageSettings):
    of: list[str | dict[str, Any]] = Field(["knn", "bm25"], min_length=1, description="The selectors whose ranks are added up.")
    c: float = Field(60.0, gt=0, description="How little the first ranks stand out: a row at rank r counts 1 / (c + r).")
    depth: int = Field(100, ge=1, description="Rows that each selector names, at least.")


def build(settings: Settings, context: Context) -> Selector:
    """Hits by the sum of 1 / (c + rank) over the selectors that name them, best first; ties by the first selector's rank.

    Cormack, Clarke and Büttcher 2009, Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods.
    """
    parts: list[Selector] = [
        build_component("selector", value, context, context.folders, where=f"hybrid.of.{i}") for i, value in enumerate(settings.of)
    ]

    def select(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        depth = max(k, settings.depth)
        ranked = [part(queries, depth if candidates is None else _longest(candidates), candidates) for part in parts]
        return [_fused([hits[i] for hits in ranked], settings.c, k) for i in range(len(queries))]

    return select


def _longest(candidates: list[list[Hit]]) -> int:
    return max((len(hits) for hits in candidates), default=0)


def _fused(lists: Sequence[Sequence[Hit]], c: float, k: int) -> list[Hit]:
    scores: dict[str, float] = {}
    examples: dict[str, Example] = {}
    for hits in lists:
        for rank, hit in enumerate(hits, start=1):
            scores[hit.uid] = scores.get(hit.uid, 0.0) + 1 / (c + rank)
            examples.setdefault(hit.uid, hit.example)
    best = sorted(scores, key=lambda uid: -scores[uid])[:k]
    return [Hit(uid, scores[uid], examples[uid]) for uid in best]
