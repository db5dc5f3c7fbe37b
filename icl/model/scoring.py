"""Scoring continuations: the work is planned as chunks of the prefix tree, or as rows where a model cannot share, and done in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import IclError
from ..values import Totals
from .boundary import common_length
from .chunks import BLOCK, Chunk, Room, blocks, chunks, halves, trunk
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
    _last: tuple[tuple[int, ...], Kept] = ((), [])
    """The trunk of the last call, and its keys and values."""
    _unplanned: int = 0

    def sums(self, items: Sequence[Item]) -> Sums:
        """Every continuation's sum. Each of them is wholly in one planned batch."""
        self.totals.naive += n_naive(items)
        self._unplanned = self.totals.unplanned
        result: Sums = {}
        for found in self._trunk(items) if self.path == "tree" else self._rows(items):
            result.update(found)
        if not self._as_planned:
            self._last = ((), [])
        return result

    @property
    def _as_planned(self) -> bool:
        """False once memory ran out in this call: from there on other digits may come than a call without that would give."""
        return self.totals.unplanned == self._unplanned

    def n_planned(self, items: Sequence[Item]) -> int:
        """Tokens that `sums` computes from a cold start."""
        if self.path != "tree":
            return sum(map(len, self._packed(items)))
        above = self._above(items)
        return len(above) + sum(map(len, self._chunks(items, above)))

    # ── the tree ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _above(self, items: Sequence[Item]) -> tuple[int, ...]:
        """The trunk of all items: it is computed by itself, and kept for the next call."""
        return trunk(items, self.limits.memory // 8 // max(self.limits.cache_bytes, 1))

    def _chunks(self, items: Sequence[Item], above: Sequence[int]) -> Iterator[Chunk]:
        return chunks(items, Room(self.limits.batch_tokens, self.limits.reads, self.limits.max_rows), above=above)

    def _trunk(self, items: Sequence[Item]) -> Iterator[Sums]:
        above = self._above(items)
        state = self._begin(above)
        for chunk in self._chunks(items, above):
            if not chunk.n_kept:
                state = _Open()
            slots = _slots(chunk.reads)
            reads = _flat(chunk.reads, slots)
            key = self._key("tree", chunk.tokens, chunk.depths, chunk.ends, reads, chunk.n_kept, state.key if chunk.n_kept else b"")
            found = self._known(key, slots, len(chunk))
            if found is None:
                self._catch_up(state, above, chunk.n_kept)
                found, state.kept = self._chunk(chunk, state.kept)
                self._store(key, slots, found)
            else:
                state.behind.append(chunk)
            if not all(run.kept for run in chunk.path):
                state.key = key
            yield found

    def _begin(self, above: tuple[int, ...]) -> _Open:
        """The state behind the trunk, as far as an earlier call left it."""
        ids, kept = self._last
        n = common_length(above, ids) // BLOCK * BLOCK
        kept = [(k[:, :n], v[:, :n]) for k, v in kept] if n else []
        return _Open(kept, self._key("trunk", above), n) if above else _Open()

    def _catch_up(self, state: _Open, above: tuple[int, ...], n_kept: int) -> None:
        """Compute the trunk, as far as it is not there, and what chunks that came out of the cache would have left in memory of the
        first `n_kept` positions of the path."""
        if state.n_above is not None:
            self.totals.cached += state.n_above
            for block in blocks(above, state.n_above):
                state.kept = self._chunk(block, state.kept)[1]
            self._last = (above, state.kept)
            state.n_above = None
        needed: list[Chunk] = []
        for chunk in reversed(state.behind):
            # Otherwise the path was cut again to before all that this chunk put there.
            if sum(run.length for run in chunk.path if run.kept) < n_kept:
                needed.append(chunk)
                n_kept = chunk.n_kept
        for chunk in reversed(needed):
            state.kept = self._chunk(chunk, state.kept)[1]
        state.behind.clear()

    def _chunk(self, chunk: Chunk, kept: Kept) -> tuple[Sums, Kept]:
        """One chunk; out of memory, the same work in halves."""
        try:
            values, after = chunk_values(self.model, chunk, kept)
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
        found, between = self._chunk(first, kept)
        more, after = self._chunk(second, between)
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

    kept: Kept = field(default_factory=list)
    key: bytes = b""
    """Of the chunk that computed the path's last token."""
    n_above: int | None = None
    """Tokens of the trunk that are in `kept`, until the rest is computed; None: there is no trunk, or all of it is there."""
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
