"""Scoring continuations: the work is planned as chunks of the prefix tree, or as rows where a model cannot share, and done in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import IclError
from ..values import Totals
from .boundary import common_length
from .chunks import BLOCK, Chunk, Room, blocks, chunks, halves, trunk
from .far import Abreast, Sinks
from .flat import Kept, chunk_values
from .forward import Path, row_values
from .limits import Limits, is_out_of_memory
from .tree import Item, Read, Row, batches, pack, pack_apart

if TYPE_CHECKING:
    from .score_cache import ScoreCache

Sums = dict[tuple[int, int], float]
"""(item, continuation) -> sum of its tokens' log-likelihoods, in nats."""


def n_naive(items: Sequence[Item]) -> int:
    """Tokens of one forward pass per continuation over its whole prompt."""
    return sum(
        len(item.prefix) + len(ids) - 1 for item in items for ids in item.continuations[: len(item.continuations) - item.n_extra] if ids
    )


@dataclass
class Scoring:
    """The half of a model that scores. cache: whole planned batches found there are not computed."""

    model: Any
    path: Path
    limits: Limits
    totals: Totals
    identity: Callable[[], str] = str
    """Whatever could change a digit of a score, for the cache's keys."""
    cache: ScoreCache | None = None
    sinks: Sinks | None = None
    """On the path `tree`: each token sees the first and the last so many alone."""
    _last: tuple[tuple[int, ...], Kept] = ((), [])
    """The trunk of the last call, and its keys and values."""
    _unplanned: int = 0

    def sums(self, items: Sequence[Item], abreast: Mapping[Abreast, Sequence[Item]] | None = None) -> Sums:
        """Every continuation's sum. Each of them is wholly in one planned batch.

        abreast: windows, and the items that see all of them; their prefixes begin with the windows' tokens. On the path `tree` alone.
        """
        self.totals.naive += n_naive(items) + sum(map(n_naive, (abreast or {}).values()))
        self._unplanned = self.totals.unplanned
        result: Sums = {}
        for found in self._trunk(items) if self.path == "tree" else self._rows(items):
            result.update(found)
        for windows, behind in sorted((abreast or {}).items()):
            for found in self._behind(windows, behind):
                result.update(found)
        if not self._as_planned:
            self._last = ((), [])
        return result

    @property
    def _as_planned(self) -> bool:
        """False once memory ran out in this call: from there on other digits may come than a call without that would give."""
        return self.totals.unplanned == self._unplanned

    def n_planned(self, items: Sequence[Item], abreast: Mapping[Abreast, Sequence[Item]] | None = None) -> int:
        """Tokens that `sums` computes from a cold start."""
        if self.path != "tree":
            return sum(map(len, self._packed(items)))
        trunks = [(self._above(items), items), *((windows.ids, behind) for windows, behind in (abreast or {}).items())]
        return sum(len(above) + sum(map(len, self._chunks(behind, above))) for above, behind in trunks)

    # ── the tree ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _above(self, items: Sequence[Item]) -> tuple[int, ...]:
        """The trunk of all items: it is computed by itself, and kept for the next call."""
        return trunk(items, self.limits.kept_tokens // 4 if self.sinks is None else 1 << 40)

    def _chunks(self, items: Sequence[Item], above: Sequence[int]) -> Iterator[Chunk]:
        room = Room(self.limits.batch_tokens, self.limits.reads, self.limits.max_rows, self.limits.cells)
        return chunks(items, room, above=above, far=self.sinks is not None)

    def _trunk(self, items: Sequence[Item]) -> Iterator[Sums]:
        above = self._above(items)
        key = self._key("trunk", above) if above else b""
        return self._walked(items, above, _Open(len(above), key, start=partial(self._computed, above) if above else None))

    def _behind(self, windows: Abreast, items: Sequence[Item]) -> Iterator[Sums]:
        key = self._key("abreast", windows.head, *windows.windows)
        return self._walked(items, windows.ids, _Open(len(windows.ids), key, windows.shift, partial(self._side_by_side, windows)))

    def _walked(self, items: Sequence[Item], above: Sequence[int], state: _Open) -> Iterator[Sums]:
        for chunk in self._chunks(items, above):
            if not chunk.n_kept:
                state = _Open(len(above), shift=state.shift)
            slots = _slots(chunk.reads)
            reads = _flat(chunk.reads, slots)
            key = self._key("tree", chunk.tokens, chunk.depths, chunk.ends, reads, chunk.n_kept, state.key if chunk.n_kept else b"")
            found = self._known(key, slots, len(chunk))
            if found is None:
                self._catch_up(state, chunk.n_kept)
                found = self._step(state, chunk)
                self._store(key, slots, found)
            else:
                state.behind.append(chunk)
            if not all(run.kept for run in chunk.path):
                state.key = key
            yield found

    def _computed(self, above: tuple[int, ...]) -> Kept:
        """Keys and values of the trunk, which is computed as far as no earlier call left it, and kept for the next."""
        ids, kept = self._last
        n = common_length(above, ids) // BLOCK * BLOCK
        if self.sinks is not None and n < len(ids):
            n = 0  # of its middle nothing is left
        if self.sinks is None:
            kept = [(k[:, :n], v[:, :n]) for k, v in kept]
        self.totals.cached += n
        kept = kept if n else []
        for block in blocks(above, n):
            kept = self._chunk(block, kept)[1]
        self._last = (above, kept)
        return kept

    def _side_by_side(self, windows: Abreast) -> Kept:
        """Keys and values of windows that see what they all begin with and not each other."""
        import torch

        n, size = len(windows.head), self.limits.batch_tokens
        head: Kept = []
        for block in blocks(windows.head, 0, size):
            head = self._chunk(block, head)[1]
        parts = [head] if head else []
        for window in windows.windows:
            kept = head
            for block in blocks((*windows.head, *window), n, size):
                kept = self._chunk(block, kept)[1]
            parts.append([(k[:, n:], v[:, n:]) for k, v in kept])
        parts = [part for part in parts if part]
        return [
            (torch.cat([keys for keys, _ in layer], dim=1), torch.cat([values for _, values in layer], dim=1))
            for layer in zip(*parts, strict=True)
        ]

    def _step(self, state: _Open, chunk: Chunk) -> Sums:
        """Compute a chunk, and take along what later ones see."""
        # The path may have forgotten what lies behind the trunk, and it is a copy that takes memory.
        kept, state.kept = state.trunk if chunk.n_kept == state.n_above else state.kept, []
        found, state.kept = self._chunk(chunk, kept, state.shift)
        return found

    def _catch_up(self, state: _Open, n_kept: int) -> None:
        """Compute the trunk, unless it is there, and what chunks that came out of the cache would have left in memory of the first `n_kept`
        positions of the path."""
        if state.start is not None:
            state.trunk = state.kept = state.start()
            state.start = None
        needed: list[Chunk] = []
        for chunk in reversed(state.behind):
            # Otherwise the path was cut again to before all that this chunk put there.
            if sum(run.length for run in chunk.path if run.kept) < n_kept:
                needed.append(chunk)
                n_kept = chunk.n_kept
        for chunk in reversed(needed):
            self._step(state, chunk)
        state.behind.clear()

    def _chunk(self, chunk: Chunk, kept: Kept, shift: int = 0) -> tuple[Sums, Kept]:
        """One chunk, and the keys and values that later ones see."""
        if self.sinks is None:
            return self._pass(chunk, kept, shift)
        chunk, gone = self.sinks.seen(chunk)
        found, after = self._pass(chunk, kept, shift + gone)
        return found, self.sinks.left(after)

    def _pass(self, chunk: Chunk, kept: Kept, shift: int) -> tuple[Sums, Kept]:
        """One forward pass; out of memory, the same work in halves."""
        try:
            values, after = chunk_values(self.model, chunk, kept, shift, self.sinks)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            self.totals.computed += len(chunk)
            return _added(chunk.reads, values), after
        # Outside the handler: the failed pass and its tensors are gone before the halves are tried.
        self.totals.unplanned += 1
        if len(chunk) < 2:
            raise self._too_large(chunk.n_kept + 1)
        first, second = halves(chunk)
        found, between = self._pass(first, kept, shift)
        more, after = self._pass(second, between, shift)
        return {key: found.get(key, 0.0) + more.get(key, 0.0) for key in {**found, **more}}, after

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _packed(self, items: Sequence[Item]) -> list[Row]:
        return pack(items, self.limits.row_tokens) if self.path == "mask" else pack_apart(items)

    def _rows(self, items: Sequence[Item]) -> Iterator[Sums]:
        limits = self.limits
        max_rows = 1 if self.path == "single" else limits.max_rows
        for batch in batches(self._packed(items), limits.batch_tokens, max_rows, limits.reads):
            slots = _slots([read for row in batch for read in row.reads])
            key = self._key(self.path, *(part for row in batch for part in (row.tokens, row.end, _flat(row.reads, slots))))
            found = self._known(key, slots, sum(map(len, batch)))
            if found is None:
                found = self._batch(batch)
                self._store(key, slots, found)
            yield found

    def _batch(self, rows: list[Row]) -> Sums:
        """One batch; out of memory, the same items in halves."""
        try:
            values = row_values(self.model, rows, self.path)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            n = sum(map(len, rows))
            self.totals.computed += n
            self.totals.padded += len(rows) * max(map(len, rows)) - n
            return _added([read for row in rows for read in row.reads], [value for found in values for value in found])
        self.totals.unplanned += 1
        return {key: value for half in self._halves(rows) for key, value in self._batch(half).items()}

    def _halves(self, rows: list[Row]) -> list[list[Row]]:
        if len(rows) > 1:
            return [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
        items = rows[0].items
        if len(items) > 1:
            return [pack(half, self.limits.row_tokens) for half in (items[: len(items) // 2], items[len(items) // 2 :])]
        if len(apart := pack_apart(items)) > 1:
            return [[row] for row in apart]
        raise self._too_large(len(rows[0]))

    def _too_large(self, n_tokens: int) -> IclError:
        return IclError(
            f"a single sequence of {n_tokens} tokens does not fit into the memory of {self.model.device}\n"
            "  Use a smaller model, dtype bfloat16, a quantised model, or shorter prompts."
        )

    # ── what was computed before ─────────────────────────────────────────────────────────────────────────────────────────

    def _key(self, *parts: Any) -> bytes:
        if self.cache is None:
            return b""
        from .cache_keys import batch_key

        return batch_key(self.identity(), *parts)

    def _known(self, key: bytes, slots: Mapping[tuple[int, int], int], n_tokens: int) -> Sums | None:
        [values] = self.cache.get([key]) if self.cache is not None and self._as_planned else [None]
        if values is None or len(values) != len(slots):
            return None
        self.totals.cached += n_tokens
        return dict(zip(slots, values, strict=True))

    def _store(self, key: bytes, slots: Mapping[tuple[int, int], int], found: Sums) -> None:
        if self.cache is not None and self._as_planned:
            self.cache.put([(key, [found[slot] for slot in slots])])


@dataclass
class _Open:
    """The open path between two chunks of one tree."""

    n_above: int
    """Tokens of the trunk."""
    key: bytes = b""
    """Of the chunk that computed the path's last token."""
    shift: int = 0
    """How far positions lie behind places on the path."""
    start: Callable[[], Kept] | None = None
    """Gives the trunk's keys and values; None: there is no trunk, or they are there."""
    trunk: Kept = field(default_factory=list)
    kept: Kept = field(default_factory=list)
    """Those of the path."""
    behind: list[Chunk] = field(default_factory=list)
    """Chunks that came out of the cache: `kept` is that from before them."""


def _slots(reads: Sequence[Read]) -> dict[tuple[int, int], int]:
    """(item, continuation) -> its number among those of a batch."""
    found: dict[tuple[int, int], int] = {}
    for read in reads:
        found.setdefault((read.item, read.continuation), len(found))
    return found


def _flat(reads: Sequence[Read], slots: Mapping[tuple[int, int], int]) -> list[int]:
    """Reads as numbers that say nothing about the items' places in a call."""
    return [number for read in reads for number in (read.node, read.target, slots[read.item, read.continuation])]


def _added(reads: Sequence[Read], values: Sequence[float]) -> Sums:
    result: Sums = {}
    for read, value in zip(reads, values, strict=True):
        key = (read.item, read.continuation)
        result[key] = result.get(key, 0.0) + value
    return result
