"""Writing many texts in one stream: prompts are read as places become free, and texts that end make room for the next ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .branches import Segment, grow, unread
from .check import narrow_window
from .decoding import Ending, Writer, append, choose
from .forward import text_config
from .limits import Limits
from .reading import read
from .rows import Rows

if TYPE_CHECKING:
    import torch

_SMALL = 512
"""Texts that take up to this many tokens of their own share a stream whatever their lengths; longer ones do within a factor of two,
since every row is given the room of the longest."""
_REFILL = 4
"""New prompts are read when a quarter of the places is free: fewer are read at a worse rate than they are written."""


@dataclass(slots=True)
class Pending:
    """A prompt that has been planned."""

    tail: Segment
    writers: deque[Writer]


def streams(writers: Sequence[Writer]) -> list[list[Pending]]:
    """The texts that are written in one stream each, in the order of the prefix tree.

    Equal prompts are one. Texts that have begun go on behind what they already hold.
    """
    wanted: dict[tuple[int, ...], list[Writer]] = {}
    for writer in writers:
        if not writer.done and writer.limit > 0:
            wanted.setdefault((*writer.prompt, *writer.ids), []).append(writer)
    order = sorted(wanted)
    tails = grow(order, [len(wanted[prompt]) for prompt in order])
    pending = [Pending(tail, deque(wanted[prompt])) for tail, prompt in zip(tails, order, strict=True)]
    pending.sort(key=_class, reverse=True)  # stable: within a class the order of the tree stays
    return [list(group) for _, group in groupby(pending, key=_class)]


def _own(pending: Pending) -> int:
    """Tokens of its own that a text may come to hold."""
    kept = [segment.end for segment in pending.tail.chain() if segment.kept]
    room = max((writer.limit - len(writer.ids) for writer in pending.writers), default=0)
    return pending.tail.end - max(kept, default=0) + room


def _class(pending: Pending) -> int:
    return max(_own(pending) - 1, _SMALL - 1).bit_length()


class Stream:
    """Prompts of one class, and the rows that are being written. n_tokens: what the model has computed, n_written: of it, for steps."""

    def __init__(self, model: Any, pending: Sequence[Pending], limits: Limits, most: int) -> None:
        self.model = model
        self.limits = limits
        self.pending = deque(pending)
        capacity = max(map(_own, pending))
        n_texts = sum(len(p.writers) for p in pending)
        fitting = max(1, limits.memory // 4 // max(limits.cache_bytes * capacity, 1))
        self.rows = Rows(min(most, fitting, n_texts), capacity)
        self.n_tokens = self.n_written = 0

    def run(self, ending: Ending) -> None:
        """Finish all texts."""
        import torch

        with torch.inference_mode():
            while self.pending or self.rows.rows:
                if found := self._next():
                    self._enter(found, ending)
                else:
                    logits = self.rows.step(self.model)
                    self.n_tokens += len(logits)
                    self.n_written += len(logits)
                    self._take(logits, [row.writer for row in self.rows.rows], ending)
                    self.rows.leave()

    def _enter(self, found: Sequence[tuple[Pending, int]], ending: Ending) -> None:
        """Read prompts and begin so many of their texts."""
        import torch

        tails = [pending.tail for pending, _ in found]
        self.n_tokens += read(self.model, unread(tails), tails, self.limits.batch_tokens, self.limits.reads)
        begun: list[tuple[Segment, Writer]] = []
        logits = []
        for pending, n in found:
            assert pending.tail.logits is not None
            logits += [pending.tail.logits] * n
            begun += [(pending.tail, pending.writers.popleft()) for _ in range(n)]
        self._take(torch.stack(logits), [writer for _, writer in begun], ending)
        for tail, writer in begun:
            if writer.done:  # with its first token
                tail.begun(1)
                tail.ended()
            else:
                self.rows.begin(tail, writer)
        while self.pending and not self.pending[0].writers:
            self.pending.popleft()

    def _next(self) -> list[tuple[Pending, int]]:
        """(prompt, texts that begin now), as many as places and memory allow; at least one where nothing else is being written."""
        free = self.rows.slots - len(self.rows.rows)
        if self.rows.rows and free * _REFILL < self.rows.slots:
            return []
        budget = self.limits.memory // 4 // max(self.limits.cache_bytes, 1)
        free = min(free, self.limits.reads)  # every text takes its first token from logits of its own
        live = {id(s): len(s.ids) for row in self.rows.rows for s in row.shared}
        found: list[tuple[Pending, int]] = []
        for pending in self.pending:
            live.update({id(s): len(s.ids) for s in pending.tail.chain()})
            if free == 0 or ((found or self.rows.rows) and sum(live.values()) > budget):
                break
            found.append((pending, min(free, len(pending.writers))))
            free -= found[-1][1]
        return found

    @staticmethod
    def _take(logits: torch.Tensor, writers: Sequence[Writer], ending: Ending) -> None:
        for writer, token in zip(writers, choose(logits, writers, ending), strict=True):
            append(writer, token, ending)


def deviation(model: Any) -> float:
    """Largest difference in nats between a step's log-probabilities here and in plain sequences, over a few tokens: with shared and
    own places, and beyond a sliding window. Raises whatever the model raises if its attention cannot be planned."""
    import torch

    def ids(*seeds: int) -> tuple[int, ...]:
        return tuple(7 + (seed * 7919) % max(text_config(model).vocab_size - 8, 1) for seed in seeds)

    prompts = sorted([(*ids(*range(1, 9)), *ids(*range(20, 20 + n))) for n in (2, 3, 7)] + [ids(*range(40, 46))])
    rows, worst = Rows(len(prompts), 16), 0.0
    with torch.inference_mode(), narrow_window(model):
        tails = grow(prompts, [1] * len(prompts), min_read=1, min_kept=1)
        read(model, unread(tails), tails, 16, 2)
        for at, (tail, token) in enumerate(zip(tails, ids(50, 51, 52, 53), strict=True)):
            rows.begin(tail, Writer(prompts[at], None, 8, ids=[token]))
        for _ in range(3):
            for row, found in zip(list(rows.rows), rows.step(model), strict=True):
                plain = model(input_ids=torch.tensor([[*row.writer.prompt, *row.writer.ids]], device=model.device), use_cache=False).logits[
                    0, -1
                ]
                worst = max(worst, float((torch.log_softmax(found.float(), -1) - torch.log_softmax(plain.float(), -1)).abs().max()))
                row.writer.ids.append(int(found.argmax()))
    return worst
