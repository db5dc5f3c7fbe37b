"""Reading prompts before they are continued: the segments of a prefix tree side by side, without padding, in passes of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .attention import planned
from .branches import Segment

if TYPE_CHECKING:
    import torch

_SCORES = 1 << 26
"""Attention scores that are held at once where they are computed one by one."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a segment that one pass reads; the rest of a long one follows in the next."""

    segment: Segment
    begin: int
    end: int
    ends_prompt: bool
    """The values behind its last token are wanted."""

    @property
    def ids(self) -> tuple[int, ...]:
        return self.segment.ids[self.begin : self.end]

    @property
    def position(self) -> int:
        return self.segment.start + self.begin


def passes(segments: Sequence[Segment], tails: Sequence[Segment], max_tokens: int, max_reads: int) -> Iterator[list[Piece]]:
    """Pieces of at most max_tokens tokens and max_reads ends of prompts in all, in the order of the segments (parents first)."""
    last = {id(tail) for tail in tails}
    batch: list[Piece] = []
    room, reads = max_tokens, max_reads
    for segment in segments:
        at = segment.n_read
        while at < len(segment.ids):
            if room == 0 or reads == 0:
                yield batch
                batch, room, reads = [], max_tokens, max_reads
            to = min(len(segment.ids), at + room)
            ends = to == len(segment.ids) and id(segment) in last
            batch.append(Piece(segment, at, to, ends))
            room, reads, at = room - (to - at), reads - ends, to
    if batch:
        yield batch


def read(model: Any, segments: Sequence[Segment], tails: Sequence[Segment], max_tokens: int, max_reads: int) -> int:
    """Fill the segments' keys and values, and the logits of those that end a prompt. Returns the number of tokens computed.

    segments: parents before children, as `unread` gives them.
    """
    import torch

    n_tokens = 0
    for pieces in passes(segments, tails, max_tokens, max_reads):
        tokens = [token for piece in pieces for token in piece.ids]
        positions = [piece.position + i for piece in pieces for i in range(len(piece.ids))]
        ends, at = [], 0
        for piece in pieces:
            at += len(piece.ids)
            if piece.ends_prompt:
                ends.append(at - 1)
        with planned(model, Reading(pieces)), _gathered(model, ends or [at - 1]):
            logits = model(
                input_ids=torch.tensor([tokens], device=model.device),
                position_ids=torch.tensor([positions], device=model.device),
                use_cache=False,
            ).logits[0]
        for piece in pieces:
            piece.segment.n_read = piece.end
        for row, piece in zip(logits, [piece for piece in pieces if piece.ends_prompt], strict=bool(ends)):
            piece.segment.logits = row
        n_tokens += len(tokens)
    return n_tokens


class _gathered:
    """Within it, the model's head sees these places of the row only."""

    def __init__(self, model: Any, places: Sequence[int]) -> None:
        self._head, self._places = model.get_output_embeddings(), list(places)

    def __enter__(self) -> None:
        def gather(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (args[0][:, self._places], *args[1:])

        self._hook = self._head.register_forward_pre_hook(gather)

    def __exit__(self, *error: object) -> None:
        self._hook.remove()


class Reading:
    """The attention plan of one pass: every piece sees its ancestors and itself."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self._masks: dict[tuple[int, int | None], torch.Tensor] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        import torch

        out = query.new_empty(query.shape[:3] + value.shape[3:])
        at = 0
        for number, piece in enumerate(self.pieces):
            here = slice(at, at + len(piece.ids))
            at = here.stop
            segment = piece.segment
            if len(segment.keys) <= layer:
                length = len(segment.ids)
                segment.keys.append(key.new_empty((key.shape[1], length, key.shape[3])))
                segment.values.append(value.new_empty((value.shape[1], length, value.shape[3])))
            segment.keys[layer][:, piece.begin : piece.end] = key[0, :, here]
            segment.values[layer][:, piece.begin : piece.end] = value[0, :, here]
            above = segment.chain()[:-1]
            keys = torch.cat([*(s.keys[layer] for s in above), segment.keys[layer][:, : piece.end]], dim=1)
            values = torch.cat([*(s.values[layer] for s in above), segment.values[layer][:, : piece.end]], dim=1)
            mask = self._mask(number, window, query)
            out[0, :, here] = attended(query[0, :, here], keys, values, mask, scaling, softcap)
        return out.transpose(1, 2)

    def _mask(self, number: int, window: int | None, query: torch.Tensor) -> torch.Tensor:
        """(tokens of the piece, tokens up to its end), additive."""
        import torch

        if (number, window) not in self._masks:
            piece = self.pieces[number]
            stop = piece.position + len(piece.ids)
            places = torch.arange(stop, device=query.device)
            back = places[piece.position :, None] - places[None]
            hidden = back < 0 if window is None else (back < 0) | (back >= window)
            mask = torch.zeros(hidden.shape, dtype=query.dtype, device=query.device)
            self._masks[number, window] = mask.masked_fill_(hidden, float("-inf"))
        return self._masks[number, window]


def attended(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scaling: float | None, softcap: float | None
) -> torch.Tensor:
    """query: (heads, n, size). keys, values: (key-value heads, m, size). mask: (n, m), additive. Returns (heads, n, size)."""
    import torch

    if softcap is None:
        return torch.nn.functional.scaled_dot_product_attention(
            query[None], keys[None], values[None], attn_mask=mask, scale=scaling, enable_gqa=query.shape[0] != keys.shape[0]
        )[0]
    heads, n, _ = query.shape
    block = max(1, _SCORES // (heads * keys.shape[1]))
    if n > block:
        parts = zip(torch.split(query, block, dim=1), torch.split(mask, block), strict=True)
        return torch.cat([attended(q, keys, values, m, scaling, softcap) for q, m in parts], dim=1)
    grouped = query.reshape(keys.shape[0], -1, query.shape[-1])
    scores = scored(grouped, keys, scaling, softcap).view(heads, n, -1) + mask
    shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype)
    return torch.bmm(shares.view(keys.shape[0], -1, keys.shape[1]), values).view(heads, n, -1)


def scored(query: torch.Tensor, keys: torch.Tensor, scaling: float | None, softcap: float | None) -> torch.Tensor:
    """(batch, n, m) attention scores before any mask. query: (batch, n, size). keys: (batch, m, size)."""
    import torch

    scores = torch.bmm(query, keys.transpose(1, 2)) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap
