"""The prefix tree of all contexts and continuations of a call, walked in depth-first order and cut into chunks of tokens.

Each chunk is one forward pass. Every unique token is in exactly one chunk, and a chunk needs the keys and values of nothing but its own
tokens and the open path, i.e. the ancestors of its first token. So memory holds one chunk and one path, whatever the number of prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import groupby

from .boundary import common_length
from .tree import Item, Read

BLOCK = 128
"""A trunk is computed in blocks of this many tokens: fewer cost more passes, more leave more of a trunk to be computed anew."""

FEWEST = 64
"""Tokens of a chunk however long the path before it is."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive tokens of the open path that stand side by side."""

    depth: int
    start: int
    """Place in the chunk; in the kept path if `kept`."""
    length: int
    kept: bool


@dataclass(slots=True)
class Chunk:
    """One forward pass of the walk."""

    n_kept: int
    """Positions of the open path that earlier chunks computed and this one sees."""
    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    """Position of each token in its own sequence."""
    ends: list[int] = field(default_factory=list)
    """One past each token's last descendant in the chunk: token q sees token k exactly if `k <= q < ends[k]`."""
    reads: list[Read] = field(default_factory=list)
    nodes: set[int] = field(default_factory=set)
    """Tokens that have reads."""
    path: tuple[Run, ...] = ()
    """The open path when the chunk was closed: what later chunks may see."""
    items: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Room:
    """What a chunk may hold."""

    tokens: int
    reads: int
    """Tokens at which the vocabulary is computed."""
    items: int | None = None
    cells: int | None = None
    """Tokens times the tokens that each of them sees, for the masks: behind a long path chunks are smaller."""

    def behind(self, n_kept: int) -> int:
        """Tokens of a chunk behind so long a path."""
        return self.tokens if self.cells is None else min(self.tokens, max(self.cells // (n_kept + self.tokens), FEWEST))


def trunk(items: Sequence[Item], most: int) -> tuple[int, ...]:
    """What the prefixes of all items begin with, in whole blocks, at most `most` tokens; the last token of no prefix is in it."""
    if not items:
        return ()
    low, high = min(item.prefix for item in items), max(item.prefix for item in items)
    n = min(common_length(low, high), min(len(item.prefix) for item in items) - 1, most)
    return low[: n // BLOCK * BLOCK]


def blocks(ids: Sequence[int], start: int, size: int = BLOCK) -> Iterator[Chunk]:
    """A trunk from `start` on, a chunk for each block. So what it leaves in memory is the same to the last bit, whatever is behind it and
    whether its beginning was still there."""
    for at in range(start, len(ids), size):
        n = min(size, len(ids) - at)
        chunk = Chunk(at, list(ids[at : at + n]), list(range(at, at + n)), [n] * n)
        chunk.path = (*((Run(0, 0, at, True),) if at else ()), Run(at, 0, n, False))
        yield chunk


def chunks(items: Sequence[Item], room: Room, *, above: Sequence[int] = (), share: bool = True, far: bool = False) -> Iterator[Chunk]:
    """Walk the tree. above: a trunk of the items that is computed before. A chunk exceeds its room only by an item with one continuation of more tokens than that.

    A prefix that also begins with another item's continuation may be computed beside it. share=False: no two items share anything, the
    continuations of one still do. far: items share the trunk alone, and a chunk that begins behind it holds one item: so whatever a chunk
    holds descends from the end of the path before it, of which parts may then be forgotten.
    """
    walk = _Walk(room, share, above, far)
    ordered = sorted(items, key=lambda i: i.prefix)
    for item in _divided(_merged(ordered) if share else ordered, room):
        yield from walk.add(item)
    yield from walk.finish()


def _merged(items: Iterable[Item]) -> Iterator[Item]:
    """Neighbours with the same prefix as one item."""
    for _, same in groupby(items, key=lambda i: i.prefix):
        yield reduce(Item.with_those_of, same)


def _divided(items: Iterable[Item], room: Room) -> Iterator[Item]:
    """Items whose continuations do not fit into a chunk are taken in parts, each with the last token of the prefix anew."""
    for item in items:
        if item.n_tail + 1 <= room.tokens and item.n_reads <= room.reads:
            yield item
            continue
        part: list[int] = []
        n_tail = 0
        for number in sorted(range(len(item.continuations)), key=lambda n: item.continuations[n]):
            length = len(item.continuations[number])
            if part and (n_tail + length > room.tokens or n_tail + length > room.reads):
                yield item.part(part)
                part, n_tail = [], 0
            part.append(number)
            n_tail += length
        yield item.part(part)


class _Walk:
    def __init__(self, room: Room, share: bool, above: Sequence[int], far: bool) -> None:
        self.room = room
        self.share = share
        self.far = far
        self.n_above = len(above)
        self.chunk = Chunk(len(above))
        self.ids = list(above)
        """Tokens of the open path."""
        self.runs = [Run(0, 0, len(above), True)] if above else []

    def add(self, item: Item) -> Iterator[Chunk]:
        base = len(item.prefix)
        at = common_length(item.prefix, tuple(self.ids[:base])) if self.share else 0
        at = min(at, self.n_above) if self.far else at
        if at < base:  # otherwise its continuations may go on from those before them
            self._close(at)
        # A chunk that is half full is closed before an item rather than in the middle of it.
        half = 2 * len(self.chunk) >= self._room()
        alone = self.far and self.chunk.n_kept > self.n_above
        if self.chunk.tokens and (alone or self._full(item) or (half and not self._fits(base - at + item.n_tail))):
            yield self._flush()
        while at < base - 1:
            if self._space() <= 0:
                yield self._flush()
            stop = min(base - 1, at + self._space())
            self._extend(item.prefix[at:stop])
            at = stop
        if self.chunk.tokens and not self._fits(base - at + item.n_tail):
            yield self._flush()
        if at == base and self._is_kept(base - 1):
            at = base - 1  # its last token was computed in a chunk that is gone: once more, for this item's reads
            self._close(at)
        self._extend(item.prefix[at:])
        self._continue(item, base)

    def _room(self) -> int:
        return self.room.behind(self.chunk.n_kept)

    def _space(self) -> int:
        return self._room() - len(self.chunk)

    def _fits(self, n_tokens: int) -> bool:
        return n_tokens <= self._space()

    def finish(self) -> Iterator[Chunk]:
        self._close(0)
        if self.chunk.tokens:
            yield self._flush()

    def _full(self, item: Item) -> bool:
        chunk, room = self.chunk, self.room
        return len(chunk.nodes) + item.n_reads > room.reads or (room.items is not None and len(chunk.items) >= room.items)

    def _continue(self, item: Item, base: int) -> None:
        """The item's continuations, all in the chunk that holds the last token of its prefix."""
        self.chunk.items.update(index for index, _ in item.owned)
        for owner, ids in sorted(zip(item.owned, item.continuations, strict=True), key=lambda pair: pair[1]):
            if not ids:
                continue
            inner = ids[:-1]
            keep = base + common_length(inner, tuple(self.ids[base:]))
            self._close(keep)
            self._extend(inner[keep - base :])
            places = self._places(base - 1, base - 1 + len(ids))
            self.chunk.nodes.update(places)
            self.chunk.reads += [Read(place, target, *owner) for place, target in zip(places, ids, strict=True)]

    def _places(self, start: int, stop: int) -> list[int]:
        """Places in the chunk of the path's tokens at these depths."""
        found: list[int] = []
        for run in self.runs:
            low, high = max(start, run.depth), min(stop, run.depth + run.length)
            if low < high:
                assert not run.kept
                found += range(run.start + low - run.depth, run.start + high - run.depth)
        return found

    def _is_kept(self, depth: int) -> bool:
        return any(run.kept and run.depth <= depth < run.depth + run.length for run in self.runs)

    def _extend(self, ids: Sequence[int]) -> None:
        """Put tokens at the end of the open path."""
        if not ids:
            return
        chunk, depth, n = self.chunk, len(self.ids), len(ids)
        start = len(chunk.tokens)
        self.ids += ids
        chunk.tokens += ids
        chunk.depths += range(depth, depth + n)
        chunk.ends += [0] * n
        last = self.runs[-1] if self.runs else None
        if last is not None and not last.kept and last.start + last.length == start:
            self.runs[-1] = Run(last.depth, last.start, last.length + n, False)
        else:
            self.runs.append(Run(depth, start, n, False))

    def _close(self, depth: int) -> None:
        """Cut the open path to this many tokens."""
        while self.runs and self.runs[-1].depth + self.runs[-1].length > depth:
            run = self.runs.pop()
            left = max(depth - run.depth, 0)
            self._ended(run, left)
            if left:
                self.runs.append(Run(run.depth, run.start, left, run.kept))
        del self.ids[depth:]

    def _ended(self, run: Run, left: int) -> None:
        if not run.kept:
            start, stop = run.start + left, run.start + run.length
            self.chunk.ends[start:stop] = [len(self.chunk.tokens)] * (stop - start)

    def _flush(self) -> Chunk:
        done = self.chunk
        for run in self.runs:
            self._ended(run, 0)
        done.path = tuple(self.runs)
        self.chunk = Chunk(len(self.ids))
        self.runs = [Run(0, 0, len(self.ids), True)] if self.ids else []
        return done


def halves(chunk: Chunk) -> tuple[Chunk, Chunk]:
    """The same work as two chunks, for when memory ran out. The chunk has at least two tokens."""
    middle = len(chunk) // 2
    ancestors = [k for k in range(middle) if chunk.ends[k] > middle]
    depth = chunk.depths[middle]
    above = depth - len(ancestors)
    runs = [Run(0, 0, above, True)] if above else []
    for k in ancestors:
        last = runs[-1] if runs else None
        if last is not None and not last.kept and last.start + last.length == k:
            runs[-1] = Run(last.depth, last.start, last.length + 1, False)
        else:
            runs.append(Run(chunk.depths[k], k, 1, False))
    first = Chunk(chunk.n_kept, chunk.tokens[:middle], chunk.depths[:middle], [min(end, middle) for end in chunk.ends[:middle]])
    first.path = tuple(runs)
    second = Chunk(depth, chunk.tokens[middle:], chunk.depths[middle:], [end - middle for end in chunk.ends[middle:]])
    path: list[Run] = []
    for run in chunk.path:
        n_before = run.length if run.kept else min(max(middle - run.start, 0), run.length)
        if n_before:
            path.append(Run(run.depth, run.depth, n_before, True))
        if n_before < run.length:
            path.append(Run(run.depth + n_before, run.start + n_before - middle, run.length - n_before, False))
    second.path = tuple(path)
    for read in chunk.reads:
        half, node = (first, read.node) if read.node < middle else (second, read.node - middle)
        half.reads.append(Read(node, read.target, read.item, read.continuation))
        half.nodes.add(node)
        half.items.add(read.item)
    return first, second
