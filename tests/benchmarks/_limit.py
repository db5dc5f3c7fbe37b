"""The limit: the time that the operations nobody can avoid would take at the best rate the same model reaches.

Operations: every unique token of the prefix tree of all contexts and continuations, once, at its true context length; the last token of a
continuation is never computed; the vocabulary head only where a continuation is read. Rate: the model's body in one plain dense forward
pass, the best of a few shapes. Share of the limit = limit ÷ measured time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHAPES = ((1, 512), (4, 256), (4, 512), (8, 256), (2, 1024), (16, 128))
"""(rows, tokens) of the dense passes. A GPU needs more tokens at once to be at its best."""
CUDA_SHAPES = (*SHAPES, (16, 512), (32, 512), (64, 512), (16, 1024), (128, 256))
QUICK_SHAPES = ((1, 32), (2, 16))


@dataclass(frozen=True)
class Unique:
    """What has to be computed at least."""

    tokens: int
    positions: int
    """Sum over the tokens of what each sees, itself included."""
    reads: int
    """Places where the vocabulary head is needed."""
    naive: int
    """Tokens of one forward pass per continuation."""


def unique(tokenizer: Any, contexts: Sequence[str], continuations: Sequence[Sequence[str]]) -> Unique:
    """Counted from the tokenizer's joint encodings, in sorted order: what a sequence shares with the one before it is already there."""
    pairs = [(c, text) for c, texts in zip(contexts, continuations, strict=True) for text in texts]
    heads = dict(zip(contexts, tokenizer(list(contexts)).input_ids, strict=True))
    joints = tokenizer([c + text for c, text in pairs]).input_ids
    sequences = sorted((ids[:-1], _shared(heads[c], ids)) for (c, _), ids in zip(pairs, joints, strict=True))
    tokens = positions = reads = 0
    before: list[int] = []
    read: list[bool] = []  # along the open path: is the continuation's next token already read here?
    for ids, start in sequences:
        kept = _shared(before, ids)
        tokens += len(ids) - kept
        positions += (len(ids) * (len(ids) + 1) - kept * (kept + 1)) // 2
        read = read[:kept] + [False] * (len(ids) - kept)
        for place in range(min(start, len(ids)) - 1, len(ids)):
            reads += not read[place]
            read[place] = True
        before = ids
    return Unique(tokens, positions, reads, sum(len(ids) for ids, _ in sequences))


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@dataclass(frozen=True)
class Cost:
    """Operations (a multiplication and an addition are two) of one model."""

    token: int
    """The linear layers of the body, for a token."""
    seen: int
    """Attention, for a token and each position that it sees."""
    read: int
    """The vocabulary head, for a position."""

    def of(self, found: Unique) -> int:
        return found.tokens * self.token + found.positions * self.seen + found.reads * self.read

    def dense(self, rows: int, tokens: int) -> int:
        return rows * (tokens * self.token + tokens * (tokens + 1) // 2 * self.seen)


def cost(model: Any) -> Cost:
    """Of a transformers model whose body is made of linear layers and softmax attention."""
    from torch import nn

    config = model.config
    linear = sum(module.weight.numel() for module in model.base_model.modules() if isinstance(module, nn.Linear))
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * width
    return Cost(2 * linear, attention, 2 * config.vocab_size * config.hidden_size)


def dense_seconds(model: Any, shapes: Sequence[tuple[int, int]]) -> dict[str, float]:
    """Seconds of one plain forward pass of the body for each shape, key `rows x tokens`."""
    import torch

    body, found = model.base_model, {}
    for rows, tokens in shapes:
        ids = torch.randint(3, model.config.vocab_size, (rows, tokens), device=model.device)
        synchronize(model.device)
        start = time.perf_counter()
        with torch.inference_mode():
            body(input_ids=ids, use_cache=False)
        synchronize(model.device)
        found[f"{rows}x{tokens}"] = time.perf_counter() - start
    return found


def synchronize(device: Any) -> None:
    """Wait for a GPU; nothing to wait for on a CPU."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
