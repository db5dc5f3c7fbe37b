"""What the commands that train a predictor share: where it goes, and what is said while and after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem
from .output import say, tell

if TYPE_CHECKING:
    from ..data import Task

CHECKPOINTS = "checkpoints"


def check_out(out: Path) -> None:
    """Before any work: the folder is free, holds a predictor that is replaced, or checkpoints of a training that was cut short."""
    known = not out.exists() or (out.is_dir() and ((out / "predictor.json").is_file() or {p.name for p in out.iterdir()} <= {CHECKPOINTS}))
    if not known:
        raise InputError(Problem("this holds something that is not a saved predictor", "Name a new folder.", str(out), field="--out"))


def tell_task(task: Task) -> None:
    """What is odd about the rows."""
    for warning in task.warnings:
        tell(str(warning))
    if task.rejected:
        tell(f"{len(task.rejected)} rows cannot be used: " + ", ".join(f"{n} × {reason}" for reason, n in task.reasons.items()))


def check_judges(task: Task, file: Path | None) -> None:
    """Rows of --eval that can judge: none with a label of the training rows would mean that, unseen, no epoch is judged."""
    if file is None or task.kind != "classify":
        return
    learned = {row.target for row in task.train}
    if not any(row.target in learned for row in task.dev):
        found = ", ".join(sorted({repr(row.target) for row in task.dev})[:6]) or "none"
        raise InputError(
            Problem(
                f"no row of it has a label that there is to learn; its labels: {found}", "Give rows with the labels of --train.", str(file)
            )
        )


def say_heading() -> None:
    """Over the points of the curve."""
    say(_line("epoch", "steps", "loss", "eval loss", "accuracy"))


def say_point(point: Mapping[str, Any]) -> None:
    """One epoch."""
    loss, accuracy = (f"{point[name]:.4f}" if name in point else "" for name in ("validation_loss", "accuracy"))
    say(_line(point["epoch"], point["step"], f"{point['loss']:.4f}", loss, accuracy))


def tell_training(record: Mapping[str, Any], task: Task, out: Path) -> None:
    """What was trained, and what that cost."""
    kept = f"kept: epoch {record['best_epoch']}" if record["best_epoch"] else f"kept: the last epoch, {record['epochs']}"
    memory = f", {record['peak_memory_mb']:,.0f} MiB" if record["peak_memory_mb"] is not None else ""
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    tell(
        f"{kept}; {len(task.train) + len(task.dev)} labels owned, {record['n_trained']:,} of {record['n_parameters']:,} parameters trained "
        f"in {record['seconds']:.0f} s{memory}; {size / 1e6:.1f} MB on disk"
    )


def say_next(out: Path) -> None:
    """Where it is, and how it is used."""
    say(str(out))
    tell(f"Next: icl predict {out} FILE; in a suite: {{saved: {{path: {out}}}}}")


def _line(*cells: Any) -> str:
    return "".join(str(cell).rjust(width) for cell, width in zip(cells, (5, 8, 9, 11, 10), strict=True)).rstrip()
