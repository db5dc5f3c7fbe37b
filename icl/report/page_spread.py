"""The spread of a figure: over draws of the labels, and over templates where methods differ in nothing else."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluate.compare import StoredRun
from .markup import Cell, Num, Section, figures, name, paragraph, table
from .plots import Mark, Row, rows_svg
from .runs import Record, Runs, Series, is_percent, said, said_budget, whole


def spread_section(runs: Runs, stored: Mapping[int, StoredRun]) -> Section:
    """By the first metric of every task, each method at its largest label budget."""
    parts = []
    for task in runs.tasks:
        for metric in runs.metrics_of(task)[:1]:
            seeds, rows = _seeds(runs, task, metric)
            templates = _templates(runs, stored, task, metric)
            percent = is_percent(runs.metrics[metric])
            drawn = [rows_svg(rows, f"{metric} by draw of labels", metric, percent=percent)] if rows else []
            drawn += [rows_svg(templates, f"{metric} by template", metric, percent=percent)] if templates else []
            if drawn:
                shown = f"{figures(drawn)}{seeds}"
                parts.append(
                    f"<h3>{name(task)}</h3>" + (f'<div class="beside wide-right">{shown}</div>' if len(drawn) == 1 and seeds else shown)
                )
    lead = (
        "Each dot is one draw of the labelled examples (a seed), or one template of methods that differ in nothing else, at the largest label "
        "budget; the upright stroke is their mean. A spread as wide as the difference between methods is a reason for more draws."
    )
    return Section("spread", "Spread over seeds and templates", paragraph(lead, "note") + "".join(parts) if parts else "", "Spread")


def _seeds(runs: Runs, task: str, metric: str) -> tuple[str, list[Row]]:
    """A table and a figure of the methods that have several draws."""
    facts = runs.metrics[metric]
    percent, digits = is_percent(facts), 1
    found: list[Row] = []
    rows: list[list[Cell]] = []
    for series, record in runs.largest(task, metric=metric, seed=None):
        mine = [r for s, r in runs.of("records", task, metric=metric, budget=record["budget"]) if s == series and r["seed"] is not None]
        values = [r["value"] for r in mine if r["value"] is not None]
        if len(values) < 2 or record["value"] is None:
            continue
        marks = [Mark(0, r["value"], tip=f"seed {r['seed']}: {said(r['value'], percent)}") for r in mine if r["value"] is not None]
        found.append(Row(runs.style(series), runs.names[series], marks, record["value"]))
        deviation = statistics.stdev(values) * (100 if percent else 1)
        shown = [said(value, percent) for value in (min(values), max(values))]
        rows.append(
            [
                runs.names[series],
                said_budget(record["budget"]),
                Num(f"{len(values)}"),
                *map(Num, shown),
                Num(f"{deviation:.{digits if percent else 3}f}"),
            ]
        )
    unit = " in %" if percent else ""
    head: list[Cell] = [f"{metric}{unit}", "labels", *map(Num, ("draws", "lowest", "highest", "standard deviation"))]
    return (table(head, rows) if rows else ""), found


def _templates(runs: Runs, stored: Mapping[int, StoredRun], task: str, metric: str) -> list[Row]:
    """A row for methods that differ in their template alone."""
    percent = is_percent(runs.metrics[metric])
    groups: dict[str, list[tuple[Series, Record, str]]] = {}
    for series, record in runs.largest(task, metric=metric, seed=None):
        said_of = stored[series.run].methods_as_written.get(series.method) if series.run in stored else None
        if said_of is None or record["value"] is None:
            continue
        kind, settings = said_of
        rest = {key: value for key, value in settings.items() if key != "template"}
        key = json.dumps([series.run, series.model, record["budget"], kind, rest], sort_keys=True)
        groups.setdefault(key, []).append((series, record, str(settings.get("template") or "the task's template")))
    return [_row(runs, group, percent) for group in groups.values() if len({template for *_, template in group}) > 1]


def _row(runs: Runs, group: Sequence[tuple[Series, Record, str]], percent: bool) -> Row:
    marks = [Mark(0, r["value"], tip=f"{runs.names[series]}, {template}: {whole(r, percent)}") for series, r, template in group]
    first: Any = group[0][0]
    return Row(runs.style(first), " / ".join(runs.names[series] for series, *_ in group), marks, statistics.fmean(m.value for m in marks))
