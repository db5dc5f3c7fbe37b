"""What an encoder-decoder model is taught: the encoder reads the prompt, and the loss is on what the decoder writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .causal import Computing, Taught


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt for the encoder and one continuation for the decoder."""

    prompt: tuple[int, ...]
    start: tuple[int, ...]
    """What the decoder begins with, which has no loss."""
    continuation: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.start) + len(self.continuation) - 1


def by_decoder(start: Sequence[int]) -> Computing:
    """start: the decoder's first tokens. Each continuation is a pass of its own with its prompt, all of a batch together."""

    def rows(taught: Taught) -> list[Pair]:
        return [Pair(taught.split.prefix, tuple(start), ids) for ids in taught.split.continuations]

    return Computing(rows, pair_values)


def pair_values(model: Any, rows: Sequence[Sequence[Pair]]) -> tuple[Tensor, Tensor]:
    """As `Computing.values`. Padding stands on the right: the encoder's is masked, the decoder's is seen by no token before it."""
    pairs = [pair for each in rows for pair in each]
    device = next(model.parameters()).device
    prompts, mask = _filled([pair.prompt for pair in pairs], device)
    written, _ = _filled([(*pair.start, *pair.continuation[:-1]) for pair in pairs], device)
    logits = model(input_ids=prompts, attention_mask=mask, decoder_input_ids=written, use_cache=False).logits
    reads = [(r, len(pair.start) - 1 + at, token) for r, pair in enumerate(pairs) for at, token in enumerate(pair.continuation)]
    row, place, target = (torch.tensor(each, device=device) for each in zip(*reads, strict=True))
    return torch.log_softmax(logits[row, place].float(), dim=-1)[torch.arange(len(reads), device=device), target], row


def _filled(lists: Sequence[Sequence[int]], device: Any) -> tuple[Tensor, Tensor]:
    """(n, width) ids with 0 behind each list, and 1 where there is a token."""
    width = max(map(len, lists))
    ids = torch.tensor([[*each, *[0] * (width - len(each))] for each in lists], device=device)
    return ids, torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in lists], device=device)
