"""A set that is near the query and spread out: the greedy mode of a determinantal point process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ...plugins import Context
from ...protocols import Selector
from ._sets import SetSettings, by_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPENT = 1e-8
"""What is left of a row beside those taken, below which it says nothing new: vectors are float32."""


class Settings(SetSettings):
    trade_off: float = Field(0.1, gt=0, description="λ: the smaller, the more nearness to the query counts beside diversity.")


def build(settings: Settings, context: Context) -> Selector:
    """Greedily, the row that raises log det(S of the set) + (sum of the set's relevances) / λ the most, where similarities and
    relevances are cosines moved into [0, 1] by (1 + cos) / 2.

    The kernel is that of Ye et al. 2023 (CEIL), https://arxiv.org/abs/2302.05698, sec. 3; the algorithm the incremental Cholesky
    factor of Chen, Zhang and Zhou 2018, https://arxiv.org/abs/1709.05135, Algorithm 1. A row is never taken twice; rows that add
    nothing (copies of rows taken, or more rows than dimensions) follow by relevance.
    """
    return by_vectors(context, settings.candidates, lambda vectors, cosines, k: chosen(vectors, cosines, k, settings.trade_off))


def chosen(vectors: NDArray[np.float64], cosines: NDArray[np.float32], k: int, trade_off: float) -> list[int]:
    """Positions in the order they are taken. vectors: (n, d) unit vectors, cosines: (n,) to the query.

    Relevances are kept out of the factor: exp(1 / 0.1) and more in the kernel would swamp the differences between rows.
    """
    import numpy as np

    n = len(cosines)
    relevance = (1 + cosines.astype(np.float64)) / 2
    left = np.ones(n)
    factor = np.zeros((min(k, n), n))
    result: list[int] = []
    while len(result) < min(k, n):
        value = np.full(n, -np.inf)
        value[left > SPENT] = relevance[left > SPENT] / trade_off + np.log(left[left > SPENT])
        value[result] = -np.inf
        best = int(np.argmax(value))
        if value[best] == -np.inf:
            rest = np.setdiff1d(np.arange(n), result)
            return [*result, *rest[np.argsort(-relevance[rest], kind="stable")][: k - len(result)].tolist()]
        step = len(result)
        similar = (1 + (vectors @ vectors[best]).astype(np.float32).astype(np.float64)) / 2
        factor[step] = (similar - factor[:step, best] @ factor[:step]) / np.sqrt(left[best])
        left = left - factor[step] ** 2
        result.append(best)
    return result
