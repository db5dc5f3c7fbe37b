"""The prefix tree of prompts that are continued: what is read once, and what the texts of one batch then see together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from .boundary import common_length

if TYPE_CHECKING:
    import torch

MIN_READ = 16
"""A common prefix is read once if that saves at least this many tokens: a segment of its own costs about as much as four tokens."""
MIN_KEPT = 256
"""It also stays one piece for all its texts if their copies would hold at least this many tokens more: a piece of its own costs a few
small matrix products per layer and step."""


@dataclass(slots=True, eq=False)
class Segment:
    """Tokens that are read once, behind those of the parent."""

    ids: tuple[int, ...]
    start: int
    """Position of the first."""
    parent: Segment | None
    kept: bool
    """True: its keys and values stay in one piece, seen by all texts below. False: every text takes a copy."""
    waiting: int
    """Texts below it that have not begun."""
    alive: int = 0
    """Texts below it that are being written."""
    n_read: int = 0
    keys: list[torch.Tensor] = field(default_factory=list)
    """Per layer (key-value heads, tokens, size)."""
    values: list[torch.Tensor] = field(default_factory=list)
    logits: torch.Tensor | None = None
    """(vocabulary,) behind the last token, of a prompt's last segment."""

    @property
    def end(self) -> int:
        return self.start + len(self.ids)

    def chain(self) -> list[Segment]:
        """From the root to itself."""
        found: list[Segment] = [self]
        while (parent := found[-1].parent) is not None:
            found.append(parent)
        return found[::-1]

    def begun(self, n: int) -> None:
        """n texts below it have begun."""
        for segment in self.chain():
            segment.waiting -= n
            segment.alive += n
            segment.release()

    def ended(self) -> None:
        """A text below it is written."""
        for segment in self.chain():
            segment.alive -= 1
            segment.release()

    def release(self) -> None:
        """Give the memory back as soon as no text needs it any more."""
        if self.waiting == 0 and not (self.kept and self.alive):
            self.keys, self.values, self.logits = [], [], None


def grow(prompts: Sequence[tuple[int, ...]], copies: Sequence[int], *, min_read: int = MIN_READ, min_kept: int = MIN_KEPT) -> list[Segment]:
    """The last segment of every prompt.

    prompts: sorted, all different, none empty. copies: texts that continue each. A prompt's last segment is its own and holds at
    least one token.
    """
    shared = [common_length(a, b) for a, b in pairwise(prompts)]
    tails: list[Segment | None] = [None] * len(prompts)
    work: list[tuple[int, int, Segment | None]] = [(0, len(prompts), None)] if prompts else []
    while work:
        low, high, parent = work.pop()
        depth = parent.end if parent else 0
        rows = sum(copies[low:high])
        common = min(min(shared[low : high - 1], default=len(prompts[low])), *(len(p) - 1 for p in prompts[low:high]))
        saved = (rows - 1) * (common - depth)
        if saved >= min_read and (high - low > 1 or saved >= min_kept):
            parent = Segment(prompts[low][depth:common], depth, parent, saved >= min_kept, rows)
            for above in parent.chain() if parent.kept else ():
                above.kept = True  # what a text copies stands behind all that it shares
        if high - low == 1:
            depth = parent.end if parent else 0
            tails[low] = Segment(prompts[low][depth:], depth, parent, False, rows)
        else:
            work += [(a, b, parent) for a, b in _runs(shared, low, high, common)]
    return [tail for tail in tails if tail is not None]


def _runs(shared: Sequence[int], low: int, high: int, common: int) -> Iterator[tuple[int, int]]:
    """Neighbours that share more than `common` tokens."""
    begin = low
    for at in range(low, high):
        if at + 1 == high or shared[at] <= common or (at == low and min(shared[low : high - 1]) > common):
            yield begin, at + 1
            begin = at + 1


def unread(tails: Sequence[Segment]) -> list[Segment]:
    """The segments that still have to be read for these prompts, parents first."""
    found: dict[int, Segment] = {}
    for tail in tails:
        for segment in tail.chain():
            if segment.n_read < len(segment.ids):
                found.setdefault(id(segment), segment)
    return list(found.values())
