"""Mixout: in each step a part of the weights is what it was before training, so that few rows do not carry a model far from there.

Lee, Cho and Kang 2020, https://arxiv.org/abs/1909.11299.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def mixout(weight: Tensor, start: Tensor, share: float) -> Tensor:
    """Each element is with probability `share` that of `start`, and what is mixed is scaled so that its mean is `weight` (eq. 5 there):
    (M ∘ start + (1 - M) ∘ weight - share · start) / (1 - share). Drawn from torch's generator."""
    kept = torch.rand_like(weight) < share
    return (torch.where(kept, start, weight) - share * start) / (1 - share)


def mixing(model: nn.Module, pretrained: nn.Module, share: float) -> Callable[[Any], Callable[..., Any]]:
    """model -> the same model with mixed weights, drawn anew with each call. Call it before training: what the weights are now is kept.

    Mixed are the matrices of the linear layers of `pretrained`, a part of the model, that are trained; a new head is not, and dropout stays
    as it is set (the paper has none).
    """
    linear = {id(module.weight) for module in pretrained.modules() if isinstance(module, nn.Linear)}
    start = {name: p.detach().clone() for name, p in model.named_parameters() if id(p) in linear and p.requires_grad}

    def mixed(model: Any) -> Callable[..., Any]:
        now = dict(model.named_parameters())
        weights = {name: mixout(now[name], value, share) for name, value in start.items()}
        return lambda **inputs: torch.func.functional_call(model, weights, (), inputs)

    return mixed
