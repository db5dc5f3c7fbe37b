"""One encoder for several tasks at once: tasks drawn with a temperature, one head for each over what they share.

The heads are parts of one output layer: each task has columns of its own, and its loss sees no others. So a trained model falls apart into
ordinary classifiers, one per task.

Tasks are drawn with probabilities p_i ∝ min(n_i, limit)^(1/T), n_i being the task's rows (Raffel et al. 2020,
https://arxiv.org/abs/1910.10683, sec. 3.5.2): T = 1 in proportion to the rows, large T all alike. Each row of a step is drawn by itself,
so a step mixes tasks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..seeds import rng_for
from .classifier import EncoderClassifier
from .loop import Lesson
from .losses import label_loss
from .settings import TrainingSettings
from .teach import Taught, judged
from .texts import Read


class MultitaskSettings(TrainingSettings):
    temperature: float = Field(10.0, gt=0, description="1: a task as often as it has rows; large: all tasks alike.")
    limit: int | None = Field(None, ge=1, description="Rows of a task that count for that at most.")
    freeze: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        0, description="Lowest layers that are not trained; all: only the heads are."
    )
    start: Literal["probe", "random"] = Field(
        "probe", description="Heads begin as logistic regressions on the untrained encoder, or at random."
    )
    dropout: float | None = Field(None, ge=0, lt=1, description="In encoder and heads; default: the base's own.")
    long: Literal["truncate", "head_tail", "slide"] = Field("truncate", description="Of a text that is too long, as for a classifier.")
    max_tokens: int | None = Field(None, ge=8, description="Tokens of a text; default: what the base reads at most.")
    validation: float = Field(
        0.0, ge=0, lt=1, description="Share of each task's rows held out to keep the best epoch; 0: the last is kept."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target that all labels of the task have evenly.")


@dataclass(frozen=True)
class TaskRows:
    """The rows of one task."""

    name: str
    n_labels: int
    taught: Taught
    validation: Taught | None = None


def shares(sizes: Sequence[int], temperature: float, limit: int | None = None) -> list[float]:
    """Probability of each task, given its number of rows."""
    weights = [min(n, limit or n) ** (1 / temperature) for n in sizes]
    return [weight / sum(weights) for weight in weights]


def mixed(
    sizes: Sequence[int], batch_size: int, seed: int, temperature: float, limit: int | None = None
) -> Callable[[int], list[list[int]]]:
    """epoch -> rows of each step. An epoch has as many rows as all tasks together; those of a task come in rounds, each row once before
    any comes again, whatever the epoch. Rows are numbered through, task after task."""
    chances, n, starts = shares(sizes, temperature, limit), sum(sizes), [0, *accumulate(sizes)]
    known: dict[int, list[int]] = {}

    def drawn(epoch: int) -> list[int]:
        if epoch not in known:
            known[epoch] = rng_for(seed, "tasks", epoch).choices(range(len(sizes)), chances, k=n)
        return known[epoch]

    def batches(epoch: int) -> list[list[int]]:
        used = [sum(drawn(e).count(task) for e in range(epoch)) for task in range(len(sizes))]
        orders: dict[tuple[int, int], list[int]] = {}
        rows = []
        for task in drawn(epoch):
            round_, place = divmod(used[task], sizes[task])
            if (task, round_) not in orders:
                orders[task, round_] = rng_for(seed, "order", task, round_).sample(range(sizes[task]), sizes[task])
            rows.append(starts[task] + orders[task, round_][place])
            used[task] += 1
        return [rows[at : at + batch_size] for at in range(0, n, batch_size)]

    return batches


def lesson_for_tasks(
    made: EncoderClassifier, tasks: Sequence[TaskRows], settings: MultitaskSettings, *, seed: int, key: Any = None
) -> Lesson:
    """made: a classifier with as many outputs as all tasks have labels, in the order of the tasks.

    Judged by the mean over the tasks of their accuracies, then of their losses; those of each task stand on the curve, too.
    """
    columns = columns_of([task.n_labels for task in tasks])
    starts = [0, *accumulate(len(task.taught[0]) for task in tasks)]

    def place(row: int) -> tuple[int, int]:
        task = bisect_right(starts, row) - 1
        return task, row - starts[task]

    def collate(rows: Sequence[int], epoch: int) -> dict[str, Any]:
        places = [place(row) for row in rows]
        reads: list[Read] = [tasks[task].taught[0][at] for task, at in places]
        targets = torch.stack([tasks[task].taught[1][at] for task, at in places])
        return {**made.batch(reads), "task": torch.tensor([task for task, _ in places]), "targets": targets}

    def loss(model: Any, batch: Mapping[str, Any]) -> Tensor:
        logits = made.logits(model, batch)
        total = logits.new_zeros(())
        for task in batch["task"].unique().tolist():
            mine = batch["task"] == task
            each = label_loss(logits[mine][:, columns[task]], batch["targets"][mine], smoothing=settings.label_smoothing)
            total = total + each.sum()
        return total / len(logits)

    def validate(model: Any) -> dict[str, float]:
        found = {t.name: judged(made.predict(t.validation[0])[:, columns[i]], t.validation[1]) for i, t in enumerate(tasks) if t.validation}
        means = {name: sum(each[name] for each in found.values()) / len(found) for name in ("accuracy", "validation_loss")}
        return {**means, **{f"accuracy of {name}": each["accuracy"] for name, each in found.items()}}

    sizes = [len(task.taught[0]) for task in tasks]
    batches = mixed(sizes, settings.batch_size, seed, settings.temperature, settings.limit)
    judging = validate if any(task.validation for task in tasks) else None
    n_tokens = [read.n_tokens for task in tasks for read in task.taught[0]]  # of tasks that differ in length, so steps go through in parts
    return Lesson(batches, collate, loss, judging, ("accuracy", "-validation_loss"), key, n_tokens)


def columns_of(n_labels: Sequence[int]) -> list[slice]:
    """The outputs of each task."""
    ends = [0, *accumulate(n_labels)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def take_part(whole: Any, part: Any, columns: slice) -> None:
    """Copy a trained model into one of the same kind that has fewer labels: all weights, of the output layer these columns alone."""
    weights = whole.state_dict()
    own = part.state_dict()
    part.load_state_dict({name: weights[name] if weights[name].shape == own[name].shape else weights[name][columns] for name in own})
