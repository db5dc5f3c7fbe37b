"""What a run really computed and paid: read off the models' own running totals, noted in the store, added up for timing.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..values import Example, embedded_text

Counts = dict[str, dict[str, Any]]
"""`tokens` (a model on this machine), `usage` (an endpoint) and `embedding` (an endpoint's encoder): name -> number; a cost without prices is None."""
_TOKENS = {
    "computed": "computed",
    "cached": "cached",
    "padded": "padding",
    "naive": "naive",
    "generated": "generated",
    "operations": "operations",
}
"""Attributes of a model's `totals` -> what timing.json calls them."""


class Work:
    """The totals of every model as they were when last asked, so that the difference can be put down to a cell."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[Any, Counts]] = {}

    def since(self, lm: Any) -> Counts:
        """What a model, or an encoder behind an address, has done since the last call for it; at first everything, an endpoint's probe included. Empty if nothing."""
        if lm is None:
            return {}
        found = self.peek(lm)
        self._last[id(lm)] = lm, measured(lm)
        return {kind: counts for kind, counts in found.items() if any(counts.values())}

    def forget(self, lm: Any) -> None:
        """Let go of a model that does nothing any more, and with it of its memory."""
        self._last.pop(id(lm), None)

    def peek(self, lm: Any) -> Counts:
        """What `since` would say."""
        _, before = self._last.get(id(lm), (lm, {}))
        now = measured(lm)
        return {kind: {name: _less(n, before.get(kind, {}).get(name)) for name, n in counts.items()} for kind, counts in now.items()}


def measured(lm: Any) -> Counts:
    """The totals that a model offers."""
    found: Counts = {}
    totals, usage = getattr(lm, "totals", None), getattr(lm, "usage", None)
    if totals is not None:
        found["tokens"] = {name: getattr(totals, attribute) for attribute, name in _TOKENS.items() if hasattr(totals, attribute)}
    if usage is not None and hasattr(lm, "encode"):
        found["embedding"] = {**dataclasses.asdict(usage), "wanted_tokens": lm.wanted_tokens}
    elif usage is not None:
        found["usage"] = dataclasses.asdict(usage)
    return found


def _less(now: Any, before: Any) -> Any:
    return None if now is None else now - (before or 0)


def added(parts: Iterable[Mapping[str, Mapping[str, Any]]]) -> Counts:
    """The sum; a number that is None everywhere stays None."""
    total: Counts = {}
    for part in parts:
        for kind, counts in part.items():
            into = total.setdefault(kind, {})
            for name, n in counts.items():
                into[name] = n if into.get(name) is None else into[name] + (n or 0)
    return total


def cost_of(counts: Mapping[str, Mapping[str, Any]]) -> float:
    """Money paid; 0 where nothing has a price."""
    return sum(float(counts.get(kind, {}).get("cost") or 0.0) for kind in ("usage", "embedding"))


def share_out(left: float, lm: Any, encoder: Any, rows: Sequence[Example]) -> None:
    """Let a model and an encoder behind an address spend no more than what is left between them: what vectors of the rows may cost is the
    encoder's, the rest the model's."""
    embedding = 0.0
    if encoder is not None:
        embedding = min(left, encoder.worst_cost([embedded_text(row.fields) for row in rows]))
        encoder.max_cost = cost_of(measured(encoder)) + embedding
    if lm is not None and hasattr(lm, "max_cost"):
        lm.max_cost = cost_of(measured(lm)) + left - embedding
