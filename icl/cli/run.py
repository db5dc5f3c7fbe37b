"""`icl run`: a suite, from a path or the name of a packaged one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, Problem
from ..evaluate.results import PAGE
from ..files import load_yaml
from .guard import FINE
from .options import Plugins, Quiet, Templates
from .output import be_quiet, say, say_json, tell

if TYPE_CHECKING:
    from ..suite import Run


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs from the suite file in this run."""

    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Judge on N test items of each task.")] = None
    seed: Annotated[int | None, typer.Option(metavar="S", help="The first seed; the others follow it. [default: 0]")] = None
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value of the suite, such as budgets=[16,64]; may be given several times."
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """For models behind an address."""

    max_cost: Annotated[
        float | None,
        typer.Option(metavar="X", help="Stop cleanly before endpoints cost more than X in this folder, in the currency of their prices."),
    ] = None
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            "--retry-errors",
            help="With --out: ask again for what an endpoint or an error left unanswered, and only for that.",
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class Ending:
    """When a run is done."""

    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided", help="No further draw of the labels for a task whose methods are told apart, or level within --margin."
        ),
    ] = False
    margin: Annotated[float, typer.Option(metavar="X", help="With --until-decided: a difference that does not matter.")] = 0.01


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are looked for."""

    templates: Templates = None
    plugins: Plugins = None
    data_root: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Local copies of public data sets.")] = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the work is done."""

    on: Annotated[
        str | None,
        typer.Option(
            metavar="CLUSTER", help="ray or ray://HOST:PORT: over the machines of that Ray cluster, which must see the same files."
        ),
    ] = None
    cpus: Annotated[float, typer.Option(metavar="N", help="With --on: CPUs of each worker.")] = 1.0
    gpus: Annotated[float, typer.Option(metavar="N", help="With --on: GPUs of each worker.")] = 0.0


def run(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or the name of a packaged suite (icl ls suites).")],
    changes: Changes,
    places: Places,
    endpoints: Endpoints,
    cluster: Cluster,
    ending: Ending,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where results go; a run that is there already goes on. [default: runs/SUITE-TIME]"),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show cells, tokens, time and money before anything is computed, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The records of results.json on stdout instead of the table.")] = False,
    export: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORMAT",
            help="Afterwards also write it as csv, parquet, junit or lm-eval, or track it in mlflow or wandb (icl report).",
        ),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Compute everything anew: use no scores of earlier runs, and keep none.")
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Run a suite: methods side by side on the same test items.

    The table goes to stdout. The folder of the run gets results.json, timing.json, a page for people (report.html), the store of every
    item's result, and the fitted predictors. Interrupted, stopped by --max-cost, or run again with --out, it goes on where it stopped.
    """
    from .. import suite as suites
    from ..report.export import check_format

    be_quiet(quiet)
    for name in export or ():
        check_format(name)
    what: dict[str, Any] = {
        "limit": changes.limit,
        "seed": changes.seed,
        "overrides": overrides(changes.set or ()),
        "templates": places.templates,
        "plugins": places.plugins or (),
        "data_root": places.data_root,
    }
    if plan:
        planned = suites.plan(suite, max_cost=endpoints.max_cost, **what)
        if as_json:
            say_json({"cells": planned.cells, "tokens_per_s": planned.tokens_per_s, "seconds": planned.seconds, "cost": planned.cost})
        else:
            say(planned.table())
        return FINE
    what |= {"on": cluster.on, "cpus": cluster.cpus, "gpus": cluster.gpus}
    what |= {"until_decided": ending.until_decided, "margin": ending.margin}
    done = suites.run(suite, out, cache=not no_cache, max_cost=endpoints.max_cost, retry_failed=endpoints.retry_failed, **what)
    _show(done, as_json)
    if not (done.interrupted or done.stopped):
        _export(done.folder, export or (), places.plugins or ())
    return done.exit_code


def _show(done: Run, as_json: bool) -> None:
    """The figures, and where they are."""
    if as_json:
        say_json(done.results)
        for line in done.next() if done.interrupted or done.stopped else ():
            tell(line)
    else:
        say(done.table())
    if (done.folder / PAGE).is_file():
        tell(f"Page: {done.folder / PAGE}")
    tell(f"Results: {done.folder}")


def _export(folder: Path, formats: Sequence[str], plugins: Sequence[Path]) -> None:
    """The run is done and stays as it is, whatever becomes of its copies elsewhere."""
    from ..report.export import export_run

    for name in formats:
        try:
            for made in export_run(folder, name, plugins=plugins):
                tell(f"Export: {made}")
        except Exception as error:
            tell(f"not exported as {name}: {str(error).strip() or type(error).__name__}")
            tell(f"  The run is complete. Try again: icl report {folder} --export {name}")


def overrides(given: Sequence[str]) -> dict[str, Any]:
    """`["budgets=[16,64]"]` as keys and values; values are YAML. Raises InputError naming every one without a key."""
    found: dict[str, Any] = {}
    problems = []
    for item in given:
        key, equals, value = item.partition("=")
        if not key or not equals:
            problems.append(Problem(f"'{item}' sets nothing", "Write KEY=VALUE, such as budgets=[16,64].", field="--set"))
            continue
        try:
            found[key] = load_yaml(value).value
        except InputError as error:
            problems += [Problem(p.message, p.fix, field=f"--set {key}") for p in error.problems]
    if problems:
        raise InputError(problems)
    return found
