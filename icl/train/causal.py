"""What a language model is taught: prompts and the log-likelihoods of the answers behind them, as a lesson for the training loop.

The same rows as the engine scores: tokens are split where it splits them, what the answers of a prompt share is computed once, and the
model is told by the same mask who sees whom.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..model.boundary import Split
from ..model.check import Examined
from ..model.forward import Path, read_logits
from ..model.tree import Item, Row, pack, pack_apart
from .loop import Batch, Lesson, shuffled
from .token_losses import Answers, LossForm, answers_loss, scores_of


@dataclass(frozen=True, slots=True)
class Taught:
    """A prompt with its answers."""

    split: Split
    answers: Answers
    cut: bool = False
    """Whether the answer goes on behind what the model reads."""

    @property
    def n_tokens(self) -> int:
        return len(self.split.prefix) + sum(len(ids) - 1 for ids in self.split.continuations)


@dataclass(frozen=True, slots=True)
class Computing:
    """How prompts with their answers are computed with gradients."""

    rows: Callable[[Taught], Sequence[Any]]
    """What goes through the model for one prompt; `len` of a row is the number of its tokens."""
    values: Callable[[Any, Sequence[Sequence[Any]]], tuple[Tensor, Tensor]]
    """(model, the rows of each prompt) -> (log-likelihoods of all tokens of all continuations, whose each is, counted through the
    prompts)."""


def causally(path: Path) -> Computing:
    """A causal model's rows, as the engine scores them."""
    return Computing(lambda taught: packed(taught, path), lambda model, rows: token_values(model, rows, path))


def path_for(examined: Examined) -> Path:
    """How rows are computed with gradients; `tree` is the engine's own attention, which has none, and a mask says the same."""
    return "mask" if examined.path == "tree" else examined.path


def packed(taught: Taught, path: Path) -> list[Row]:
    """The rows of one prompt: one where its answers can share it, else one an answer."""
    item = Item(0, taught.split.prefix, taught.split.continuations)
    return pack([item], 1 << 40) if path == "mask" else pack_apart([item])


def token_values(model: Any, rows: Sequence[Sequence[Row]], path: Path) -> tuple[Tensor, Tensor]:
    """(log-likelihoods of all tokens of all continuations, whose each is, counted through the prompts). rows: those of each prompt."""
    flat = [row for each in rows for row in each]
    log_p: list[Tensor] = []
    for some in [[row] for row in flat] if path == "single" else [flat]:
        logits, which = read_logits(model, some, path)
        targets = torch.tensor([read.target for row in some for read in row.reads], device=logits.device)
        log_p.append(torch.log_softmax(logits.float(), dim=-1)[torch.tensor(which, device=logits.device), targets])
    owner, start = [], 0
    for each in rows:
        reads = [read.continuation for row in each for read in row.reads]
        owner += [start + continuation for continuation in reads]
        start += max(reads) + 1
    values = torch.cat(log_p)
    return values, torch.tensor(owner, device=values.device)


def lesson_for(
    taught: Sequence[Taught],
    how: Computing,
    form: LossForm,
    batch_size: int,
    *,
    seed: int = 0,
    validation: Sequence[Taught] = (),
    key: Any = None,
) -> Lesson:
    """validation: rows that judge each epoch: accuracy first, where there are right labels or choices, then the plain loss, decide which
    is kept."""
    rows = [how.rows(each) for each in taught]
    judges = [how.rows(each) for each in validation]
    one = all(len(each.answers.groups) == 1 for each in taught)
    plain = LossForm(form.parts if one else ("labels",))

    def collate(positions: Sequence[int], epoch: int) -> dict[str, Any]:
        width = max(len(row) for at in positions for row in rows[at])
        mask = [[1] * len(row) + [0] * (width - len(row)) for at in positions for row in rows[at]]
        return {"attention_mask": torch.tensor(mask), "positions": torch.tensor(list(positions))}

    def loss(model: Any, batch: Batch) -> Tensor:
        positions = batch["positions"].tolist()
        values, owner = how.values(model, [rows[at] for at in positions])
        return answers_loss(values, owner, [taught[at].answers for at in positions], form).mean()

    def validate(model: Any) -> dict[str, float]:
        losses, right = [], []
        for some in _batches([sum(map(len, each)) for each in judges]):
            answers = [validation[at].answers for at in some]
            values, owner = how.values(model, [judges[at] for at in some])
            losses += answers_loss(values, owner, answers, plain).tolist()
            if not one:
                for scores, each in zip(scores_of(values, owner, answers), answers, strict=True):
                    right.append(each.shares[int(scores.argmax())] == max(each.shares))
        found = {"accuracy": sum(right) / len(right)} if right else {}
        return {**found, "validation_loss": sum(losses) / len(losses)}

    batches = shuffled(len(taught), batch_size, seed, [each.n_tokens for each in taught])
    exact = one or any(isinstance(each.answers.right, tuple) for each in taught)  # a teacher's probabilities are to be met, not its answers
    best = ("-validation_loss",) if exact else ("accuracy", "-validation_loss")
    n_tokens = [sum(map(len, each)) for each in rows]
    return Lesson(batches, collate, loss, validate if validation else None, best, key, n_tokens)


def _batches(lengths: Sequence[int], most: int = 2048) -> list[list[int]]:
    """Positions, rows of similar length together, at most so many tokens at once."""
    found: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not found or (len(found[-1]) + 1) * lengths[at] > most:
            found.append([])
        found[-1].append(at)
    return found
