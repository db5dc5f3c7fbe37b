"""How much is computed at once: the memory budget in tokens, and what running out of it looks like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, Problem
from .forward import text_config

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def parse_memory(memory: str | int) -> int:
    """Bytes of `4GiB`, `500 MB` or a number. Raises InputError."""
    if isinstance(memory, int) and memory > 0:
        return memory
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", str(memory))
    if not found or found[2].lower() not in _UNITS or float(found[1]) <= 0:
        raise InputError(Problem(f"'{memory}' is no amount of memory", "Write for example memory='4GiB'.", field="memory"))
    return int(float(found[1]) * _UNITS[found[2].lower()])


@dataclass(frozen=True, slots=True)
class Limits:
    """What one batch may hold, so that it stays within the memory budget."""

    row_tokens: int
    """Queries with a common prefix share a row up to this length."""
    batch_tokens: int
    """Tokens of a batch, padding included."""
    reads: int
    """Positions at which the whole vocabulary is computed."""
    max_rows: int | None
    cache_bytes: int
    """Key-value cache of one token."""
    token_bytes: int
    """Activations of one token in one layer."""
    memory: int

    @property
    def cells(self) -> int:
        """Most tokens of a chunk times tokens that they see: an eighth of the budget for masks, of which the widest numbers take 8 bytes."""
        return self.memory // 64

    @property
    def kept_tokens(self) -> int:
        """Tokens whose keys and values may be kept: half of the budget, since they lie there twice while a path grows."""
        return self.memory // 2 // max(self.cache_bytes, 1)

    @classmethod
    def of(cls, model: Any, memory: str | int, max_batch: int | None) -> Limits:
        """For a loaded model: half of the budget for activations, a quarter for logits."""
        if max_batch is not None and max_batch < 1:
            raise InputError(Problem(f"max_batch is {max_batch}", "Give at least 1, or leave it out.", field="max_batch"))
        budget = parse_memory(memory)
        config = text_config(model)
        element = model.dtype.itemsize
        hidden = int(getattr(config, "hidden_size", 0) or 768)
        inner = int(getattr(config, "intermediate_size", 0) or 4 * hidden)
        layers = int(getattr(config, "num_hidden_layers", 0) or 12)
        heads = int(getattr(config, "num_attention_heads", 0) or 1)
        groups = int(getattr(config, "num_key_value_heads", 0) or heads)
        head_size = int(getattr(config, "head_dim", 0) or hidden // heads)
        token_bytes = element * (16 * hidden + 4 * inner)
        # A CPU is fastest with small batches: larger ones fall out of its cache. Measured with smollm2: 4 rows of about 400 tokens,
        # and queries that share most of their prompt up to 2,048 tokens in a row (30 % less time than up to 1,024).
        most = 2048 if model.device.type == "cpu" else 32768
        batch = max(64, min(most, budget // 2 // token_bytes))
        return cls(
            row_tokens=min(2048, batch),
            batch_tokens=batch,
            reads=max(16, budget // 4 // (int(config.vocab_size) * 12)),
            max_rows=max_batch,
            cache_bytes=element * 2 * layers * groups * head_size,
            token_bytes=token_bytes,
            memory=budget,
        )

    def writing_rows(self, prompt_tokens: int, new_tokens: int) -> int:
        """Texts that are written at once."""
        cached = self.cache_bytes * (prompt_tokens + new_tokens)
        read = self.token_bytes * prompt_tokens
        rows = max(1, self.memory // 2 // max(cached + read, 1))
        return min(rows, self.max_rows or 64, 256)


def is_out_of_memory(error: BaseException) -> bool:
    """True for the ways in which torch says that memory ran out."""
    import torch

    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text or "not enough memory" in text)
    )
