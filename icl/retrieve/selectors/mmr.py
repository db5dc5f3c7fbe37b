"""Rows that are near the query but unlike each other (maximal marginal relevance)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ...plugins import Context
from ...protocols import Selector
from ._sets import SetSettings, by_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Settings(SetSettings):
    relevance: float = Field(0.5, ge=0, le=1, description="λ: 1 looks at the query alone, 0 only at how unlike each other they are.")


def build(settings: Settings, context: Context) -> Selector:
    """Greedily, the row z with the largest λ·cos(query, z) - (1 - λ)·max cos(z, rows taken before).

    Carbonell and Goldstein 1998; for demonstrations Ye et al. 2023, https://arxiv.org/abs/2211.13892, eq. 4. Ties by rank.
    """
    return by_vectors(context, settings.candidates, lambda vectors, cosines, k: chosen(vectors, cosines, k, settings.relevance))


def chosen(vectors: NDArray[np.float64], cosines: NDArray[np.float32], k: int, relevance: float) -> list[int]:
    """Positions in the order they are taken. vectors: (n, d) unit vectors, cosines: (n,) to the query."""
    import numpy as np

    result: list[int] = []
    worth = relevance * cosines.astype(np.float64)
    closest = np.full(len(cosines), -np.inf)
    for _ in range(min(k, len(cosines))):
        value = worth - (1 - relevance) * closest if result else worth.copy()
        value[result] = -np.inf
        best = int(np.argmax(value))
        result.append(best)
        closest = np.maximum(closest, (vectors @ vectors[best]).astype(np.float32))
    return result
