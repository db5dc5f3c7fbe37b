"""Losses as pure functions of logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

ClassWeights: TypeAlias = Literal["none", "balanced"] | Mapping[str, float]


def label_loss(logits: Tensor, targets: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0, focal: float = 0.0) -> Tensor:
    """(n,) the loss of each row, in nats.

    logits: (n, n_labels). targets: (n,) positions of the right labels, or (n, n_labels) probabilities. Cross-entropy, with

    weights: (n_labels,) a row counts by the weight of its label (of its probabilities' mean weight).
    smoothing: this share of the target is spread over all labels evenly (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, sec. 7).
    focal: γ; each term is multiplied by (1 - p)^γ, so that rows that are right already count less (Lin et al. 2017,
    https://arxiv.org/abs/1708.02002, eq. 4). With smoothing, p is that of each label for itself.
    """
    n_labels = logits.shape[-1]
    log_p = torch.log_softmax(logits.float(), dim=-1)
    wanted = torch.nn.functional.one_hot(targets, n_labels).to(log_p.dtype) if targets.ndim == 1 else targets.to(log_p.dtype)
    if smoothing:
        wanted = (1 - smoothing) * wanted + smoothing / n_labels
    terms = -wanted * log_p
    if focal:
        # 1 - p by expm1: for a row that is right it would cancel to 0, and its gradient be no number for γ < 1
        terms = terms * (-torch.expm1(log_p)).clamp_min(1e-12) ** focal
    if weights is not None:
        terms = terms * (wanted @ weights.to(log_p)).unsqueeze(-1) if targets.ndim > 1 else terms * weights.to(log_p)[targets].unsqueeze(-1)
    return terms.sum(dim=-1)


def distilled(loss: Callable[[Tensor, Tensor], Tensor], temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that learns probabilities of a teacher at a temperature: both sides' logits are divided by it, and the loss is multiplied by
    its square, so that its gradients stay as large (Hinton et al. 2015, https://arxiv.org/abs/1503.02531, sec. 2 and 2.1).

    The teacher's logits are the logarithms of its probabilities. A row whose target is certain is a label, and stays as it is.
    """

    def at_temperature(logits: Tensor, targets: Tensor) -> Tensor:
        """targets: (n, n_labels) probabilities."""
        is_soft = (targets.max(dim=-1, keepdim=True).values < 1).to(logits.dtype)
        t = 1 + is_soft * (temperature - 1)
        wanted = torch.softmax(targets.clamp_min(1e-12).log() / t, dim=-1)
        return t.squeeze(-1) ** 2 * loss(logits / t, torch.where(is_soft > 0, wanted, targets))

    return at_temperature


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """(n,) how far two distributions (n, n_labels) are apart: ½ (KL(p ‖ q) + KL(q ‖ p)), in nats (L_KL of R-Drop, eq. 1 there)."""
    log_p, log_q = torch.log_softmax(logits.float(), dim=-1), torch.log_softmax(others.float(), dim=-1)
    return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=-1)


def r_drop(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, others: Tensor, targets: Tensor, alpha: float) -> Tensor:
    """(n,) the loss of rows that were computed twice, with different dropout: the mean of both losses and α/2 times their `divergence`.

    Liang et al. 2021, https://arxiv.org/abs/2106.14448, eq. 4, halved, so that α = 0 is the loss itself."""
    return (loss(logits, targets) + loss(others, targets)) / 2 + alpha / 2 * divergence(logits, others)


def class_weights(kind: ClassWeights, targets: Sequence[str], labels: Sequence[str]) -> list[float] | None:
    """The weight of each label. balanced: n / (n_labels · n of the label), whose mean over the rows is 1; a label without rows gets 1.

    Weights that are given apply to the labels named, 1 to the others. None: no weights.
    """
    if kind == "none":
        return None
    if kind == "balanced":
        n = Counter(targets)
        return [len(targets) / (len(n) * n[label]) if n[label] else 1.0 for label in labels]
    return [float(kind.get(label, 1.0)) for label in labels]
