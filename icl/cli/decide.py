"""`icl decide`: prompt it or train something, on your own file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, Problem
from .guard import FINE
from .options import Plugins, Quiet, Templates
from .output import be_quiet, say, say_json, tell
from .rows import Columns

if TYPE_CHECKING:
    from ..decision import Decision


@dataclass(frozen=True, slots=True)
class Files:
    """Rows beside those to learn from."""

    test: Annotated[Path | None, typer.Option(metavar="FILE", help="Rows to judge on; without it some of TRAIN are held out.")] = None
    dev: Annotated[Path | None, typer.Option(metavar="FILE", help="Rows to choose the method on; without it halves of the test rows.")] = (
        None
    )


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is compared; what is left out is planned to fit the minutes."""

    minutes: Annotated[float, typer.Option(metavar="N", help="Time for everything, loading and answering included.")] = 10.0
    budgets: Annotated[str | None, typer.Option(metavar="N,N,…", help="Label budgets: numbers of labels owned, or all.")] = None
    seeds: Annotated[int | None, typer.Option(metavar="N", help="Draws of the labels.")] = None
    methods: Annotated[
        str | None, typer.Option(metavar="M,M,…", help="Methods to compare, such as zero_shot,knn-8,embedding_head (icl ls methods).")
    ] = None
    margin: Annotated[float, typer.Option(metavar="X", help="A difference that does not matter.")] = 0.01
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="M",
            help="What decides; default: accuracy, for answers in words exact_match, of more than five words token_f1 (or name another).",
        ),
    ] = None
    until_decided: Annotated[
        bool, typer.Option("--until-decided", help="Stop after the draw of labels with which the answer is settled.")
    ] = False
    max_cost: Annotated[float | None, typer.Option(metavar="X", help="Stop cleanly before an endpoint costs more than X.")] = None


@dataclass(frozen=True, slots=True)
class Means:
    """What it is done with."""

    model: Annotated[
        str,
        typer.Option(metavar="M", help="The language model: a catalogue name, a folder, a hub id, an address; none: methods without one."),
    ] = "smollm2"
    template: Annotated[str, typer.Option(metavar="T", help="The prompt's template.")] = "default"
    encoder: Annotated[str, typer.Option(metavar="E", help="The sentence encoder of methods that embed texts.")] = "minilm"
    encoder_price: Annotated[
        float | None, typer.Option(metavar="X", help="Of an encoder behind an address: money per million tokens that it reads.")
    ] = None
    hour_price: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Compare costs in money: an hour of this machine costs X (its rent, or watts / 1000 times the price of a kilowatt hour).",
        ),
    ] = None
    templates: Templates = None
    plugins: Plugins = None


@dataclass(frozen=True, slots=True)
class Result:
    """What comes of it, and where it goes."""

    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run's folder; a decision that is there goes on. [default: runs/decide-TRAIN-TIME]"),
    ] = None
    ship: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Save the winner there, for icl predict and icl.load.")] = None
    refit: Annotated[bool, typer.Option("--refit", help="With --ship: fitted on all rows of TRAIN, which is not measured.")] = False
    only_plan: Annotated[bool, typer.Option("--plan", help="Show what would be compared and how long it takes, and stop.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="The decision as JSON on stdout.")] = False


def decide(
    train: Annotated[Path, typer.Argument(metavar="TRAIN", help="Your labelled rows: CSV, TSV, JSONL, JSON or Parquet.")],
    files: Files,
    columns: Columns,
    extent: Extent,
    means: Means,
    result: Result,
    quiet: Quiet = False,
) -> int:
    """Prompt it, or train something? On your own file, in the time you have.

    The answer, one paragraph and a table, goes to stdout. Interrupted, it goes on with --out.
    """
    started = time.perf_counter()
    be_quiet(quiet)
    budgets = _checked(extent, result)
    from ..data import Task
    from ..decision import decide as decided

    task = Task.load(
        train,
        test=files.test,
        dev=files.dev,
        **columns.named(),
    )
    found = decided(
        task,
        None if means.model == "none" else means.model,
        template=means.template,
        metric=extent.metric,
        margin=extent.margin,
        budgets=budgets,
        methods=None if extent.methods is None else _listed(extent.methods),
        seeds=extent.seeds,
        minutes=extent.minutes,
        out=result.out,
        until_decided=extent.until_decided,
        encoder=means.encoder,
        max_cost=extent.max_cost,
        hour_price=means.hour_price,
        encoder_price=means.encoder_price,
        templates=tuple(means.templates or ()),
        plugins=tuple(means.plugins or ()),
        only_plan=result.only_plan,
        started=started,
    )
    _show(found, result)
    return FINE


def _checked(extent: Extent, result: Result) -> Sequence[int | str] | None:
    """The label budgets. Raises InputError with all that is wrong with the options themselves."""
    problems: list[Problem] = []
    if result.refit and result.ship is None:
        problems.append(Problem("--refit fits the method that --ship saves", "Give --ship FOLDER.", field="--refit"))
    if (ship := result.ship) is not None and ship.exists() and (not ship.is_dir() or any(ship.iterdir())):
        problems.append(Problem("is not an empty folder", "Name a folder that does not exist yet.", str(ship), field="--ship"))
    budgets = _budgets(extent.budgets, problems)
    if problems:
        raise InputError(problems)
    return budgets


def _show(found: Decision, result: Result) -> None:
    """The plan or the answer on stdout, the winner where it is wanted, and what to do next."""
    if result.as_json and not result.only_plan:
        say_json(found.as_dict())
    else:
        say(repr(found))
    if result.only_plan:
        return
    if result.ship is not None:
        (found.refit() if result.refit else found.winner).save(result.ship)
        tell(f"Next: icl predict {result.ship} FILE")
    else:
        tell(f"Next: icl export {found.folder} --to FOLDER      {found.findings.choice.winner} as a folder to use")
    tell(f"Results: {found.folder}")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _budgets(text: str | None, problems: list[Problem]) -> Sequence[int | str] | None:
    if text is None:
        return None
    found: list[int | str] = []
    for part in _listed(text):
        if part == "all":
            found.append(part)
        elif part.isdecimal():
            found.append(int(part))
        else:
            problems.append(Problem(f"'{part}' is no label budget", "Write numbers with commas, such as 16,64,256.", field="--budgets"))
    return found
