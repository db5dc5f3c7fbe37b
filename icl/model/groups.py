"""Which tokens of a chunk attend together: groups of queries that see the same tokens outside the group.

Linear layers see all tokens of a chunk side by side; only attention needs to know who is whose ancestor. A long chain of tokens attends
causally, without a mask. Where sequences branch, the small subtrees under one parent attend together, with a small mask between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from .chunks import Chunk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SMALL = 128
"""Subtrees of at most this many tokens are attended together. Within a group they do not see each other, which is work done for
nothing; but their common context is read once."""
MASK_CELLS = 1 << 22
"""Most cells of one mask."""
SIMILAR = 0.8
"""Groups are padded to one shape if each fills at least this share of it."""


@dataclass(frozen=True, slots=True)
class Group:
    """Tokens [start, stop) of a chunk, which see the context and, within the group, their ancestors."""

    start: int
    stop: int
    context: tuple[tuple[int, int], ...]
    """Ranges of keys, in the numbering [kept path, chunk]."""
    chain: bool

    @property
    def n_queries(self) -> int:
        return self.stop - self.start

    @property
    def n_keys(self) -> int:
        return self.n_queries + sum(stop - start for start, stop in self.context)

    @property
    def causal(self) -> bool:
        """True if it needs no mask."""
        return self.chain and not self.context


def groups(chunk: Chunk) -> Iterator[Group]:
    """All tokens of the chunk, each in one group."""
    import numpy as np

    ends = np.asarray(chunk.ends)
    turns = np.append(np.flatnonzero(np.diff(ends)) + 1, len(ends))  # where one chain stops and another starts
    work: list[tuple[int, int, tuple[tuple[int, int], ...]]] = []
    at = 0
    while at < len(ends):  # subtrees that hang side by side from the kept path
        depth, start = chunk.depths[at], at
        while at < len(ends) and chunk.depths[at] == depth:
            at = chunk.ends[at]
        work.append((start, at, ((0, depth),) if depth else ()))
    while work:
        start, stop, context = work.pop()
        small = max(SMALL, sum(b - a for a, b in context) // 2)
        first = at = start
        while at < stop:
            end = chunk.ends[at]
            if end - at > small:
                if first < at:
                    yield _group(first, at, context, turns)
                chain = int(turns[np.searchsorted(turns, at, side="right")])
                yield from _chains(at, chain, context, chunk.n_kept)
                if chain < end:
                    work.append((chain, end, _joined(context, (chunk.n_kept + at, chunk.n_kept + chain))))
                first = end
            elif end - first > small:
                yield _group(first, at, context, turns)
                first = at
            at = end
        if first < stop:
            yield _group(first, stop, context, turns)


def _group(start: int, stop: int, context: tuple[tuple[int, int], ...], turns: NDArray[np.int64]) -> Group:
    import numpy as np

    return Group(start, stop, context, bool(turns[np.searchsorted(turns, start, side="right")] >= stop))


def _chains(start: int, stop: int, context: tuple[tuple[int, int], ...], n_kept: int) -> Iterator[Group]:
    """A chain of tokens, in pieces where a mask over a long context would be large."""
    while context and (stop - start) > (most := max(MASK_CELLS // (sum(b - a for a, b in context) + stop - start), 16)):
        yield Group(start, start + most, context, True)
        context = _joined(context, (n_kept + start, n_kept + start + most))
        start += most
    yield Group(start, stop, context, True)


def _joined(context: tuple[tuple[int, int], ...], more: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    if context and context[-1][1] == more[0]:
        return (*context[:-1], (context[-1][0], more[1]))
    return (*context, more)


@dataclass(frozen=True, slots=True)
class Call:
    """Groups that attend in one call, padded to one shape."""

    groups: tuple[Group, ...]

    @property
    def n_queries(self) -> int:
        return max(group.n_queries for group in self.groups)

    @property
    def n_keys(self) -> int:
        return max(group.n_keys for group in self.groups)

    @property
    def causal(self) -> bool:
        return self.groups[0].causal


def calls(found: Sequence[Group]) -> list[Call]:
    """Groups of similar shape together."""
    result: list[list[Group]] = []
    for group in sorted(found, key=lambda g: (g.causal, g.n_queries, g.n_keys), reverse=True):
        batch = result[-1] if result else []
        first = batch[0] if batch else None
        if (
            first is not None
            and first.causal == group.causal
            and group.n_queries >= SIMILAR * first.n_queries - 8
            and SIMILAR * max(g.n_keys for g in batch) - 16 <= group.n_keys <= first.n_keys / SIMILAR + 16
            and (len(batch) + 1) * first.n_queries * max(first.n_keys, group.n_keys) <= MASK_CELLS
        ):
            batch.append(group)
        else:
            result.append([group])
    return [Call(tuple(batch)) for batch in result]


class Places:
    """Where a call's queries and keys are, as arrays."""

    def __init__(self, call: Call, chunk: Chunk, n_sinks: int = 0) -> None:
        self.call = call
        self.chunk = chunk
        self.n_sinks = n_sinks
        """So many first tokens are seen beyond the window too."""

    @cached_property
    def queries(self) -> NDArray[np.int64]:
        """(groups, n_queries) places in the chunk; padding repeats a group's last."""
        import numpy as np

        return np.stack([np.minimum(np.arange(g.start, g.start + self.call.n_queries), g.stop - 1) for g in self.call.groups])

    @cached_property
    def real(self) -> NDArray[np.bool_]:
        """(groups, n_queries): which queries are not padding."""
        import numpy as np

        sizes = np.array([g.n_queries for g in self.call.groups])
        real: NDArray[np.bool_] = np.arange(self.call.n_queries)[None, :] < sizes[:, None]
        return real

    @cached_property
    def keys(self) -> NDArray[np.int64]:
        """(groups, n_keys) places in [kept path, chunk]: the context, then the group itself; padding repeats the first."""
        import numpy as np

        rows = []
        for g in self.call.groups:
            own = np.arange(self.chunk.n_kept + g.start, self.chunk.n_kept + g.stop)
            found = np.concatenate([*(np.arange(a, b) for a, b in g.context), own])
            rows.append(np.pad(found, (0, self.call.n_keys - len(found)), constant_values=found[0]))
        return np.stack(rows)

    def visible(self, window: int | None) -> NDArray[np.bool_]:
        """(groups, n_queries, n_keys): who sees whom. window: as far back as a token sees; None: all."""
        import numpy as np

        n_kept = self.chunk.n_kept
        depths = np.concatenate([np.arange(n_kept), np.asarray(self.chunk.depths)])
        ends = np.concatenate([np.full(n_kept, n_kept + len(self.chunk)), n_kept + np.asarray(self.chunk.ends)])
        sizes = np.array([g.n_keys for g in self.call.groups])
        q = n_kept + self.queries[:, :, None]
        k = self.keys[:, None, :]
        visible: NDArray[np.bool_] = (k <= q) & (q < ends[k]) & (np.arange(self.call.n_keys)[None, None, :] < sizes[:, None, None])
        if window is not None:
            visible &= (depths[q] - depths[k] < window) | (depths[k] < self.n_sinks)
        return visible
