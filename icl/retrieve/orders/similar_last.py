"""The most similar demonstration stands next to the query."""

from __future__ import annotations

from typing import Any

from ...protocols import Order
from ...values import Example, Hit


def build(settings: Any, context: Any) -> Order:
    """Hits best first -> worst first."""

    def order(query: Example, hits: list[Hit]) -> list[Hit]:
        return hits[::-1]

    return order
