"""Labels alternate as far as they can; the most similar demonstration of each stands next to the query."""

from __future__ import annotations

from collections import deque
from typing import Any

from ...protocols import Order
from ...values import Example, Hit


def build(settings: Any, context: Any) -> Order:
    """Hits best first -> as few neighbours of the same label as their numbers allow, better hits nearer to the query."""

    def order(query: Example, hits: list[Hit]) -> list[Hit]:
        left: dict[str, deque[tuple[int, Hit]]] = {}
        for place, hit in enumerate(hits):
            left.setdefault(str(hit.example.target), deque()).append((place, hit))
        result: list[Hit] = []
        last: str | None = None
        while left:
            most = max(left, key=lambda label: len(left[label]))
            # A label that fills half of the rest must come now, or it will stand beside itself.
            urgent = most != last and 2 * len(left[most]) > len(hits) - len(result)
            labels = [most] if urgent else [label for label in left if label != last] or list(left)
            last = min(labels, key=lambda label: left[label][0][0])
            result.append(left[last].popleft()[1])
            if not left[last]:
                del left[last]
        return result[::-1]

    return order
