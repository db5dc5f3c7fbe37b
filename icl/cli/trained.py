"""What the commands that train share: options, where the predictor goes, and what is said while and after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from ..errors import InputError, Problem
from .output import say, tell

if TYPE_CHECKING:
    from ..data import Task
    from ..values import Example

CHECKPOINTS = "checkpoints"
TrainFile: TypeAlias = Annotated[Path, typer.Option(metavar="FILE", help="Labelled rows to learn from: CSV, TSV, JSONL or Parquet.")]
EvalFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Labelled rows that judge each epoch; the best one is kept. [default: a tenth of the rows, where there are 1,000 or more]",
    ),
]
Out: TypeAlias = Annotated[Path, typer.Option(metavar="FOLDER", help="Where the predictor goes.")]
BatchSize: TypeAlias = Annotated[int, typer.Option(metavar="N", min=1, help="Rows per step.")]
Search: TypeAlias = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Try N settings around these on rows held out, or on five folds of a small file, and train with the best; needs optuna.",
    ),
]
Set: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Another setting, such as weight_decay=0.1; may be given several times."),
]
Seed: TypeAlias = Annotated[int, typer.Option(metavar="S", help="Of new weights, the order of rows, and dropout.")]


def check_out(out: Path) -> None:
    """Before any work: the folder is free, holds a predictor that is replaced, or checkpoints of a training that was cut short."""
    known = not out.exists() or (out.is_dir() and ((out / "predictor.json").is_file() or {p.name for p in out.iterdir()} <= {CHECKPOINTS}))
    if not known:
        raise InputError(Problem("this holds something that is not a saved predictor", "Name a new folder.", str(out), field="--out"))


def tell_task(task: Task) -> None:
    """What is odd about the rows; which cannot be used is among it."""
    for warning in task.warnings:
        tell(str(warning))


def judges_of(task: Task, file: Path | None) -> tuple[Example, ...]:
    """Rows of --eval that judge the epochs: those with a label that there is to learn. Others serve nothing, so they are no labels owned.

    Raises InputError where there is none: unseen, no epoch would be judged.
    """
    if file is None or task.kind != "classify":
        return tuple(task.dev)
    learned = {row.target for row in task.train}
    judges = tuple(row for row in task.dev if row.target in learned)
    others = ", ".join(sorted({repr(row.target) for row in task.dev} - set(map(repr, learned)))[:6]) or "none"
    if not judges:
        message = f"no row of it has a label that there is to learn; its labels: {others}"
        raise InputError(Problem(message, "Give rows with the labels of --train.", str(file)))
    if len(judges) < len(task.dev):
        n, all_ = len(task.dev) - len(judges), len(task.dev)
        tell(f"{file}: {n} of {all_} rows judge nothing, since no row of --train has their label: {others}")
    return judges


def say_heading() -> None:
    """Over the points of the curve."""
    say(_line("epoch", "steps", "loss", "eval loss", "accuracy"))


def say_point(point: Mapping[str, Any]) -> None:
    """One epoch."""
    loss, accuracy = (f"{point[name]:.4f}" if name in point else "" for name in ("validation_loss", "accuracy"))
    say(_line(point["epoch"], point["step"], f"{point['loss']:.4f}", loss, accuracy))


def tell_training(record: Mapping[str, Any], n_labels: int, out: Path) -> None:
    """What was trained, and what that cost. n_labels: labels owned."""
    kept = f"kept: epoch {record['best_epoch']}" if record["best_epoch"] else f"kept: the last epoch, {record['epochs']}"
    memory = f", {record['peak_memory_mb']:,.0f} MiB" if record["peak_memory_mb"] is not None else ""
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    tell(
        f"{kept}; {n_labels} labels owned, {record['n_trained']:,} of {record['n_parameters']:,} parameters trained "
        f"in {record['seconds']:.0f} s{memory}; {size / 1e6:.1f} MB on disk"
    )
    if "search" in record:
        _tell_search(record["search"])


def _tell_search(record: Mapping[str, Any]) -> None:
    """What was found, beside what was given."""
    given, best = record["given"], record["best"]
    changed = {name: value for name, value in best["settings"].items() if value != given["settings"][name]}
    said = ", ".join(f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in changed.items())
    tell(
        f"search: {record['n_trials']} trial{'s' * (record['n_trials'] > 1)}, {record['n_steps']:,} steps, {record['seconds']:.0f} s of these; best on the rows that judge: "
        f"{best['score']:.4f} with {said or 'the settings as given'} ({given['score']:.4f} as given)"
    )


def say_next(out: Path) -> None:
    """Where it is, and how it is used."""
    say(str(out))
    tell(f"Next: icl predict {out} FILE; in a suite: {{saved: {{path: {out}}}}}")


def _line(*cells: Any) -> str:
    return "".join(str(cell).rjust(width) for cell, width in zip(cells, (5, 8, 9, 11, 10), strict=True)).rstrip()
