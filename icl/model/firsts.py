"""The first token of each continuation: read where the continuation itself is read, so it costs no pass of its own."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

Ids = tuple[int, ...]


def first_tokens(continuations: Sequence[Ids]) -> tuple[Ids, ...]:
    """The tokens that continuations begin with and that are not continuations themselves, each once, each as a continuation."""
    whole = set(continuations)
    return tuple(dict.fromkeys(ids[:1] for ids in continuations if ids[:1] not in whole))


def first_of(beginnings: Sequence[Hashable]) -> tuple[int, ...]:
    """Per continuation the position of the first one with the same beginning."""
    places: dict[Hashable, int] = {}
    return tuple(places.setdefault(beginning, at) for at, beginning in enumerate(beginnings))
