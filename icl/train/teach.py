"""What an encoder classifier is taught: rows with labels, or with probabilities of a teacher, as a lesson for the training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .classifier import EncoderClassifier
from .loop import Lesson, shuffled
from .losses import label_loss, r_drop
from .texts import Read

Taught: TypeAlias = tuple[Sequence[Read], Tensor]
"""Rows, and the positions of their labels (n,), or probabilities (n, n_labels)."""


def lesson_for(
    made: EncoderClassifier,
    taught: Taught,
    batch_size: int,
    *,
    seed: int = 0,
    validation: Taught | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = label_loss,
    vary: Callable[[int, int], Read] | None = None,
    alpha: float = 0.0,
    mixed: Callable[[Any], Any] = lambda model: model,
    key: Any = None,
) -> Lesson:
    """loss: (logits, targets) -> (n,), nats per row. validation: rows that are judged after each epoch: accuracy first, then the plain
    cross-entropy, decide which epoch is kept. vary: (row, epoch) -> the row as it is shown then. alpha: of R-Drop; above 0 each row is computed twice. mixed: model -> what is
    called in its place in a step (`mixout.mixing`)."""
    rows, targets = taught

    def collate(positions: Sequence[int], epoch: int) -> dict[str, Any]:
        shown = [vary(at, epoch) if vary is not None else rows[at] for at in positions]
        return {**made.batch(shown), "targets": targets[list(positions)]}

    def mean_loss(model: Any, batch: Mapping[str, Any]) -> Tensor:
        logits, targets = made.logits(mixed(model), batch), batch["targets"]
        if not alpha:
            return loss(logits, targets).mean()
        return r_drop(loss, logits, made.logits(mixed(model), batch), targets, alpha).mean()

    def validate(model: Any) -> dict[str, float]:
        assert validation is not None
        return judged(made.predict(validation[0]), validation[1])

    batches = shuffled(len(rows), batch_size, seed, [row.n_tokens for row in rows])
    return Lesson(
        batches, collate, mean_loss, validate if validation else None, ("accuracy", "-validation_loss"), key, passes=2 if alpha else 1
    )


def judged(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Accuracy and mean cross-entropy in nats; for probabilities as targets, accuracy against the most likely label."""
    right = targets if targets.ndim == 1 else targets.argmax(dim=-1)
    return {
        "accuracy": float((logits.argmax(dim=-1) == right).to(torch.float64).mean()),
        "validation_loss": float(label_loss(logits, targets).to(torch.float64).mean()),
    }
