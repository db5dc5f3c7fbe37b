"""The layers of a model: which are trained, how fast, and their dropout."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import nn

from ..errors import InputError, Problem

_EMBEDDING = re.compile(r"embeddings?\b|embed_(tokens|positions|in)|\bw[tp]e\b|\bshared\b")


def layers_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, module) of the model's stacked layers, lowest first: the list of modules with the most parameters."""
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module)]
    if not lists:
        return []
    name, stack = max(lists, key=lambda pair: (sum(p.numel() for p in pair[1].parameters()), -len(pair[0])))
    return [(f"{name}.{i}", layer) for i, layer in enumerate(stack)]


def freeze_lower(model: nn.Module, n: int | Literal["all"]) -> None:
    """Take the embeddings and the n lowest layers out of training; "all": everything but what stands beside and above the layers.

    0 changes nothing. Raises InputError if the model has fewer layers.
    """
    if n == 0:
        return
    stack = layers_of(model)
    if n != "all" and n > len(stack):
        raise InputError(
            Problem(f"the model has {len(stack)} layers, so {n} cannot be frozen", f"Use {len(stack)} at most.", field="freeze")
        )
    top = len(stack) if n == "all" else n
    for name, parameter in model.named_parameters():
        if _depth(name, stack) <= top:
            parameter.requires_grad_(False)


def set_dropout(model: nn.Module, share: float) -> None:
    """Give every dropout of a model the same share, those of attention included."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = share  # type: ignore[assignment]
        elif isinstance(getattr(module, "dropout_prob", None), float):
            module.dropout_prob = share  # type: ignore[assignment]


def parameter_groups(model: nn.Module, learning_rate: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Groups for an optimiser: biases and normalisation without weight decay; with a layer decay below 1 each layer a step slower than
    the one above it, the embeddings slowest, what stands above the layers at the full rate (Howard and Ruder 2018,
    https://arxiv.org/abs/1801.06146, sec. 3.2).
    """
    stack = layers_of(model)
    top = len(stack) + 1
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1
            depth = _depth(name, stack) if layer_decay < 1 else top
            groups.setdefault((depth, decays), []).append(parameter)
    return [
        {"params": params, "lr": learning_rate * layer_decay ** (top - depth), "weight_decay": weight_decay if decays else 0.0}
        for (depth, decays), params in sorted(groups.items(), key=lambda item: item[0])
    ]


def _depth(name: str, stack: list[tuple[str, nn.Module]]) -> int:
    """0 for what stands below the layers (embeddings), 1 … n for the layers, n + 1 for what stands above."""
    for i, (layer, _) in enumerate(stack):
        if name.startswith(f"{layer}."):
            return i + 1
    return 0 if _EMBEDDING.search(name) else len(stack) + 1
