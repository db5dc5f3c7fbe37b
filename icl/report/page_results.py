"""The page's parts on results: the figures by label budget, learning curves, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .console import LEADER, LEVEL
from .markup import Cell, Num, Safe, Section, esc, figures, legend, name, paragraph, sample, table
from .page_answer import Answer
from .plots import Crossing, Curve, Mark, Row, cost_svg, curves_svg, rows_svg
from .runs import Record, Runs, Series, budgets_of, is_percent, said, said_budget, said_interval, said_seconds, whole


def figures_section(runs: Runs) -> Section:
    """A table per task and metric: methods by label budgets."""
    parts = []
    for task in runs.tasks:
        facts = runs.facts(task)
        what = f"{len(facts['labels'])} labels" if facts["labels"] else facts["kind"]
        of_all = f" of {facts['n_test']:,}" if facts["n_items"] < facts["n_test"] else ""
        head = f"{what} · {facts['n_train']:,} rows to learn from · {facts['n_items']:,}{of_all} test items"
        parts.append(f"<h3>{name(task)} <small>{esc(head)}</small></h3>")
        parts += [_metric_table(runs, task, metric) for metric in runs.metrics_of(task)]
    if not parts:
        return Section("figures", "Figures", "")
    note = (
        f"Each figure with its 95 % interval, over test items and draws of labels. {LEADER} best in its column; {LEVEL} not told apart "
        "from it: the paired 95 % interval of the difference includes 0. A method that needs no labels stands in every column."
    )
    return Section("figures", "Figures", "".join([*parts, paragraph(note, "note")]))


def _metric_table(runs: Runs, task: str, metric: str) -> Safe:
    facts = runs.metrics[metric]
    records = runs.of("records", task, metric=metric, seed=None)
    if not records:
        return Safe("")
    budgets = budgets_of(record for _, record in records)
    unit = " in %" if is_percent(facts) else ""
    better = "" if facts["higher_is_better"] else ", lower is better"
    head: list[Cell] = [f"{metric}{unit}{better}", *(Num(said_budget(budget)) for budget in budgets)]
    rows = []
    for series, title in runs.names.items():
        mine = {record["budget"]: record for s, record in records if s == series}
        if mine:
            rows.append([_title(runs, series, title), *(_figure(runs, mine, budget, series, is_percent(facts)) for budget in budgets)])
    return table(head, rows, kind="figures-table")


def _title(runs: Runs, series: Series, title: str) -> Safe:
    return Safe(f"{sample(runs.style(series))}{name(title)}")


def _figure(runs: Runs, mine: dict[Any, Record], budget: Any, series: Series, percent: bool) -> Cell:
    record = mine.get(budget, mine.get(None))
    if record is None:
        return Num("")
    notes = [said_interval(record, percent)]
    if record.get("n_abstained"):
        notes.append(f"of {record['coverage']:.0%} answered")
    if record["n_failed"]:
        notes.append(f"{record['n_failed']:,} not scored")
    mark = _mark(runs, record, budget, series)
    value = f"{said(record['value'], percent)} {mark}".strip()
    return Num(value, ", ".join(filter(None, notes)), "lead" if mark == LEADER else "")


def _mark(runs: Runs, record: Record, budget: Any, series: Series) -> str:
    key = [series.model, series.method]
    for entry in runs.sources[series.run].document["best"]:
        if (entry["task"], entry["budget"], entry["metric"]) == (record["task"], budget, record["metric"]):
            return LEADER if entry["best"] == key else LEVEL if key in entry["level"] else ""
    return ""


def curves_section(runs: Runs, answer: Answer | None = None) -> Section:
    """Learning curves, one figure per task and metric; of a task with a single label budget, rows of intervals. The crossover of the
    answer is marked in those of its metric."""
    crossing = answer.crossing if answer is not None else None
    drawn, n_curves = [], 0
    for task in runs.tasks:
        for metric in runs.metrics_of(task):
            records = runs.of("records", task, metric=metric, seed=None)
            if not any(record["value"] is not None for _, record in records):
                continue
            title = f"{metric} on {task}" if len(runs.tasks) > 1 or len(runs.metrics_of(task)) > 1 else metric
            if len(budgets_of(record for _, record in records)) > 1:
                marked = crossing if answer is not None and metric == answer.metric else None
                drawn.append(_curves(runs, task, metric, title, records, marked))
                n_curves += 1
            else:
                drawn.append(_rows(runs, metric, title, records))
    if not n_curves:
        lead = "Each figure with its 95 % interval, at the one label budget there is."
        return Section("curves", "Intervals", f"{paragraph(lead, 'note')}{figures(drawn)}" if drawn else "")
    lead = "The figure against the labels owned, with the band of its 95 % interval. A method that needs no labels is a straight line."
    lead += " " + crossing.tip if crossing is not None else ""
    return Section("curves", "Learning curves", f"{paragraph(lead, 'note')}{_legend(runs)}{figures(drawn)}" if drawn else "", "Curves")


def _legend(runs: Runs) -> Safe:
    return legend((runs.style(series), title) for series, title in runs.names.items())


def _curves(runs: Runs, task: str, metric: str, title: str, records: Sequence[tuple[Series, Record]], crossing: Crossing | None) -> str:
    facts = runs.metrics[metric]
    curves = []
    for series, shown in runs.names.items():
        mine = [record for s, record in records if s == series and record["value"] is not None]
        marks = [_mark_of(record, runs.labels_owned(task, record["budget"]), is_percent(facts)) for record in mine]
        if marks:
            curves.append(Curve(runs.style(series), shown, marks, is_flat=all(record["budget"] is None for record in mine)))
    bounds = tuple(facts["bounds"]) if facts["bounds"] else None
    return curves_svg(curves, title, metric, bounds, crossing)


def _mark_of(record: Record, x: float, percent: bool) -> Mark:
    tip = f"{said_budget(record['budget'])}: {whole(record, percent)}"
    return Mark(x, record["value"], record["low"], record["high"], tip)


def _rows(runs: Runs, metric: str, title: str, records: Iterable[tuple[Series, Record]]) -> str:
    facts = runs.metrics[metric]
    rows = [
        Row(runs.style(series), runs.names[series], [_mark_of(record, 0.0, is_percent(facts))])
        for series, record in records
        if record["value"] is not None
    ]
    return rows_svg(rows, title, metric, percent=is_percent(facts))


def cost_section(runs: Runs) -> Section:
    """The first metric at the largest label budget, against seconds and against tokens per query."""
    drawn = []
    for task in runs.tasks:
        metrics = runs.metrics_of(task)
        if not metrics:
            continue
        metric = metrics[0]
        facts = runs.metrics[metric]
        bounds = tuple(facts["bounds"]) if facts["bounds"] else None
        records = [(series, r) for series, r in runs.largest(task, metric=metric, seed=None) if r["value"] is not None]
        for kind, unit, costs, tick in (
            ("seconds", "time per query, as measured", _seconds(runs, task), said_seconds),
            ("tokens", "tokens computed per query, from a cold start", _tokens(runs, task), "{:,.10g}".format),
        ):
            points = []
            for series, record in records:
                cost = costs.get((series, record["budget"]), 0.0)
                if cost > 0:
                    price = said_seconds(cost) if kind == "seconds" else f"{cost:,.0f} tokens"
                    tip = f"{whole(record, is_percent(facts))} for {price} a query"
                    points.append(
                        Curve(runs.style(series), runs.names[series], [Mark(cost, record["value"], record["low"], record["high"], tip)])
                    )
            if len(points) > 1:
                drawn.append(cost_svg(points, f"{metric} against {kind}, {task}", (unit, metric), bounds, tick))
    lead = "Each method at its largest label budget. Up is better, left is cheaper; the axis of costs is logarithmic."
    lower = any(not runs.metrics[metrics[0]]["higher_is_better"] for metrics in map(runs.metrics_of, runs.tasks) if metrics)
    lead = lead.replace("Up is better, left", "Left") if lower else lead
    return Section("cost", "What it costs", f"{paragraph(lead, 'note')}{_legend(runs)}{figures(drawn)}" if drawn else "", "Costs")


def _seconds(runs: Runs, task: str) -> dict[tuple[Series, Any], float]:
    spent: dict[tuple[Series, Any], list[float]] = {}
    for series, cell in runs.timed(task):
        spent.setdefault((series, cell["budget"]), []).append(cell["predict_s"])
    n = runs.facts(task)["n_items"]
    return {key: sum(each) / len(each) / n for key, each in spent.items()}


def _tokens(runs: Runs, task: str) -> dict[tuple[Series, Any], float]:
    found: dict[tuple[Series, Any], list[float]] = {}
    for series, cell in runs.of("cells", task):
        if cell["tokens_computed"]:
            found.setdefault((series, cell["budget"]), []).append(cell["tokens_computed"])
    n = runs.facts(task)["n_items"]
    return {key: sum(each) / len(each) / n for key, each in found.items()}
