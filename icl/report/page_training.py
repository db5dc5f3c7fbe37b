"""The page's part on trainings: what every one of them was like, epoch by epoch, and what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .markup import Cell, Num, Safe, Section, figures, fold, paragraph, table
from .plots import Curve, Mark, losses_svg
from .runs import Budget, Record, Runs, Series, in_order, said_budget

MOST_ROWS = 12
"""Trainings whose table stands open."""
_PLACES = ("epoch", "step")
_NOT_WATCHED = (*_PLACES, "seconds")


def training_section(runs: Runs) -> Section:
    """Of every training that left a record: its curves, those of smaller label budgets folded, and its cost."""
    groups: dict[tuple[Series, str, Budget], list[Record]] = {}
    for series, cell in runs.timed():
        for training in trainings(cell.get("training")):
            groups.setdefault((series, cell["task"], cell["budget"]), []).append({**training, "run_seed": cell["seed"]})
    largest: dict[tuple[Series, str], Budget] = {}
    for series, task, budget in groups:
        largest[series, task] = max(budget, largest.get((series, task)), key=in_order)
    drawn: list[str] = []
    smaller: list[str] = []
    rows: list[list[Cell]] = []
    for (series, task, budget), found in groups.items():
        title = f"{runs.names.get(series, series.method)}, {task}, {said_budget(budget)}"
        (drawn if budget == largest[series, task] else smaller).extend(_curves(title, found))
        rows += [_row(title, each) for each in found]
    if not rows:
        return Section("training", "Training", "")
    counts = ("steps", "epochs", "kept epoch", "parameters", "trained", "tokens", "operations", "s", "MiB")
    costs = table(["training", "seed", *map(Num, counts)], rows)
    lead = "One line per training. Where several epochs were judged, the best is kept."
    body = [paragraph(lead, "note"), figures(drawn), fold("Smaller label budgets", figures(smaller))]
    body.append(costs if len(rows) <= MOST_ROWS else fold(f"What {len(rows)} trainings cost", costs))
    return Section("training", "Training", Safe("".join(body)))


def trainings(value: Any) -> Iterator[Record]:
    """The records of trainings that a cell's timing holds: one, a list, or by name."""
    if isinstance(value, Mapping) and isinstance(value.get("curve"), Sequence):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from trainings(part)


def _curves(title: str, found: Sequence[Record]) -> Iterator[str]:
    """A figure per value that the points of the curves have, over the epochs, or over steps where there are no epochs."""
    points = [point for each in found for point in each["curve"]]
    place = next((key for key in _PLACES if points and all(key in point for point in points)), None)
    keys = dict.fromkeys(key for point in points for key, value in point.items() if isinstance(value, int | float))
    watched = sorted((key for key in keys if key not in _NOT_WATCHED), key=lambda key: (not key.endswith("loss"), key))
    for key in watched[:3] if place is not None else ():
        curves = []
        for n, each in enumerate(found):
            kept = each.get("best_epoch")
            marks = [
                Mark(p[place], p[key], tip=f"{place} {p[place]:g}: {p[key]:.4g}{', kept' if place == 'epoch' and p[place] == kept else ''}")
                for p in each["curve"]
                if key in p
            ]
            curves += [Curve(n, _said_seed(each), marks)] if marks else []
        yield losses_svg(curves, title, (place or "", key.replace("_", " ")))


def _said_seed(training: Record) -> str:
    seed = training["run_seed"] if training["run_seed"] is not None else training.get("seed")
    return "" if seed is None else f"seed {seed}"


def _row(title: str, each: Record) -> list[Cell]:
    early = "stopped early" if each.get("stopped_early") else ""
    numbers = [Num(_said(each.get("n_steps"))), Num(_said(each.get("epochs")), early), Num(_said(each.get("best_epoch")))]
    numbers += [Num(_said(each.get(key))) for key in ("n_parameters", "n_trained", "n_tokens")]
    operations, seconds, memory = (each.get(key) for key in ("operations", "seconds", "peak_memory_mb"))
    numbers += [
        Num(f"{operations:.2g}" if operations else ""),
        Num(f"{seconds:,.1f}" if seconds else ""),
        Num(f"{memory:,.0f}" if memory else ""),
    ]
    return [title, _said_seed(each), *numbers]


def _said(n: Any) -> str:
    return "" if n is None else f"{n:,}"
