"""Documents of many lengths in rows of one length, without one seeing another.

A document longer than a row is cut into whole rows and a rest; rests and short documents share rows, put together by best fit, so that
nothing is cut that fits and little is padded (Ding et al. 2024, https://arxiv.org/abs/2404.10830). Tokens attend within their own piece
alone and positions begin anew with it, so a piece is computed as if it were alone. Where an architecture cannot do that, which is
measured, each piece gets a row of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NO_LABEL = -100
"""A position that is not to be predicted."""
TOLERANCE = 1e-3
"""Largest difference of logits between a packed piece and the piece alone."""


def cut(lengths: Sequence[int] | NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """(n_pieces, 3): document, first token, end, none longer than `room` tokens. Documents of one token or none have no pieces."""
    pieces = [(i, start, min(start + room, n)) for i, n in enumerate(map(int, lengths)) for start in range(0, n, room)]
    return np.asarray([p for p in pieces if p[2] - p[1] > 1], dtype=np.int64).reshape(-1, 3)


def pack(sizes: Sequence[int] | NDArray[np.int64], room: int) -> list[list[int]]:
    """Pieces of each row, by best fit: longest first, each into the fullest row that has room for it. No size is above `room`."""
    rows: list[list[int]] = []
    with_left: list[list[int]] = [[] for _ in range(room + 1)]  # room left -> rows
    for piece in sorted(range(len(sizes)), key=lambda i: (-int(sizes[i]), i)):
        size = int(sizes[piece])
        left = next((n for n in range(size, room + 1) if with_left[n]), None)
        if left is None:
            rows.append([piece])
            with_left[room - size].append(len(rows) - 1)
        else:
            row = with_left[left].pop()
            rows[row].append(piece)
            with_left[left - size].append(row)
    return rows


@dataclass(frozen=True)
class Packed:
    """How rows are shown to a model."""

    apart: bool
    """Several pieces share a row, kept apart by a mask of their own."""
    first_position: int
    """Number of a piece's first position."""
    pad: int

    def batch(self, rows: Sequence[Sequence[Sequence[int]]], labels: Sequence[Sequence[Sequence[int]]]) -> dict[str, Tensor]:
        """rows: token ids of the pieces of each row; labels: of the same shape, what is to be predicted at each place, or NO_LABEL.

        Returns tensors (n_rows, longest): `input_ids`, `attention_mask`, `owner` (which piece, -1: padding), `position_ids`, `labels`.
        """
        width = max(sum(map(len, row)) for row in rows)
        shape = (len(rows), width)
        ids, owner = np.full(shape, self.pad, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
        positions, wanted = np.zeros(shape, dtype=np.int64), np.full(shape, NO_LABEL, dtype=np.int64)
        for i, (row, aims) in enumerate(zip(rows, labels, strict=True)):
            at = 0
            for n, (piece, aim) in enumerate(zip(row, aims, strict=True)):
                place = slice(at, at + len(piece))
                ids[i, place], owner[i, place], wanted[i, place] = piece, n, aim
                positions[i, place] = np.arange(len(piece))
                at += len(piece)
        arrays = {"input_ids": ids, "attention_mask": (owner >= 0).astype(np.int64), "owner": owner, "labels": wanted}
        arrays["position_ids"] = positions + self.first_position
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def inputs(self, model: Any, batch: Mapping[str, Tensor], *, causal: bool) -> dict[str, Tensor]:
        """What the model is called with."""
        if not self.apart:
            return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        return {
            "input_ids": batch["input_ids"],
            "attention_mask": _mask(model, batch["owner"], causal),
            "position_ids": batch["position_ids"],
        }


def _mask(model: Any, owner: Tensor, causal: bool) -> Tensor:
    """(n, 1, length, length): tokens of one piece see each other, causally or all. Padding sees padding, for a row that sees nothing
    has no softmax."""
    seen = owner.unsqueeze(2) == owner.unsqueeze(1)
    if causal:
        seen = seen & torch.ones(seen.shape[-2:], dtype=torch.bool, device=owner.device).tril()
    seen = seen.unsqueeze(1)
    if getattr(model.config, "_attn_implementation", None) == "sdpa":
        return seen
    return torch.zeros(seen.shape, dtype=model.dtype, device=owner.device).masked_fill(~seen, torch.finfo(model.dtype).min)


def logits_at(model: Any, inputs: Mapping[str, Tensor], places: Tensor) -> Tensor:
    """(n, vocabulary) float32 logits at the places (n_rows, length) that are true, in their order; the output layer computes no others,
    which for masked models with a large vocabulary is half of all work."""
    body = model.base_model

    def only(_: Any, __: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[places].unsqueeze(0)
        return output

    hook: Callable[..., Any] = body.register_forward_hook
    handle = hook(only)
    try:
        logits = model(**inputs).logits
    finally:
        handle.remove()
    found: Tensor = logits[0].float()
    return found


def how_to_pack(model: Any, tokenizer: Any, length: int, *, causal: bool) -> Packed:
    """Try rows of two pieces against each of them alone, at the full length."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    offsets = [0, int(getattr(model.config, "pad_token_id", None) or 0) + 1]  # RoBERTa's positions begin behind that of the padding token
    was_training = model.training
    model.eval()
    try:
        for offset in offsets:
            packed = Packed(True, offset, int(pad))
            if length >= 4 and _keeps_apart(packed, model, length, causal):
                return packed
    finally:
        model.train(was_training)
    return Packed(False, 0, int(pad))


def _keeps_apart(packed: Packed, model: Any, length: int, causal: bool) -> bool:
    rng = np.random.default_rng(0)
    ids = rng.integers(5, max(6, int(model.config.vocab_size)), length).tolist()
    first, second = ids[: 2 * length // 3], ids[2 * length // 3 :]
    alone = Packed(False, 0, packed.pad)

    def logits(how: Packed, row: list[list[int]]) -> Tensor:
        batch = {name: t.to(model.device) for name, t in how.batch([row], [[[0] * len(piece) for piece in row]]).items()}
        found: Tensor = model(**how.inputs(model, batch, causal=causal)).logits[0].float()
        return found

    with torch.no_grad():
        expected = torch.cat([logits(alone, [first]), logits(alone, [second])])
        try:
            found = logits(packed, [first, second])
        except Exception:  # an architecture that takes no mask or positions of this kind says so in its own way
            return False
    return found.shape == expected.shape and bool((found - expected).abs().max() < TOLERANCE * max(1.0, float(expected.abs().max())))
