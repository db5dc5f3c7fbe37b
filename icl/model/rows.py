"""The texts that are being written, one row each: their keys and values, and the attention of one step.

What rows share (the kept segments of their prompts) is stored once and attended to with one matrix product for all of them. What is
a row's own stands in preallocated tensors, so that a step writes one place per row. A row that ends gives its place to the last one;
nothing else is moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .attention import planned
from .branches import Segment
from .decoding import Writer
from .reading import scored

if TYPE_CHECKING:
    import torch


@dataclass(slots=True)
class Row:
    """One text."""

    writer: Writer
    tail: Segment
    shared: list[Segment]
    """Kept segments, from the root."""
    begin: int
    """Position of the first token that is its own."""
    n_own: int
    """Tokens of its own that are stored."""


@dataclass(slots=True)
class _Shared:
    """A kept segment in one step."""

    segment: Segment
    rows: torch.Tensor | None
    """Places of the rows that see it; None: all."""


class Rows:
    """The attention plan of the steps, and the store behind it.

    slots: most rows. capacity: most tokens that a row has of its own.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots = slots
        self.capacity = capacity
        self.rows: list[Row] = []
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []

    def begin(self, tail: Segment, writer: Writer) -> None:
        """A text of a prompt that has been read."""
        chain = tail.chain()
        shared = [segment for segment in chain if segment.kept]
        at, slot = 0, len(self.rows)
        assert slot < self.slots
        for segment in chain[len(shared) :]:
            for layer, (keys, values) in enumerate(zip(segment.keys, segment.values, strict=True)):
                if len(self._keys) <= layer:  # zeros: what is masked is still multiplied, and must not be NaN
                    self._keys.append(keys.new_zeros((self.slots, keys.shape[0], self.capacity, keys.shape[2])))
                    self._values.append(values.new_zeros((self.slots, values.shape[0], self.capacity, values.shape[2])))
                self._keys[layer][slot, :, at : at + keys.shape[1]] = keys
                self._values[layer][slot, :, at : at + keys.shape[1]] = values
            at += len(segment.ids)
        self.rows.append(Row(writer, tail, shared, shared[-1].end if shared else 0, at))
        tail.begun(1)

    def leave(self) -> None:
        """Rows whose texts are done go."""
        for at in range(len(self.rows) - 1, -1, -1):
            row = self.rows[at]
            if not row.writer.done:
                continue
            row.tail.ended()
            last = self.rows.pop()
            if last is row:
                continue
            self.rows[at] = last
            for tensor in (*self._keys, *self._values):
                tensor[at, :, : last.n_own] = tensor[len(self.rows), :, : last.n_own]

    def step(self, model: Any) -> torch.Tensor:
        """Logits (rows, vocabulary) behind the last token of every row."""
        import torch

        device = model.device
        n_own = [row.n_own for row in self.rows]
        positions = torch.tensor([[row.begin + row.n_own for row in self.rows]], device=device)
        self._places = torch.arange(len(self.rows), device=device)
        self._n_own = torch.tensor(n_own, device=device)
        self._width = max(n_own) + 1
        self._positions = positions[0]
        self._high = int(positions.max())
        self._shared = self._kept(device)
        self._depth = max((found.segment.end for found in self._shared), default=0)
        self._even = all(found.rows is None for found in self._shared)
        self._masks: dict[int | None, torch.Tensor] = {}
        tokens = torch.tensor([[row.writer.ids[-1] for row in self.rows]], device=device)
        with planned(model, self):
            logits: torch.Tensor = model(input_ids=tokens, position_ids=positions, use_cache=False).logits[0]
        for row in self.rows:
            row.n_own += 1
        return logits

    def _kept(self, device: Any) -> list[_Shared]:
        import torch

        seen: dict[int, tuple[Segment, list[int]]] = {}
        for at, row in enumerate(self.rows):
            for segment in row.shared:
                seen.setdefault(id(segment), (segment, []))[1].append(at)
        return [
            _Shared(segment, None if len(places) == len(self.rows) else torch.tensor(places, device=device))
            for segment, places in seen.values()
        ]

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

        n, width = len(self.rows), self._width
        heads, groups = query.shape[1], key.shape[1]
        keys, values = self._keys[layer], self._values[layer]
        keys[self._places, :, self._n_own] = key[0].transpose(0, 1)
        values[self._places, :, self._n_own] = value[0].transpose(0, 1)
        keys, values = (store[:n].flatten(0, 1)[:, :width] for store in (keys, values))
        asked = query[0].view(groups, heads // groups, n, -1).permute(2, 0, 1, 3)  # (rows, key-value heads, heads of each, size)
        own = scored(asked.reshape(n * groups, heads // groups, -1), keys, scaling, softcap)
        own = own.view(n, groups, -1, width) + self._mask(window, query)
        scores = self._scores(layer, asked, own, scaling, window, softcap)
        shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype)
        out = torch.bmm(shares[..., self._depth :].flatten(0, 1), values).view(n, groups, heads // groups, -1)
        for found in self._shared:
            segment = found.segment
            part = shares[..., segment.start : segment.end]
            part = (part if found.rows is None else part[found.rows]).transpose(0, 1)
            seen = torch.bmm(part.reshape(groups, -1, len(segment.ids)), segment.values[layer])
            seen = seen.view(groups, -1, heads // groups, seen.shape[-1]).transpose(0, 1)
            out = out + seen if found.rows is None else out.index_add(0, found.rows, seen)
        return out.reshape(1, n, heads, -1)

    def _scores(
        self, layer: int, asked: torch.Tensor, own: torch.Tensor, scaling: float | None, window: int | None, softcap: float | None
    ) -> torch.Tensor:
        """(rows, key-value heads, heads of each, places): first the places of shared segments by their position, then the own ones."""
        import torch

        if not self._shared:
            return own
        scores = own.new_empty((*own.shape[:3], self._depth + own.shape[3]))
        scores[..., self._depth :] = own
        if not self._even:
            scores[..., : self._depth] = float("-inf")
        for found in self._shared:
            segment, rows = found.segment, found.rows
            queries = (asked if rows is None else asked[rows]).transpose(0, 1)
            part = scored(queries.reshape(queries.shape[0], -1, queries.shape[3]), segment.keys[layer], scaling, softcap)
            part = part.view(*queries.shape[:3], -1).transpose(0, 1)
            if window is not None and self._high - segment.start >= window:
                positions = self._positions if rows is None else self._positions[rows]
                places = torch.arange(segment.start, segment.end, device=part.device)
                part = part.masked_fill((positions[:, None] - places[None] >= window)[:, None, None], float("-inf"))
            scores[slice(None) if rows is None else rows, ..., segment.start : segment.end] = part
        return scores

    def _mask(self, window: int | None, query: torch.Tensor) -> torch.Tensor:
        """(rows, 1, 1, width) over the own places, additive."""
        import torch

        if window not in self._masks:
            back = self._n_own[:, None] - torch.arange(self._width, device=query.device)[None]
            hidden = back < 0 if window is None else (back < 0) | (back >= window)
            mask = torch.zeros(hidden.shape, dtype=query.dtype, device=query.device)
            self._masks[window] = mask.masked_fill_(hidden, float("-inf"))[:, None, None]
        return self._masks[window]
