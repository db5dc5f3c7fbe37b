"""Losses of answers that are texts, as functions of the log-likelihoods of their tokens. Those of T-Few are here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from .losses import distilled, label_loss

Part: TypeAlias = Literal["labels", "language_model", "unlikelihood", "length_normalised"]
PARTS: tuple[Part, ...] = ("labels", "language_model", "unlikelihood", "length_normalised")


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of one row: each one or several continuations (the words of a label), and which are right."""

    groups: tuple[tuple[int, ...], ...]
    """Per answer its continuations."""
    right: int | tuple[float, ...]
    """The right answer, or a probability for each."""
    divisors: tuple[float, ...]
    """Per continuation what its sum is divided by for the answer's score: 1, or its length."""

    @property
    def shares(self) -> tuple[float, ...]:
        """The probability of each answer."""
        if isinstance(self.right, tuple):
            return self.right
        return tuple(float(i == self.right) for i in range(len(self.groups)))


@dataclass(frozen=True, slots=True)
class LossForm:
    """Which losses are added up, and how those that compare answers are changed."""

    parts: tuple[Part, ...] = ("labels",)
    smoothing: float = 0.0
    focal: float = 0.0
    weights: tuple[float, ...] | None = None
    """Of the answers, where all rows have the same."""
    temperature: float = 1.0
    """Of probabilities that are learned where answers are compared."""


def answers_loss(log_p: Tensor, owner: Tensor, rows: Sequence[Answers], form: LossForm) -> Tensor:
    """(n_rows,) the loss of each row, in nats.

    log_p: (n_tokens,) log-likelihoods of all tokens of all continuations. owner: (n_tokens,) whose they are, counted through the rows.
    """
    total = torch.zeros(len(rows), device=log_p.device)
    for part in form.parts:
        total = total + _PARTS[part](log_p, owner, rows, form)
    return total


def scores_of(log_p: Tensor, owner: Tensor, rows: Sequence[Answers], *, per_token: bool = False) -> list[Tensor]:
    """Per row (n_answers,): the log-sum-exp over an answer's words of their log-likelihoods, each divided by its divisor. per_token: by
    its tokens."""
    n = sum(len(row.divisors) for row in rows)
    sums = torch.zeros(n, device=log_p.device).index_add(0, owner, log_p)
    if per_token:
        divisors = torch.bincount(owner, minlength=n).to(sums)
    else:
        divisors = torch.tensor([d for row in rows for d in row.divisors], device=log_p.device)
    values = sums / divisors
    groups, start = [], 0
    for row in rows:
        groups += [[start + at for at in group] for group in row.groups]
        start += len(row.divisors)
    width = max(map(len, groups), default=1)
    if width == 1:
        found = values[[at for group in groups for at in group]]
    else:
        filled = torch.tensor([group + [n] * (width - len(group)) for group in groups], device=log_p.device)
        found = torch.cat([values, values.new_full((1,), -torch.inf)])[filled].logsumexp(dim=-1)
    return list(torch.split(found, [len(row.groups) for row in rows]))


def _labels(log_p: Tensor, owner: Tensor, rows: Sequence[Answers], form: LossForm) -> Tensor:
    return _compared(scores_of(log_p, owner, rows), rows, form)


def _length_normalised(log_p: Tensor, owner: Tensor, rows: Sequence[Answers], form: LossForm) -> Tensor:
    """Cross-entropy over the answers' mean log-likelihoods per token (Liu et al. 2022, https://arxiv.org/abs/2205.05638, eq. 2 and 3)."""
    return _compared(scores_of(log_p, owner, rows, per_token=True), rows, form)


def _compared(scores: Sequence[Tensor], rows: Sequence[Answers], form: LossForm) -> Tensor:
    """Cross-entropy over the answers of each row, rows with as many of them together."""
    found = torch.zeros(len(rows), device=scores[0].device)
    for n in dict.fromkeys(len(row.groups) for row in rows):
        at = [i for i, row in enumerate(rows) if len(row.groups) == n]
        hard = all(isinstance(rows[i].right, int) for i in at)
        targets = torch.tensor([rows[i].right if hard else rows[i].shares for i in at], device=found.device)
        logits = torch.stack([scores[i] for i in at])
        weights = None if form.weights is None else torch.tensor(form.weights, device=found.device)
        loss = partial(label_loss, weights=weights, smoothing=form.smoothing, focal=form.focal)
        losses = (loss if hard or form.temperature == 1 else distilled(loss, form.temperature))(logits, targets)
        found = found.index_put((torch.tensor(at, device=found.device),), losses)
    return found


def _language_model(log_p: Tensor, owner: Tensor, rows: Sequence[Answers], form: LossForm) -> Tensor:
    """Minus the mean log-likelihood per token of the right answer's first word (eq. 1 there), its mean over answers with probabilities."""
    n = sum(len(row.divisors) for row in rows)
    means = torch.zeros(n, device=log_p.device).index_add(0, owner, log_p) / torch.bincount(owner, minlength=n)
    wanted, start = torch.zeros(len(rows), n, device=log_p.device), 0
    for i, row in enumerate(rows):
        for answer, (share, group) in enumerate(zip(row.shares, row.groups, strict=True)):
            wanted[i, start + group[0]] += share * (form.weights[answer] if form.weights is not None else 1.0)
        start += len(row.divisors)
    return -(wanted @ means)


def _unlikelihood(log_p: Tensor, owner: Tensor, rows: Sequence[Answers], form: LossForm) -> Tensor:
    """Minus the mean of log(1 - p) over the tokens of all wrong answers (eq. 4 there, after Welleck et al. 2020). With probabilities, an
    answer is wrong by the share that is left."""
    terms = -torch.log((-torch.expm1(log_p)).clamp_min(1e-6))  # a token that is certain: 1 - p is rounded to 0
    wrong, place, factors = [], [], []
    for i, row in enumerate(rows):
        of = [1.0] * len(row.divisors)
        for share, group in zip(row.shares, row.groups, strict=True):
            for at in group:
                of[at] = min(of[at], 1 - share)
        wrong += of
        place += [i] * len(of)
        weights = form.weights or (1.0,) * len(row.groups)
        factors.append(sum(w * s for w, s in zip(weights, row.shares, strict=True)))
    weight = torch.tensor(wrong, device=log_p.device)[owner]
    row_of = torch.tensor(place, device=log_p.device)[owner]
    zeros = torch.zeros(len(rows), device=log_p.device)
    mean = zeros.index_add(0, row_of, weight * terms) / zeros.index_add(0, row_of, weight).clamp_min(1e-9)
    return mean * torch.tensor(factors, device=log_p.device)


_PARTS = {
    "labels": _labels,
    "length_normalised": _length_normalised,
    "language_model": _language_model,
    "unlikelihood": _unlikelihood,
}
