"""The prefix tree of contexts and continuations, packed into rows in depth-first order.

In that order one number per token, `end` (one past its last descendant), says what may be seen: token q sees token k exactly if
`k <= q < end[k]`. So everything that two sequences share is computed once, and a mask keeps the branches apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .boundary import common_length

MIN_SHARED = 32
"""Queries share a row if they share at least this many tokens: for fewer, the masked attention between them costs more."""


@dataclass(frozen=True, slots=True)
class Item:
    """One context with its continuations."""

    index: int
    prefix: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    owners: tuple[tuple[int, int], ...] | None = None
    """Whose continuations they are, (item, continuation), where they are not simply this item's own."""
    n_extra: int = 0
    """How many of the continuations, the last ones, are single tokens that others begin with: read along with those, at no cost."""

    @property
    def owned(self) -> Sequence[tuple[int, int]]:
        return [(self.index, number) for number in range(len(self.continuations))] if self.owners is None else self.owners

    @property
    def n_tail(self) -> int:
        """Most tokens that its continuations add; the last token of a continuation is never computed."""
        return sum(max(len(c) - 1, 0) for c in self.continuations)

    @property
    def n_tokens(self) -> int:
        """Most tokens it adds to a row."""
        return len(self.prefix) + self.n_tail

    @property
    def n_reads(self) -> int:
        """Most tokens at which it needs the vocabulary."""
        return 1 + self.n_tail

    def part(self, places: Sequence[int]) -> Item:
        """With these continuations alone."""
        return Item(self.index, self.prefix, tuple(self.continuations[n] for n in places), tuple(self.owned[n] for n in places))

    def with_those_of(self, other: Item) -> Item:
        """Two items with the same prefix as one."""
        return Item(self.index, self.prefix, self.continuations + other.continuations, (*self.owned, *other.owned))


@dataclass(frozen=True, slots=True)
class Read:
    """One token whose log-likelihood is wanted."""

    node: int
    """Place in the row that predicts it."""
    target: int
    item: int
    continuation: int


@dataclass(slots=True)
class Row:
    """A packed tree."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    """Depth of each token: its position in its own sequence."""
    end: list[int] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_read_nodes(self) -> int:
        """Positions at which the vocabulary head is computed."""
        return len({read.node for read in self.reads})


class _Builder:
    """A row that grows; `_path` holds the open nodes from the root to the last token, `_ids` their tokens."""

    def __init__(self) -> None:
        self.row = Row()
        self._path: list[int] = []
        self._ids: list[int] = []

    def shared(self, prefix: Sequence[int]) -> int:
        return common_length(prefix, tuple(self._ids))

    def add(self, item: Item) -> None:
        self.row.items.append(item)
        self._descend(item.prefix)
        base = len(item.prefix)
        for number in sorted(range(len(item.continuations)), key=lambda n: item.continuations[n]):
            ids = item.continuations[number]
            self._descend((*item.prefix, *ids[:-1]))
            for offset, target in enumerate(ids):
                self.row.reads.append(Read(self._path[base + offset - 1], target, item.index, number))

    def _descend(self, ids: tuple[int, ...]) -> None:
        """Make the open path equal to `ids`, keeping what it shares."""
        keep = common_length(ids, tuple(self._ids))
        self._close(keep)
        for depth in range(keep, len(ids)):
            self._path.append(len(self.row.tokens))
            self.row.tokens.append(ids[depth])
            self.row.positions.append(depth)
            self.row.end.append(-1)
        self._ids += ids[keep:]

    def _close(self, depth: int) -> None:
        for node in self._path[depth:]:
            self.row.end[node] = len(self.row.tokens)
        del self._path[depth:], self._ids[depth:]

    def finished(self) -> Row:
        self._close(0)
        return self.row


def pack(items: Sequence[Item], max_tokens: int, min_shared: int = MIN_SHARED) -> list[Row]:
    """Rows of at most `max_tokens` (more only if one item alone is longer). Items are taken in the order of their tokens, so that
    those with a common prefix come together."""
    rows: list[Row] = []
    builder = _Builder()
    for item in sorted(items, key=lambda i: i.prefix):
        if builder.row.items:
            shared = builder.shared(item.prefix)
            useful = shared >= min_shared and 4 * shared >= len(item.prefix)
            if not useful or len(builder.row) + item.n_tokens - shared > max_tokens:
                rows.append(builder.finished())
                builder = _Builder()
        builder.add(item)
    if builder.row.items:
        rows.append(builder.finished())
    return rows


def pack_apart(items: Sequence[Item]) -> list[Row]:
    """One row per continuation, nothing shared: the plain path, for models whose attention a mask cannot steer."""
    rows = []
    for item in items:
        n_own = len(item.continuations) - item.n_extra
        extra = {item.continuations[place]: place for place in range(n_own, len(item.continuations))}
        base = len(item.prefix) - 1
        for number, ids in enumerate(item.continuations[:n_own]):
            along = extra.pop(ids[:1], None)
            places = [number] if along is None else [number, along]
            tokens = [*item.prefix, *ids[:-1]]
            n = len(tokens)
            reads = [Read(base + at, target, *item.owned[p]) for p in places for at, target in enumerate(item.continuations[p])]
            rows.append(Row(tokens, list(range(n)), [n] * n, reads, [replace(item.part(places), n_extra=len(places) - 1)]))
    return rows


def batches(rows: Sequence[Row], max_tokens: int, max_rows: int | None = None, max_reads: int | None = None) -> list[list[Row]]:
    """Rows of similar length together, within all three limits (a single row may exceed them). max_tokens counts the padding."""
    result: list[list[Row]] = []
    reads = 0
    for row in sorted(rows, key=len, reverse=True):
        batch = result[-1] if result else []
        full = (
            not batch
            or (len(batch) + 1) * len(batch[0]) > max_tokens
            or (max_rows is not None and len(batch) >= max_rows)
            or (max_reads is not None and reads + row.n_read_nodes > max_reads)
        )
        if full:
            result.append([row])
            reads = row.n_read_nodes
        else:
            batch.append(row)
            reads += row.n_read_nodes
    return result
