"""An encoder tuned so that texts of one label are near and texts of different labels are not: SetFit's first step, without its pairs.

SetFit (Tunstall et al. 2022, https://arxiv.org/abs/2209.11055) draws pairs of texts and encodes both of each. Here every text of a batch is
encoded once and all pairs of the batch count, by the supervised contrastive loss (Khosla et al. 2020,
https://arxiv.org/abs/2004.11362, L_out), so that a step on n texts sees n² pairs for n encodings, and memory is that of a batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..seeds import rng_for, seed_for
from .cost import Used, memory_mb, operations_of, tokens_of
from .encoder import train_encoder

if TYPE_CHECKING:
    import torch

FEWEST_STEPS, ENOUGH_STEPS, MOST_STEPS = 12, 24, 1000
AT_ONCE = 4
"""Texts of a step that go through the encoder together on a CPU, those of similar length: of 16 texts of cr half of what is computed in one
go is padding."""
PASSES = 2
"""How often each text is seen where the pool is large enough to need more than `ENOUGH_STEPS`."""


def n_steps_for(n: int, batch: int) -> int:
    """Steps for a pool of n texts: `ENOUGH_STEPS`, more where it takes more to see each text twice, fewer where the pool is so small that
    every pair would have been encoded by then (n - 1 steps on n texts), as SetFit does once."""
    enough = min(ENOUGH_STEPS, max(FEWEST_STEPS, n - 1))
    return min(max(enough, round(PASSES * n / batch)), MOST_STEPS)


@dataclass
class Spent(Used):
    """What tuning took."""

    n_trained: int = 0
    peak_memory_mb: float | None = None


def tune(
    model: Any,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    batch: int,
    steps: int,
    learning_rate: float,
    temperature: float,
    seed: int,
    spent: Spent | None = None,
) -> list[float]:
    """Train the encoder in place; the loss of every step. spent: what it takes is added to it.

    model: one of `icl.retrieve.encoders.model_in`. A text that is the only one of its label in a batch is put in twice: dropout makes
    two views of it (Gao et al. 2021, https://arxiv.org/abs/2104.08821).
    """
    import torch

    from .used_words import only_used_words

    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    lengths = model.lengths(texts)
    spent = spent or Spent()
    inner = getattr(model.module[0], "auto_model", model.module)
    device = str(model.module.device)

    def vectors_of(part: Sequence[str]) -> torch.Tensor:
        features = model.features(part)
        found: torch.Tensor = model.module(features)["sentence_embedding"]
        n, padding = tokens_of(features)
        spent.add(n, padding, estimate.training(n + padding, (n + padding) / len(part)))
        return found

    def loss(rows: Sequence[int]) -> torch.Tensor:
        rows = sorted(rows, key=lengths.__getitem__)
        size = AT_ONCE if model.on_cpu else len(rows)
        parts = [[texts[i] for i in rows[start : start + size]] for start in range(0, len(rows), size)]
        vectors = torch.nn.functional.normalize(torch.cat([vectors_of(part) for part in parts]), dim=1)
        now = memory_mb(device)
        spent.peak_memory_mb = max(spent.peak_memory_mb or 0.0, now) if now is not None else spent.peak_memory_mb
        targets = torch.tensor([numbers[labels[i]] for i in rows], device=vectors.device)
        return contrastive_loss(vectors, targets, temperature)

    chosen = list(batches(labels, batch, steps, seed))
    ids: set[int] = set()
    for start in range(0, len(texts), 64):
        ids |= set(model.features(texts[start : start + 64])["input_ids"].flatten().tolist())
    with only_used_words(model.module, ids):
        estimate = operations_of(inner)
        spent.n_trained = sum(p.numel() for p in model.module.parameters() if p.requires_grad)
        return train_encoder(
            model.module, chosen, loss, learning_rate=learning_rate, seed=seed_for(seed, "contrastive"), what="Tuning the encoder"
        )


def contrastive_loss(vectors: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """Khosla et al. 2020, equation 2 (L_out), for unit vectors (n, d) and their labels (n,): a scalar.

    -1/|P(i)| Σ_{p in P(i)} log( exp(z_i·z_p/τ) / Σ_{a≠i} exp(z_i·z_a/τ) ), averaged over the texts i that have others of their label (P(i)).
    """
    import torch

    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    scores = (vectors @ vectors.T / temperature).masked_fill(itself, float("-inf"))
    log_shares = (scores - scores.logsumexp(dim=1, keepdim=True)).masked_fill(itself, 0.0)
    same = (targets[:, None] == targets[None]) & ~itself
    n_same = same.sum(dim=1)
    return -((log_shares * same).sum(dim=1)[n_same > 0] / n_same[n_same > 0]).mean()


def batches(labels: Sequence[str], size: int, steps: int, seed: int) -> list[list[int]]:
    """Positions of the texts of each step, at least two of each label that is in it, from as many labels as there is room for.

    The texts of a label, and the labels where there are too many, are dealt from a shuffled deck, so that all come up equally often.
    """
    generator = rng_for(seed, "contrastive")
    rows: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        rows.setdefault(label, []).append(i)
    decks = {label: _Deck(of, generator) for label, of in rows.items()}
    names = _Deck(list(rows), generator)
    n_labels = min(len(rows), max(1, size // 2))
    result = []
    for _ in range(steps):
        step: list[int] = []
        for label in names.deal(n_labels):
            each = max(2, size // n_labels)
            dealt = decks[label].deal(min(each, len(rows[label])))
            step += dealt * 2 if len(dealt) == 1 else dealt
        result.append(step)
    return result


class _Deck:
    """Deals without repeats within a hand; shuffled again when it runs out."""

    def __init__(self, cards: Sequence[Any], generator: random.Random) -> None:
        self.cards, self.generator = list(cards), generator
        self.left: list[Any] = []

    def deal(self, n: int) -> list[Any]:
        """n different cards, n at most as many as there are."""
        hand = self.left[:n]
        self.left = self.left[n:]
        if len(hand) < n:
            fresh = self.generator.sample(self.cards, len(self.cards))
            more = [card for card in fresh if card not in hand][: n - len(hand)]
            self.left = [card for card in fresh if card not in more]
            hand += more
        return hand
