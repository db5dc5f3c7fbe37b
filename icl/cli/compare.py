"""`icl compare`: methods on the same items, and what each stage of a method gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, Problem
from .guard import FINE
from .options import AsJson, Quiet
from .output import be_quiet, say, say_json, tell
from .run import Changes, Places, overrides

if TYPE_CHECKING:
    from ..audit import Comparison


@dataclass(frozen=True, slots=True)
class Audit:
    """For a suite whose method is run without each of its stages."""

    leave_out: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help="Run this method of SUITE without each of its stages in turn, and show what each stage gains."),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --leave-out: where its run goes; one that is there already goes on."),
    ] = None
    max_cost: Annotated[float | None, typer.Option(metavar="X", help="With --leave-out: stop before endpoints cost more than X.")] = None
    no_cache: Annotated[bool, typer.Option("--no-cache", help="With --leave-out: use no scores of earlier runs, and keep none.")] = False


@dataclass(frozen=True, slots=True)
class Shown:
    """What is compared and shown."""

    model: Annotated[str | None, typer.Option(metavar="M", help="Under this language model only.")] = None
    metric: Annotated[list[str] | None, typer.Option(metavar="NAME", help="By this metric only; may be given several times.")] = None
    per_seed: Annotated[bool, typer.Option("--per-seed", help="Also under each seed.")] = False


def compare(
    what: Annotated[
        list[str],
        typer.Argument(metavar="RUN|METHOD", help="One or two folders of runs, then methods. With --leave-out: a suite."),
    ],
    audit: Audit,
    shown: Shown,
    changes: Changes,
    places: Places,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Compare methods on the same items, with paired intervals.

    RUN A B: two methods of a run. RUN A: a method with all others. RUN RUN2: two runs, all methods that both have. RUN RUN2 A B: one
    method of each. SUITE --leave-out METHOD: runs the method without each of its stages (each stage of its retriever, its order,
    read-out and calibration) and shows what each gains. By every metric, per task and label budget and over all tasks. Where an
    interval includes 0: which difference would have been seen, and how many more items or draws would settle it.
    """
    be_quiet(quiet)
    found = _compared(what, shown, places) if audit.leave_out is None else _left_out(what, audit, changes, places)
    if as_json:
        say_json(list(found.records))
    elif found.records:
        say(found.table(per_seed=shown.per_seed))
    if found.run is None:
        return FINE
    for line in found.run.next() if found.run.interrupted or found.run.stopped else ():
        tell(line)
    tell(f"Results: {found.run.folder}")
    return found.run.exit_code


def _compared(what: Sequence[str], shown: Shown, places: Places) -> Comparison:
    from ..audit import compare

    return compare(what[0], *what[1:], model=shown.model, metrics=shown.metric or (), plugins=places.plugins or ())


def _left_out(what: Sequence[str], audit: Audit, changes: Changes, places: Places) -> Comparison:
    from ..audit import leave_out

    assert audit.leave_out is not None
    if len(what) > 1:
        raise InputError(Problem(f"{what[1]!r} is one too many", "Write: icl compare SUITE --leave-out METHOD."))
    return leave_out(
        what[0], audit.leave_out, audit.out, changes.limit, changes.seed, overrides(changes.set or ()),
        cache=not audit.no_cache, max_cost=audit.max_cost,
        templates=places.templates, plugins=places.plugins or (), data_root=places.data_root,
    )  # fmt: skip
