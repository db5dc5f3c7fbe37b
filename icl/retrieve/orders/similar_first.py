"""The most similar demonstration stands first, furthest from the query."""

from __future__ import annotations

from typing import Any

from ...protocols import Order
from ...values import Example, Hit


def build(settings: Any, context: Any) -> Order:
    """Hits best first -> the same."""

    def order(query: Example, hits: list[Hit]) -> list[Hit]:
        return list(hits)

    return order
