"""A set that together covers the words of the query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...plugins import Context
from ...protocols import Selector
from ...values import Example, Hit, embedded_text
from ..terms import term_weights, word_similarities
from ._sets import SetSettings, nearest_candidates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Settings(SetSettings):
    by: Literal["terms", "embedding"] = Field(
        "terms",
        description="terms: a row covers the query's words that it has, by their BM25 weight; embedding: by the cosine of its nearest word.",
    )


def build(settings: Settings, context: Context) -> Selector:
    """Greedily, the row that raises the sum over the query's words of the best cover by any row of the set; where no row raises
    it, a new cover is begun. Rows that cover
    nothing come last, by rank.

    Gupta, Gardner and Singh 2023, https://arxiv.org/abs/2305.14907, eq. 4 and Algorithm 1. `terms` is their set version of BM25;
    `embedding` is Set-BSR (BERTScore recall) with one vector per word from the index's sentence encoder instead of contextual
    token vectors, which a sentence encoder does not give.
    """
    measure = term_weights(context.pool) if settings.by == "terms" else word_similarities(lambda: context.index.encoder)
    candidates_of = nearest_candidates(context, settings.candidates, "bm25" if settings.by == "terms" else "knn")

    def select(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        found = candidates_of(queries, k, candidates)
        texts = [embedded_text(query.fields) for query in queries]
        covers = measure(texts, list({hit.uid: hit.example for hits in found for hit in hits}.values()))
        result = []
        for text, hits in zip(texts, found, strict=True):
            cover = covers(text, [hit.example for hit in hits])
            scores = cover.sum(axis=0).tolist()
            result.append([Hit(hits[i].uid, scores[i], hits[i].example) for i in chosen(cover, k)])
        return result

    return select


def chosen(cover: NDArray[np.float64], k: int) -> list[int]:
    """Positions in the order they are taken. cover: (n_words, n_rows)."""
    import numpy as np

    n_words, n = cover.shape
    result: list[int] = []
    free = np.ones(n, dtype=bool)
    covered, total = None, -np.inf
    while len(result) < min(k, n):
        together = cover if covered is None else np.maximum(cover, covered[:, None])
        totals = np.where(free, together.sum(axis=0), -np.inf)
        best = int(np.argmax(totals)) if n_words else int(np.argmax(free))
        if totals[best] <= total:
            covered, total = None, -np.inf
            continue
        if covered is None and totals[best] <= 0:
            return [*result, *np.flatnonzero(free)[: k - len(result)].tolist()]
        result.append(best)
        free[best] = False
        covered, total = together[:, best], float(totals[best])
    return result
