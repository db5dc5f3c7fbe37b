"""Several classify tasks taught to one encoder: a classifier for each of them comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem
from ..train.split import held_out
from ..values import Example, field_text
from ._classifier_job import LEARNING_RATE, LEARNING_RATE_SMALL, SMALL
from ._common import inputs_of, label_order, labelled
from .classifier import ClassifierPredictor

if TYPE_CHECKING:
    from ..train.classifier import EncoderClassifier
    from ..train.multitask import MultitaskSettings

FEWEST_STEPS, MOST_EPOCHS, FEWEST_EPOCHS = 300, 20, 5
"""Where nobody says how many epochs: as many as make that many steps for each task, within these bounds."""


@dataclass(frozen=True)
class Pool:
    """A task as it is given: its labelled examples."""

    name: str
    pool: Sequence[Example]
    labels: Sequence[str] = ()
    inputs: tuple[str, ...] = ()


def fit_tasks(
    tasks: Sequence[Pool],
    settings: MultitaskSettings,
    *,
    base: str = "minilm",
    seed: int = 0,
    work: Path | None = None,
    device: str | None = None,
    on_epoch: Callable[[Mapping[str, float]], None] | None = None,
) -> dict[str, ClassifierPredictor]:
    """Task name -> its classifier; all share the weights of one encoder, trained on all of them. Each has the record of the one training.

    Raises InputError before that: fewer than two tasks, two of one name, one with fewer than two labels, a base that is no encoder.
    """
    import torch

    from ..train.cost import Used
    from ..train.loop import train
    from ..train.multitask import TaskRows, columns_of, lesson_for_tasks, take_part

    ready = _checked(tasks)
    head = {"long": settings.long, "max_tokens": settings.max_tokens, "dropout": settings.dropout, "device": device}
    made = _built(base, sum(len(task.seen) for task in ready), seed, freeze=settings.freeze, **head)
    columns = columns_of([len(task.seen) for task in ready])
    rows = []
    for task, place in zip(ready, columns, strict=True):
        out = set(held_out([str(e.target) for e in task.pool], settings.validation or "none", seed))
        parts = [[e for i, e in enumerate(task.pool) if (i in out) == judging] for judging in (False, True)]
        taught, judged = ((made.read(task.texts(part)), torch.tensor(task.positions(part), dtype=torch.long)) for part in parts)
        if settings.start == "probe" and made.form.pooling != "own":
            _probe(made, taught[0], taught[1].tolist(), len(task.seen), place)
        rows.append(TaskRows(task.name, len(task.seen), taught, judged if out else None))
    n = sum(len(task.taught[0]) for task in rows)
    rate = settings.learning_rate or (LEARNING_RATE_SMALL if int(made.model.config.hidden_size) < SMALL else LEARNING_RATE)
    epochs = settings.epochs or min(MOST_EPOCHS, max(FEWEST_EPOCHS, -(-FEWEST_STEPS * len(rows) * settings.batch_size // n)))
    key = [base, [[task.name, task.seen, [[e.uid, e.target] for e in task.pool]] for task in ready]]
    record = train(
        made.model,
        lesson_for_tasks(made, rows, settings, seed=seed, key=key),
        settings.model_copy(update={"epochs": epochs, "learning_rate": rate}),
        seed=seed,
        work=work,
        device=made.device,
        description=f"Training {base} on {len(rows)} tasks",
        on_epoch=on_epoch,
    ).as_dict()
    about = {**record, "tasks": {task.name: len(task.pool) for task in ready}, "temperature": settings.temperature}
    found = {}
    for task, place in zip(ready, columns, strict=True):
        own = _built(base, len(task.seen), seed, **head)
        take_part(made.model, own.model, place)
        own.model.eval()
        own.used = Used()
        found[task.name] = ClassifierPredictor(own, task.seen, task.inputs, task.order, {**about, "n_rows": len(task.pool)})
    return found


@dataclass(frozen=True)
class _Ready:
    name: str
    pool: list[Example]
    seen: tuple[str, ...]
    """The labels that the examples have."""
    order: tuple[str, ...]
    inputs: tuple[str, ...]

    def texts(self, rows: Sequence[Example]) -> list[list[str]]:
        return [[field_text(e.fields[name]) for name in self.inputs] for e in rows]

    def positions(self, rows: Sequence[Example]) -> list[int]:
        return [self.seen.index(str(e.target)) for e in rows]


def _checked(tasks: Sequence[Pool]) -> list[_Ready]:
    problems = []
    names = [task.name for task in tasks]
    if len(tasks) < 2:
        problems.append(Problem(f"{len(tasks)} task is not several", "Give two at least, or use the method classifier.", field="tasks"))
    problems += [Problem(f"two tasks have the name '{n}'", "Name them: NAME=FILE.", field="tasks") for n in {*names} if names.count(n) > 1]
    ready = []
    for task in tasks:
        usable = labelled(task.pool, task.name)
        order = label_order(usable, task.labels)
        seen = tuple(label for label in order if any(e.target == label for e in usable))
        if len(seen) < 2:
            problems.append(
                Problem(f"all examples of '{task.name}' have the label '{seen[0]}'", "Give two labels at least.", field="tasks")
            )
        ready.append(_Ready(task.name, usable, seen, order, inputs_of(usable, task.inputs)))
    if problems:
        raise InputError(problems)
    return ready


def _built(base: str, n_labels: int, seed: int, **options: Any) -> EncoderClassifier:
    from ..train.classifier import new_classifier
    from ..train.loop import seeded

    with seeded(seed, "head"):
        return new_classifier(base, n_labels, **options)


def _probe(made: EncoderClassifier, reads: Sequence[Any], positions: Sequence[int], n_labels: int, columns: slice) -> None:
    """Begin with the best head for the encoder as it is, as a classifier does."""
    import torch

    from ._heads import fit_head

    vectors = made.vectors(reads)
    scale = vectors.shape[1] ** 0.5
    head = fit_head("logistic", (vectors / scale).numpy(), positions, n_labels)
    with torch.no_grad():
        made.model.classifier.weight[columns].copy_(torch.from_numpy(head.arrays["weights"] / scale))
        made.model.classifier.bias[columns].copy_(torch.from_numpy(head.arrays["bias"]))
