"""The spread of a figure: over draws of the labels, and over templates where methods differ in nothing else."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluate.compare import StoredRun
from .markup import Cell, Num, Section, figures, name, paragraph, table
from .plots import Mark, Row, bars_svg, rows_svg
from .runs import Record, Runs, Series, in_order, is_percent, said, said_budget, whole
from .variance import WORDS


def spread_section(runs: Runs, stored: Mapping[int, StoredRun]) -> Section:
    """By the first metric of every task, each method at its largest label budget."""
    parts = []
    for task in runs.tasks:
        for metric in runs.metrics_of(task)[:1]:
            seeds, rows = _seeds(runs, task, metric)
            templates = _templates(runs, stored, task, metric)
            percent = is_percent(runs.metrics[metric])
            drawn = [rows_svg(rows, f"{metric} by seed", metric, percent=percent)] if rows else []
            drawn += [rows_svg(templates, f"{metric} by template", metric, percent=percent)] if templates else []
            shares, split = _variance(runs, task, metric)
            drawn += (
                [bars_svg(shares, split, f"Where the uncertainty of {metric} comes from", "% of the variance of the mean")]
                if shares
                else []
            )
            if drawn:
                shown = f"{figures(drawn)}{seeds}{_one_more(runs, task, metric)}"
                parts.append(
                    f"<h3>{name(task)}</h3>" + (f'<div class="beside wide-right">{shown}</div>' if len(drawn) == 1 and seeds else shown)
                )
    lead = (
        "Each dot is one run (a seed: a draw of the labelled examples and all other chance), or one template of methods that differ in nothing else, at the largest label "
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
    head: list[Cell] = [f"{metric}{unit}", "labels", *map(Num, ("runs", "lowest", "highest", "standard deviation"))]
    return (table(head, rows) if rows else ""), found


def _variances(runs: Runs, task: str, metric: str) -> dict[Series, Record]:
    """Of methods with crossed seeds, where their uncertainty comes from, at the largest label budget."""
    found: dict[Series, Record] = {}
    for series, record in runs.of("variance", task, metric=metric):
        if series in runs.names and (series not in found or in_order(record["budget"]) >= in_order(found[series]["budget"])):
            found[series] = record
    return found


def _variance(runs: Runs, task: str, metric: str) -> tuple[list[tuple[str, list[float]]], list[str]]:
    """((method, shares in %), what the shares are owed to)."""
    found = _variances(runs, task, metric)
    whole = {series: sum(part["of_mean"] for part in record["components"]) for series, record in found.items()}
    of = list(dict.fromkeys(tuple(part["of"]) for record in found.values() for part in record["components"] if part["of_mean"] > 0))
    rows = []
    for series, record in found.items():
        shares = {tuple(part["of"]): 100 * part["of_mean"] / whole[series] for part in record["components"] if whole[series] > 0}
        rows.append((runs.names[series], [shares.get(names, 0.0) for names in of]))
    return rows if of else [], [" × ".join(WORDS.get(each, each) for each in names) for names in of]


def _one_more(runs: Runs, task: str, metric: str) -> str:
    rows: list[list[Cell]] = []
    sources = list(dict.fromkeys(each for record in _variances(runs, task, metric).values() for each in record["one_more"]))
    for series, record in _variances(runs, task, metric).items():
        more = [record["one_more"].get(each) for each in sources]
        rows.append([runs.names[series], *(Num("" if share is None else f"{100 * share:.0f} %") for share in more)])
    head: list[Cell] = ["one more of these would narrow the interval by", *(Num(WORDS.get(each, each)) for each in sources)]
    return table(head, rows) if sources else ""


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
