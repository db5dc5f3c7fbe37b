"""`icl train classifier`: a BERT with a classification head from a file of labelled rows, judged after every epoch on another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..errors import InputError, Problem
from .options import Quiet
from .output import be_quiet, say, tell

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
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Rows per step.")] = 16
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Of AdamW, at its highest. [default: 1e-4 for small encoders, 3e-5 for others]")
    ] = None
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Another setting of the method classifier, such as long=slide; may be given several times."
        ),
    ] = None
    seed: Annotated[int, typer.Option(metavar="S", help="Of the head, the order of rows and dropout.")] = 0


@dataclass(frozen=True, slots=True)
class Names:
    """Which columns are what, where they are not to be guessed."""

    input: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Input column; several make a pair of texts. [default: guessed]")
    ] = None
    label: Annotated[str | None, typer.Option(metavar="COLUMN", help="Label column. [default: guessed]")] = None


def classifier(
    train: Annotated[Path, typer.Option(metavar="FILE", help="Labelled rows to learn from: CSV, TSV, JSONL or Parquet.")],
    names: Names,
    how: Training,
    eval: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Labelled rows that judge each epoch; the best one is kept. [default: a tenth of the rows, where there are 1,000 or more]",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the predictor goes.")] = Path("results"),
    quiet: Quiet = False,
) -> None:
    """Train an encoder with a classification head, and write it as a folder that `icl predict` and suites take.

    After every epoch it is judged on --eval, and the best epoch is kept, so the labels of both files count as labels owned. Interrupted,
    the same command goes on from its last checkpoint.
    """
    from ..methods.classifier import Classifier

    be_quiet(quiet)
    _check_out(out)
    settings = _settings(how)
    task = _task(train, eval, names)
    say(_line("epoch", "steps", "loss", "eval loss", "accuracy"))
    method = Classifier(settings, how.base, task.inputs, how.seed, out / CHECKPOINTS, task.dev, _say_point)
    predictor = method.fit(task.train, labels=task.labels)
    predictor.save(out)
    record = predictor.training
    kept = f"kept: epoch {record['best_epoch']}" if record["best_epoch"] else f"kept: the last epoch, {record['epochs']}"
    memory = f", {record['peak_memory_mb']:,.0f} MiB" if record["peak_memory_mb"] is not None else ""
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    tell(
        f"{kept}; {len(task.train) + len(task.dev)} labels owned, {record['n_trained']:,} of {record['n_parameters']:,} parameters trained "
        f"in {record['seconds']:.0f} s{memory}; {size / 1e6:.0f} MB on disk"
    )
    if record["long_inputs"]["n_rows"]:
        long = record["long_inputs"]
        tell(f"{long['n_rows']} texts are longer than it reads ({long['how']}): {long['n_tokens_cut']:,} tokens are cut")
    say(str(out))
    tell(f"Next: icl predict {out} FILE; in a suite: {{saved: {{path: {out}}}}}")


CHECKPOINTS = "checkpoints"


def _check_out(out: Path) -> None:
    """Before any work: the folder is free, holds a predictor that is replaced, or checkpoints of a training that was cut short."""
    known = not out.exists() or (out.is_dir() and ((out / "predictor.json").is_file() or {p.name for p in out.iterdir()} <= {CHECKPOINTS}))
    if not known:
        raise InputError(Problem("this holds something that is not a saved predictor", "Name a new folder.", str(out), field="--out"))


def _settings(how: Training) -> Settings:
    from ..plugins import find, settings_of
    from .run import overrides

    given = {"epochs": how.epochs, "batch_size": how.batch_size, "learning_rate": how.learning_rate, **overrides(how.set or ())}
    return cast("Settings", settings_of(find("method", "classifier"), given, "--set"))


def _task(train: Path, eval: Path | None, names: Names) -> Task:
    """The rows, with the columns named or guessed from the training file."""
    from ..data import Task
    from .guess import guess

    found = guess(train, names.input or (), names.label)
    for reason in found.reasons:
        tell(reason)
    if found.kind != "classify":
        raise InputError(
            Problem(f"the column '{found.label}' is no label: {found.reasons[-1]}", "Name a column with a few labels: --label.", str(train))
        )
    task = Task.load(train, dev=eval, kind="classify", input=list(found.inputs), label=found.label, holdout=0)
    for warning in task.warnings:
        tell(str(warning))
    if task.rejected:
        tell(f"{len(task.rejected)} rows cannot be used: " + ", ".join(f"{n} × {reason}" for reason, n in task.reasons.items()))
    return task


def _say_point(point: Mapping[str, Any]) -> None:
    loss, accuracy = (f"{point[name]:.4f}" if name in point else "" for name in ("validation_loss", "accuracy"))
    say(_line(point["epoch"], point["step"], f"{point['loss']:.4f}", loss, accuracy))


def _line(*cells: Any) -> str:
    return "".join(str(cell).rjust(width) for cell, width in zip(cells, (5, 8, 9, 11, 10), strict=True)).rstrip()
