"""Near-duplicates without an encoder."""

from __future__ import annotations

from collections.abc import Sequence

from ..values import Example


def near_duplicates(pool: Sequence[Example], test: Sequence[Example]) -> list[int]:
    return []
