"""Labels alternate as far as they can; the most similar demonstration of each stands next to the query."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...protocols import Order
from ...values import Example, Hit


def build(settings: Any, context: Any) -> Order:
    """Hits best first -> as few neighbours of the same label as their numbers allow, better hits nearer to the query."""

    def order(query: Example, hits: list[Hit]) -> list[Hit]:
        left = list(hits)
        result: list[Hit] = []
        while left:
            counts = Counter(str(hit.example.target) for hit in left)
            last = str(result[-1].example.target) if result else None
            label, most = max(counts.items(), key=lambda item: item[1])
            # A label that fills half of the rest must come now, or it will stand beside itself.
            urgent = label if 2 * most > len(left) and label != last else None
            place = next((i for i, hit in enumerate(left) if (t := str(hit.example.target)) != last and (urgent is None or t == urgent)), 0)
            result.append(left.pop(place))
        return result[::-1]

    return order
