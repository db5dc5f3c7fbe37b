"""What training and using a model costs: operations, memory, and room on disk."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem

if TYPE_CHECKING:
    import torch

RESERVE = 64 << 20
"""Bytes that are left free on a disk."""


@dataclass(frozen=True, slots=True)
class Operations:
    """Floating-point operations of a model per token, estimated from its shapes: two for each weight of a matrix that the token goes
    through, and in attention 4 · width · length for each layer (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361, sec. 2.1, with
    the whole length instead of half of it). Embedding look-ups, normalisation and softmax are left out; a layer that sees one token of a
    text only, such as a classification head, is counted for all of them.
    """

    per_token: float
    per_token_and_length: float
    """To be multiplied by the length of the token's sequence."""
    backward: float
    """Operations of the backward pass by those of the forward pass: 2 if all weights are trained, about 1 for an adapter."""

    def forward(self, n_tokens: int, length: float) -> float:
        """Of `n_tokens` tokens in sequences of `length`, padding included in both."""
        return n_tokens * (self.per_token + self.per_token_and_length * length)

    def training(self, n_tokens: int, length: float) -> float:
        return self.forward(n_tokens, length) * (1 + self.backward)


def operations_of(model: torch.nn.Module) -> Operations:
    """The estimate for a model as it is now: weights that need no gradient make the backward pass cheaper.

    The matrices are the weights of linear layers (and those of adapters beside them), with an output layer that shares its weight with
    the embedding. Layers below the lowest trained one take no part in the backward pass.
    """
    import torch

    total = trained = above = 0
    is_below = True
    layer: Any
    for layer in model.modules():
        is_below = is_below and not any(p.requires_grad for p in layer.parameters(recurse=False))
        if not isinstance(layer, torch.nn.Linear) and type(layer).__name__ not in ("Conv1D", "Linear4bit", "Linear8bitLt"):
            continue
        weight = layer.weight
        n = int(weight.numel()) if type(layer).__name__ != "Linear4bit" else int(layer.in_features) * int(layer.out_features)
        total += n
        trained += n if weight.requires_grad else 0
        above += 0 if is_below else n
    config: Any = getattr(model, "config", None)
    width = int(getattr(config, "hidden_size", 0) or getattr(config, "n_embd", 0) or 0)
    layers = int(getattr(config, "num_hidden_layers", 0) or getattr(config, "n_layer", 0) or 0)
    return Operations(2.0 * total, 4.0 * width * layers, (above + trained) / total if total else 0.0)


def tokens_of(batch: Any) -> tuple[int, int]:
    """(tokens, padded positions) of a batch: every tensor `attention_mask` in it, or `input_ids` where there is no mask."""
    if isinstance(batch, Mapping):
        if (mask := batch.get("attention_mask")) is not None:
            n = int(mask.sum())
            return n, int(mask.numel()) - n
        if (ids := batch.get("input_ids")) is not None and hasattr(ids, "numel"):
            return int(ids.numel()), 0
        parts = [tokens_of(value) for value in batch.values()]
    elif isinstance(batch, list | tuple):
        parts = [tokens_of(value) for value in batch]
    else:
        return 0, 0
    return sum(n for n, _ in parts), sum(n for _, n in parts)


def n_bytes_of(model: torch.nn.Module, *, trained_only: bool = True) -> int:
    """Bytes of a model's parameters."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad or not trained_only)


def memory_mb(device: str = "cpu") -> float | None:
    """MiB in use now by this process, on CUDA at most since `reset_memory`; None where the platform does not say."""
    if device.startswith("cuda"):
        import torch

        return round(torch.cuda.max_memory_allocated() / (1 << 20), 1)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), 1)
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def reset_memory(device: str) -> None:
    """Start measuring anew."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats()


def check_disk(folder: Path, n_bytes: int, what: str) -> None:
    """Raises InputError if fewer than `n_bytes`, and a reserve, are free where the folder is, or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < n_bytes + RESERVE:
        raise InputError(
            Problem(
                f"no room on disk for {what}: it takes {(n_bytes + RESERVE) / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free",
                "Free some space, or name a folder on another disk.",
                str(folder),
            )
        )


@dataclass
class Used:
    """Running totals of a predictor, as a run reads them: its attribute `totals`."""

    computed: int = 0
    """Tokens, padding excluded."""
    padding: int = 0
    operations: float = 0.0

    def add(self, computed: int, padding: int, operations: float) -> None:
        self.computed, self.padding, self.operations = self.computed + computed, self.padding + padding, self.operations + operations


def tokens_spent(lm: Any) -> int:
    """Tokens that a language model has computed so far, or, behind an address, those it was sent and wrote, its probe included."""
    totals, usage = getattr(lm, "totals", None), getattr(lm, "usage", None)
    if totals is not None:
        return int(totals.computed + totals.padded)
    return 0 if usage is None else int(usage.input_tokens + usage.output_tokens)
