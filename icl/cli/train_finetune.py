"""`icl train finetune`: a language model trained with its prompt on a file of labelled rows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from .options import Quiet, Templates
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
    from ..methods.finetune import Settings


@dataclass(frozen=True, slots=True)
class Training:
    """Options of the training."""

    base: Annotated[str, typer.Option(metavar="NAME", help="The language model it starts from: smollm2, a folder, or a hub id.")] = (
        "smollm2"
    )
    kind: Annotated[
        str, typer.Option(metavar="K", help="What is trained: full, lora, ia3, bitfit, added_attention, prompt, prefix or freeze.")
    ] = "lora"
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Times that every row is seen. [default: 200 steps' worth, 3 to 20]")
    ] = None
    batch_size: BatchSize = 8
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Of AdamW, at its highest. [default: that of the kind, such as 5e-4 for lora]")
    ] = None
    search: Search = None
    set: Set = None
    seed: Seed = 0


class Target(StrEnum):
    classify = "classify"
    answer = "answer"


@dataclass(frozen=True, slots=True)
class Prompted:
    """The prompt: which columns are what, and the template."""

    input: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Input column, or FIELD=COLUMN where the template's field has another name; several times. [default: guessed]",
        ),
    ] = None
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the labels or answers. [default: guessed]")] = None
    task: Annotated[Target | None, typer.Option(help="What that column holds: labels, or answers in words. [default: guessed]")] = None
    template: Annotated[str, typer.Option(metavar="T", help="The prompt's template: a name or a path.")] = "default"


def finetune(
    train: TrainFile,
    prompted: Prompted,
    how: Training,
    eval: EvalFile = None,
    templates: Templates = None,
    out: Out = Path("results"),
    quiet: Quiet = False,
) -> None:
    """Fine-tune a language model with its prompt, and write what was trained as a folder that `icl predict` and suites take.

    The prompt is that of few_shot and zero_shot without demonstrations, so the model is compared with itself. Interrupted, the same command
    goes on from its last checkpoint.
    """
    from ..methods.few_shot import FewShot
    from ..methods.finetune import PROMPT_SETTINGS, Finetune

    be_quiet(quiet)
    check_out(out)
    settings = _settings(how)
    task = _task(train, eval, prompted)
    judges = judges_of(task, eval)
    asked = {name: value for name in PROMPT_SETTINGS if (value := getattr(settings, name)) is not None}
    prompt = FewShot(
        **{
            "template": prompted.template,
            **asked,
            "templates": templates or None,
            "shots": 0,
            "retriever": "random",
            "kind": task.kind,
            "inputs": task.inputs,
            "name": "finetune",
        }
    )
    say_heading()
    method = Finetune(settings, prompt, how.seed, out / CHECKPOINTS, judges, say_point)
    predictor = method.fit(task.train, labels=task.labels)
    predictor.save(out)
    tell_training(predictor.training, len(task.train) + len(judges), out)
    if n := predictor.training["n_unfit"]:
        tell(f"{n} rows do not fit the token budget and were left out")
    if n := predictor.training["n_cut"]:
        tell(f"{n} answers are longer than the model reads and were cut there")
    say_next(out)


def _settings(how: Training) -> Settings:
    from ..methods._calibrate import refuse_without_labels

    named = {name: getattr(how, name) for name in ("base", "kind", "epochs", "batch_size", "learning_rate", "search")}
    settings = cast("Settings", method_settings("finetune", named, how.set))
    refuse_without_labels(settings.calibration)
    return settings


def _task(train: Path, eval: Path | None, prompted: Prompted) -> Task:
    """The rows, with the columns named or guessed from the training file."""
    from ..data import Task
    from .guess import guess
    from .rows import fields_and_columns

    columns = [item.partition("=")[2] or item for item in prompted.input or ()]
    found = guess(train, columns, prompted.label, prompted.task.value if prompted.task else None)
    for reason in found.reasons:
        tell(reason)
    inputs = fields_and_columns(prompted.input) if prompted.input else list(found.inputs)
    task = Task.load(train, dev=eval, kind=found.kind, input=inputs, label=found.label, choices=found.choices, holdout=0)
    tell_task(task)
    return task
