"""`icl train multitask`: one encoder taught several tasks at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, Problem
from ..files import NAME
from .options import Quiet
from .output import be_quiet, say, tell
from .train_settings import settings_from
from .trained import CHECKPOINTS, BatchSize, Seed, Set, tell_task

if TYPE_CHECKING:
    from ..data import Task
    from ..methods._multitask import Pool


@dataclass(frozen=True, slots=True)
class How:
    """Options of the training."""

    base: Annotated[str, typer.Option(metavar="NAME", help="What it starts from: minilm, a folder, or a hub id.")] = "minilm"
    temperature: Annotated[
        float, typer.Option(metavar="T", min=0.01, help="1: tasks are drawn as often as they have rows; the larger, the more alike.")
    ] = 10.0
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Times that as many rows are seen as there are. [default: 300 steps per task]")
    ] = None
    batch_size: BatchSize = 16
    set: Set = None
    seed: Seed = 0


def multitask(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE…", help="A suite, whose classify tasks are taken, or files of labelled rows, NAME=FILE.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the predictors go, each in a folder named after its task.")],
    how: How,
    per_label: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Rows of each label, drawn as a suite draws them. [default: all rows]")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train one encoder on several tasks at once, and write a predictor for each.

    Each folder is what `icl predict`, icl.load and `{saved: {path: …}}` take. Rows that a suite tests on are left out. Interrupted, the same
    command goes on from its last checkpoint.
    """
    from ..methods._multitask import fit_tasks
    from ..train.multitask import MultitaskSettings

    be_quiet(quiet)
    named = {"temperature": how.temperature, "epochs": how.epochs, "batch_size": how.batch_size}
    settings = settings_from(MultitaskSettings, named, how.set)
    pools = [pool for source in sources for pool in _pools(source, per_label, how.seed)]
    _check_out(out, [pool.name for pool in pools])
    for pool in pools:
        tell(f"{pool.name}: {len(pool.pool)} rows, {len(pool.labels)} labels")
    found = fit_tasks(pools, settings, base=how.base, seed=how.seed, work=out / CHECKPOINTS, on_epoch=_say_point)
    for name, predictor in found.items():
        predictor.save(out / name)
        say(str(out / name))
    record = next(iter(found.values())).training
    tell(
        f"{record['n_trained']:,} of {record['n_parameters']:,} parameters trained in {record['n_steps']} steps, {record['seconds']:.0f} s"
    )
    tell(f"Next: icl predict {out / pools[0].name} FILE; in a suite: {{saved: {{path: {out / pools[0].name}}}, tasks: [{pools[0].name}]}}")


def _pools(source: str, per_label: int | None, seed: int) -> list[Pool]:
    from ..data.budget import draw
    from ..methods._multitask import Pool

    found = []
    for name, task in _tasks(source):
        rows = list(task.train)
        if per_label is not None:
            rows = draw(rows, per_label * len(task.labels), labels=task.labels, seed=seed)
        found.append(Pool(name, rows, task.labels, task.inputs))
    return found


def _tasks(source: str) -> list[tuple[str, Task]]:
    """(name, task) of a suite's classify tasks, without what its test items leak, or of a file of rows."""
    from ..data import Task
    from ..evaluate.loading import list_suites
    from .guess import guess

    name, equals, file = source.rpartition("=")
    if not equals and (Path(source).suffix in (".yaml", ".yml") or source in list_suites()):
        return _of_suite(source)
    path = Path(file)
    if path.suffix not in (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"):
        raise InputError(Problem("this is neither a suite nor a file of rows", "Give suite.yaml, or NAME=FILE.", source, field="SOURCE"))
    columns = guess(path, (), None)
    if columns.kind != "classify":
        raise InputError(Problem(f"the column '{columns.label}' is no label", "Name the columns in a suite.", file))
    task = Task.load(path, kind="classify", input=list(columns.inputs), label=columns.label, holdout=0)
    tell_task(task)
    return [(name or path.stem, task)]


def _of_suite(source: str) -> list[tuple[str, Task]]:
    from ..evaluate import load_suite
    from ..evaluate.prepare import prepare

    tasks = [(name, data.task) for name, data in prepare(load_suite(source)).tasks.items() if data.task.kind == "classify"]
    if not tasks:
        raise InputError(Problem("the suite has no task of the kind classify", "Give another one.", source))
    return tasks


def _check_out(out: Path, names: Sequence[str]) -> None:
    """Before any work: each task has a folder of its own in this one, and what is there are predictors of them, which are replaced, or
    checkpoints."""
    fix = "Use letters, digits, '.', '_' and '-', at most 80: NAME=FILE."
    odd = [name for name in names if not NAME.fullmatch(name) or name in (".", "..", CHECKPOINTS)]
    if odd:
        raise InputError([Problem(f"{name!r} cannot be a task's name, which its folder has", fix, field="SOURCE") for name in odd])
    if not out.exists():
        return
    known = out.is_dir() and {path.name for path in out.iterdir()} <= {CHECKPOINTS, *names}
    if not known or any((out / n).exists() and not (out / n / "predictor.json").is_file() for n in names):
        raise InputError(Problem("this holds something that is no predictor of these tasks", "Name a new folder.", str(out), field="--out"))


def _say_point(point: Mapping[str, Any]) -> None:
    judged = "".join(f", {name} {value:.4f}" for name, value in point.items() if name not in ("epoch", "step", "loss"))
    say(f"epoch {point['epoch']}: loss {point['loss']:.4f}{judged}")
