"""A random order of its own for each query, the same for the same seed."""

from __future__ import annotations

from typing import Any

from ...plugins import Context
from ...protocols import Order
from ...seeds import rng_for
from ...values import Example, Hit


def build(settings: Any, context: Context) -> Order:
    """The order depends on the seed, the query and the set of hits, not on how they were ranked."""

    def order(query: Example, hits: list[Hit]) -> list[Hit]:
        result = sorted(hits, key=lambda hit: hit.uid)
        rng_for(context.seed, "shuffled", query.uid).shuffle(result)
        return result

    return order
