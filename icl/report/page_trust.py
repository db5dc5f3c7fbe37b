"""Whether answers can be trusted: reliability diagrams, accuracy against coverage, and which labels are taken for which."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from ..evaluate.compare import StoredRun
from .markup import Cell, Num, Safe, Section, esc, figures, fold, legend, name, paragraph, table
from .plots import matrix_svg
from .runs import Record, Runs, Series, said_budget
from .svg import coverage_svg, reliability_svg

MOST_LABELS = 40
"""Labels of a matrix that is drawn; with more, the confusions are listed alone."""
MOST_CONFUSIONS = 12
Counts = Mapping[tuple[int, int], int]


def trust_section(runs: Runs) -> Section:
    """Reliability and coverage of every method at its largest label budget."""
    parts = []
    for task in runs.tasks:
        records = runs.largest(task, "confidence")
        if not records:
            continue
        curves = {runs.names[series]: [tuple(point) for point in record["curve"]] for series, record in records}
        drawn = [
            reliability_svg(
                [tuple(each) for each in record["bins"]], record["n_bins"], f"{runs.names[series]}, {said_budget(record['budget'])}"
            )
            for series, record in records
        ]
        numbers = [runs.style(series) for series, _ in records]
        coverage = legend(zip(numbers, curves, strict=True)) + figures([coverage_svg(curves, "Accuracy against coverage", numbers=numbers)])
        diagrams = fold(f"Reliability diagrams of {len(drawn)} methods", figures(drawn), is_open=len(runs.tasks) == 1)
        parts.append(f"<h3>{name(task)}</h3>{coverage}{diagrams}")
    lead = (
        "Each method at its largest label budget. Coverage: how many answers are right if only the surest are given. Reliability: how often "
        "answers are right, against how probable they were said to be; calibrated ones lie on the diagonal."
    )
    return Section("trust", "Can the probabilities be trusted?", paragraph(lead, "note") + "".join(parts) if parts else "", "Trust")


def confusion_section(runs: Runs, stored: Mapping[int, StoredRun]) -> Section:
    """A matrix per method at its largest label budget, and the confusions that occur most; the leader's is open."""
    parts = []
    for task in runs.tasks:
        facts = runs.facts(task)
        if facts["kind"] != "classify" or not runs.metrics_of(task):
            continue
        metric = runs.metrics_of(task)[0]
        sign = 1 if runs.metrics[metric]["higher_is_better"] else -1
        largest = [(series, record) for series, record in runs.largest(task, metric=metric, seed=None) if series.run in stored]
        largest.sort(key=lambda each: -sign * (each[1]["value"] or 0.0))
        folds: list[Safe] = []
        for series, record in largest:
            counts = _counts(stored[series.run], task, series, record, facts["labels"])
            title = f"{runs.names[series]}, {said_budget(record['budget'])}"
            body = f'<div data-series="{runs.number(series)}">{_matrix(facts["labels"], counts, title)}</div>'
            folds.append(fold(name(title), body, is_open=not folds))
        if folds:
            labels = esc(json.dumps(facts["labels"]))
            where = f'data-task="{runs.tasks.index(task)}" data-labels="{labels}"'
            parts.append(f'<h3>{name(task)}</h3><div class="confusions" {where}>{"".join(folds)}</div>')
    lead = (
        "Rows are the true labels, columns the answers, over all seeds; the shade is the share of the row. The methods are in order of their "
        "figure. A click on a cell lists its items."
    )
    return Section("confusion", "Which labels are confused", paragraph(lead, "note") + "".join(parts) if parts else "", "Confusions")


def _counts(run: StoredRun, task: str, series: Series, record: Record, labels: Sequence[str]) -> Counter[tuple[int, int]]:
    """(true label, answer) -> items; an answer that is no label, or none, stands in the last column."""
    places = {label: at for at, label in enumerate(labels)}
    counts: Counter[tuple[int, int]] = Counter()
    for cell in run.cells:
        if (cell.model, cell.task, cell.method, cell.budget) == (series.model, task, series.method, record["budget"]):
            for example, prediction in zip(run.tests[task], run.predictions(cell), strict=True):
                if example.target in places:
                    counts[places[example.target], places.get(prediction.answer or "", len(labels))] += 1
    return counts


def _matrix(labels: Sequence[str], counts: Counts, title: str) -> Safe:
    drawn = figures([matrix_svg(labels, counts, title)]) if 0 < len(labels) <= MOST_LABELS and counts else ""
    totals = Counter(dict.fromkeys(range(len(labels)), 0))
    for (row, _), n in counts.items():
        totals[row] += n
    wrong = sorted(((n, row, column) for (row, column), n in counts.items() if row != column), key=lambda each: (-each[0], each[1:]))
    if not wrong:
        return Safe(f"{drawn}{paragraph('No item was answered wrongly.')}")
    names = [*labels, "not answered"]
    head: list[Cell] = ["true label", "answered as", Num("items"), Num("of the label")]
    rows: list[list[Cell]] = [
        [names[row], names[column], Num(f"{n:,}"), Num(f"{n / totals[row]:.0%}")] for n, row, column in wrong[:MOST_CONFUSIONS]
    ]
    more = f"{len(wrong) - MOST_CONFUSIONS:,} more kinds of confusion are rarer." if len(wrong) > MOST_CONFUSIONS else ""
    return Safe(f'<div class="beside">{drawn}<div>{table(head, rows)}{paragraph(more, "note") if more else ""}</div></div>')
