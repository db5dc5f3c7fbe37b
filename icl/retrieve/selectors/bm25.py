"""The rows that share the rarest words with the query (BM25)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ...plugins import Context
from ...protocols import Selector
from ...values import Example, Hit, embedded_text
from ..terms import words
from ._common import FromPool, StageSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Settings(StageSettings):
    k1: float = Field(default=1.5, ge=0, description="How soon a repeated word stops counting.")
    b: float = Field(default=0.75, ge=0, le=1, description="How far long texts are marked down.")


def build(settings: Settings, context: Context) -> Selector:
    """Hits by BM25 score (Lucene's variant, never negative), best first, ties by position; rows without a common word come last."""
    lexicon = FromPool(context.pool, lambda pool: _Lexicon(pool, settings))

    def select(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        found = lexicon()
        if candidates is None:
            return [found.best(query, k) for query in queries]
        return [found.among(query, hits, k) for query, hits in zip(queries, candidates, strict=True)]

    return select


class _Lexicon:
    def __init__(self, pool: Sequence[Example], settings: Settings) -> None:
        self._pool = list(pool)
        self._place = {example.uid: i for i, example in enumerate(self._pool)}
        texts = [words(embedded_text(example.fields)) for example in self._pool]
        self._scorer: Any = None
        if any(texts):  # bm25s divides by the number of words
            from bm25s import BM25

            self._scorer = BM25(k1=settings.k1, b=settings.b, method="lucene", backend="numpy")
            self._scorer.index(texts, show_progress=False)

    def _scores(self, query: Example) -> NDArray[np.float32]:
        import numpy as np

        known = words(embedded_text(query.fields))
        if self._scorer is None or not known:
            return np.zeros(len(self._pool), dtype=np.float32)
        return self._scorer.get_scores(known)  # type: ignore[no-any-return]

    def best(self, query: Example, k: int) -> list[Hit]:
        import numpy as np

        scores = self._scores(query)
        wanted = min(k + 1, len(scores))  # one more, for the query itself
        border = np.partition(scores, -wanted)[-wanted] if wanted else 0.0
        above, equal = np.flatnonzero(scores > border), np.flatnonzero(scores == border)
        chosen = np.concatenate([above, equal[: wanted - len(above)]])
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
        hits = (Hit(self._pool[i].uid, float(scores[i]), self._pool[i]) for i in chosen.tolist())
        return [hit for hit in hits if hit.uid != query.uid][:k]

    def among(self, query: Example, hits: list[Hit], k: int) -> list[Hit]:
        scores = self._scores(query)
        place = self._place
        # A candidate from elsewhere than the pool has no score; it comes last.
        scored = [Hit(h.uid, float(scores[place[h.uid]]) if h.uid in place else 0.0, h.example) for h in hits if h.uid != query.uid]
        return sorted(scored, key=lambda hit: -hit.score)[:k]
