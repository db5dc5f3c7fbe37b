"""Where scoring starts: one point in token space for all continuations of a context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Conditioned = Literal["context", "bos", "eos"]


@dataclass(frozen=True, slots=True)
class Split:
    """A context and its continuations as token ids."""

    prefix: tuple[int, ...]
    """What every continuation is conditioned on; never empty."""
    continuations: tuple[tuple[int, ...], ...]
    """Tokens that are scored; none is empty."""
    straddle: bool
    conditioned: Conditioned

    @property
    def n_tokens(self) -> int:
        """Tokens of the longest sequence."""
        return len(self.prefix) + max((len(c) for c in self.continuations), default=0)


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    low, high = 0, n  # a[:low] is common, a[:high] is not
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def split(
    context: Sequence[int],
    joints: Sequence[Sequence[int]],
    *,
    head: Sequence[int] = (),
    bos: int | None,
    eos: int | None,
    empty: bool = False,
) -> Split:
    """Split the joint encodings at the longest token prefix that the context and all of them share.

    context: ids of the context alone. joints: ids of context and continuation encoded together, one per continuation. head: ids that
    stand before the context and before every joint. If the common prefix ends before the context does, the item is marked `straddle`.
    No continuation is left without a token: the last token of the context is scored with it, and where there is no token at all
    (both texts empty, or of characters that the tokenizer drops), the end of the text. An empty prefix is replaced by bos, else eos.
    empty: the context has no text, so that its ids are those which the tokenizer adds by itself.
    """
    context, head = tuple(context), tuple(head)
    sequences = [tuple(joint) for joint in joints]
    start = min((min(common_length(context, ids), len(ids) - 1) for ids in sequences), default=len(context))
    straddle = start < len(context)
    if start < 0:  # a joint encoding adds nothing to the head, so that the head's last token is scored
        context, sequences, head = (*head[-1:], *context), [(*head[-1:], *ids) for ids in sequences], head[:-1]
        straddle, start = bool(context), 0
    conditioned: Conditioned = "bos" if empty else "context"
    prefix = (*head, *context[:start])
    if not prefix:
        conditioned = "bos" if bos is not None else "eos"
        prefix = (bos if bos is not None else eos if eos is not None else 0,)
    end = eos if eos is not None else bos if bos is not None else 0
    return Split(prefix, tuple(ids[start:] or (end,) for ids in sequences), straddle, conditioned)
