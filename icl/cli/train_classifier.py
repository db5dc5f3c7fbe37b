"""`icl train classifier`: a BERT with a classification head from a file of labelled rows, judged after every epoch on another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..errors import InputError, Problem
from .options import Quiet
from .output import be_quiet, tell
from .train_settings import method_settings
from .trained import (
    CHECKPOINTS,
    BatchSize,
    EvalFile,
    Out,
    Search,
    Seed,
    Set,
    TrainFile,
    check_out,
    judges_of,
    say_heading,
    say_next,
    say_point,
    tell_task,
    tell_training,
)

if TYPE_CHECKING:
    from ..data import Task
    from ..methods.classifier import Settings


@dataclass(frozen=True, slots=True)
class Training:
    """Options of the training."""

    base: Annotated[
        str, typer.Option(metavar="NAME", help="What it starts from: minilm, a folder, or a hub id such as bert-base-uncased.")
    ] = "minilm"
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="Times that every row is seen.")] = 3
    batch_size: BatchSize = 16
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Of AdamW, at its highest. [default: 1e-4 for small encoders, 3e-5 for others]")
    ] = None
    search: Search = None
    set: Set = None
    seed: Seed = 0


@dataclass(frozen=True, slots=True)
class Names:
    """Which columns are what, where they are not to be guessed."""

    input: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Input column; several make a pair of texts. [default: guessed]")
    ] = None
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Label column. [default: guessed]")] = None


def classifier(
    train: TrainFile,
    names: Names,
    how: Training,
    eval: EvalFile = None,
    out: Out = Path("results"),
    quiet: Quiet = False,
) -> None:
    """Train an encoder with a classification head, and write it as a folder that `icl predict` and suites take.

    After every epoch it is judged on --eval, and the best epoch is kept, so the labels of both files count as labels owned. Interrupted,
    the same command goes on from its last checkpoint.
    """
    from ..methods.classifier import Classifier

    be_quiet(quiet)
    check_out(out)
    settings = _settings(how)
    task = _task(train, eval, names)
    judges = judges_of(task, eval)
    say_heading()
    method = Classifier(settings, settings.base or how.base, task.inputs, how.seed, out / CHECKPOINTS, judges, say_point)
    predictor = method.fit(task.train, labels=task.labels)
    predictor.save(out)
    record = predictor.training
    tell_training(record, len(task.train) + len(judges), out)
    if record["long_inputs"]["n_rows"]:
        long = record["long_inputs"]
        tell(f"{long['n_rows']} texts are longer than it reads ({long['how']}): {long['n_tokens_cut']:,} tokens are cut")
    say_next(out)


def _settings(how: Training) -> Settings:
    named = {name: getattr(how, name) for name in ("base", "epochs", "batch_size", "learning_rate", "search")}
    return cast("Settings", method_settings("classifier", named, how.set))


def _task(train: Path, eval: Path | None, names: Names) -> Task:
    """The rows, with the columns named or guessed from the training file."""
    from ..data import Task
    from .guess import guess

    found = guess(train, names.input or (), names.label, "classify" if names.label else None)
    for reason in found.reasons:
        tell(reason)
    if found.kind != "classify":
        message = f"the values of '{found.label}' look like answers in words, not labels"
        raise InputError(Problem(message, f"If they are labels, say so: --label {found.label}. Else name another column.", str(train)))
    task = Task.load(train, dev=eval, kind="classify", input=list(found.inputs), label=found.label, holdout=0)
    tell_task(task)
    return task
