"""The page's first parts: the answer, the figures by label budget, learning curves, what they cost, and the spread over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .console import LEADER, LEVEL
from .markup import Cell, Num, Safe, Section, esc, figures, name, paragraph, table
from .plots import Curve, Mark, Row, cost_svg, curves_svg, rows_svg
from .runs import Record, Runs, Series, budgets_of, in_order, is_percent, said, said_budget, said_interval, whole


class Answer(NamedTuple):
    """What stands on top of the page."""

    title: str
    paragraphs: Sequence[str]
    """The first is what matters most."""
    figures: Sequence[tuple[str, str]] = ()
    """(name, value) of key figures."""


def answer_section(answer: Answer) -> Safe:
    tiles = "".join(f"<div><dt>{esc(key)}</dt><dd>{name(value)}</dd></div>" for key, value in answer.figures)
    listed = f"<dl>{tiles}</dl>" if tiles else ""
    said = "".join(paragraph(name(each)) for each in answer.paragraphs)
    return Safe(f'<section id="answer" class="answer"><h2>{name(answer.title)}</h2>{said}{listed}</section>')


def default_answer(runs: Runs) -> Answer | None:
    """Per task the leading method at the largest label budget, by the first metric, and those not told apart from it."""
    lines: list[str] = []
    tiles: list[tuple[str, str]] = []
    winners = []
    for n, source in enumerate(runs.sources):
        for task in source.document["tasks"]:
            best = _best(source.document, task)
            if best is None:
                continue
            metric, percent = best["metric"], is_percent(runs.metrics[best["metric"]])
            series = Series(n, *best["best"])
            record = _record(runs, task, metric, best["budget"], series)
            if record is None:
                continue
            winners.append(runs.names[series])
            level = [runs.names[Series(n, model, method)] for model, method in best["level"]]
            others = f"Not told apart from it: {', '.join(level)}." if level else "It is told apart from every other method."
            others = others if _n_rivals(runs, task, n) > 1 else ""
            lines.append(
                f"On {task}, with {said_budget(best['budget'])}: {runs.names[series]}, {metric} {whole(record, percent)}. {others}"
            )
            tiles.append((f"{metric} of {runs.names[series]} on {task}", whole(record, percent)))
    if not lines:
        return None
    same = list(dict.fromkeys(winners))
    title = f"{same[0]} leads" if len(same) == 1 else "No method leads everywhere" if len(runs.tasks) > 1 else " and ".join(same) + " lead"
    return Answer(title, [line.strip() for line in lines], tiles[:6])


def _n_rivals(runs: Runs, task: str, run: int) -> int:
    return len({series for series, _ in runs.of("records", task) if series.run == run})


def _best(document: Record, task: str) -> Record | None:
    entries = [entry for entry in document["best"] if entry["task"] == task]
    mine = [entry for entry in entries if entry["metric"] == entries[0]["metric"]]
    return max(mine, key=lambda entry: in_order(entry["budget"]), default=None)


def _record(runs: Runs, task: str, metric: str, budget: Any, series: Series) -> Record | None:
    records = [r for s, r in runs.of("records", task, metric=metric, seed=None) if s == series and r["budget"] in (budget, None)]
    return records[0] if records else None


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
    return Safe(f"{swatch(runs.number(series))}{name(title)}")


def swatch(n: int) -> str:
    """A dot in the colour of the n-th series."""
    from .svg import colour

    return f'<svg class="swatch" width="10" height="10" viewBox="0 0 10 10" aria-hidden="true"><circle cx="5" cy="5" r="4.5" fill="{colour(n)}"/></svg>'


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


def curves_section(runs: Runs) -> Section:
    """Learning curves, one figure per task and metric; of a task with a single label budget, rows of intervals."""
    drawn = []
    for task in runs.tasks:
        for metric in runs.metrics_of(task):
            records = runs.of("records", task, metric=metric, seed=None)
            if not any(record["value"] is not None for _, record in records):
                continue
            title = f"{metric} on {task}" if len(runs.tasks) > 1 or len(runs.metrics_of(task)) > 1 else metric
            if len(budgets_of(record for _, record in records)) > 1:
                drawn.append(_curves(runs, task, metric, title, records))
            else:
                drawn.append(_rows(runs, metric, title, records))
    lead = "The figure against the labels owned, with the band of its 95 % interval. A method that needs no labels is a straight line."
    return Section("curves", "Learning curves", paragraph(lead, "note") + figures(drawn) if drawn else "")


def _curves(runs: Runs, task: str, metric: str, title: str, records: Sequence[tuple[Series, Record]]) -> str:
    facts = runs.metrics[metric]
    curves = []
    for series, shown in runs.names.items():
        mine = [record for s, record in records if s == series and record["value"] is not None]
        marks = [_mark_of(record, runs.labels_owned(task, record["budget"]), is_percent(facts)) for record in mine]
        if marks:
            curves.append(Curve(runs.number(series), shown, marks, is_flat=all(record["budget"] is None for record in mine)))
    bounds = tuple(facts["bounds"]) if facts["bounds"] else None
    return curves_svg(curves, title, metric, bounds)


def _mark_of(record: Record, x: float, percent: bool) -> Mark:
    tip = f"{said_budget(record['budget'])}: {whole(record, percent)}"
    return Mark(x, record["value"], record["low"], record["high"], tip)


def _rows(runs: Runs, metric: str, title: str, records: Iterable[tuple[Series, Record]]) -> str:
    facts = runs.metrics[metric]
    rows = [
        Row(runs.number(series), runs.names[series], [_mark_of(record, 0.0, is_percent(facts))])
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
        for kind, unit, costs in (
            ("seconds", "seconds per query, as measured", _seconds(runs, task)),
            ("tokens", "tokens per query that a language model computes, from a cold start", _tokens(runs, task)),
        ):
            points = []
            for series, record in records:
                cost = costs.get((series, record["budget"]), 0.0)
                if cost > 0:
                    tip = f"{whole(record, is_percent(facts))} for {cost:,.3g} {kind} a query"
                    points.append(
                        Curve(runs.number(series), runs.names[series], [Mark(cost, record["value"], record["low"], record["high"], tip)])
                    )
            if len(points) > 1:
                drawn.append(cost_svg(points, f"{metric} against {kind}, {task}", unit, metric, bounds))
    lead = "Each method at its largest label budget. Up is better, left is cheaper; the axis of costs is logarithmic."
    lower = any(not runs.metrics[metrics[0]]["higher_is_better"] for metrics in map(runs.metrics_of, runs.tasks) if metrics)
    lead = lead.replace("Up is better, left", "Left") if lower else lead
    return Section("cost", "What it costs", paragraph(lead, "note") + figures(drawn) if drawn else "")


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


def spread_section(runs: Runs) -> Section:
    """The single draws of labels at the largest label budget, a dot each."""
    drawn = []
    for task in runs.tasks:
        for metric in runs.metrics_of(task)[:1]:
            percent = is_percent(runs.metrics[metric])
            rows = []
            for series, record in runs.largest(task, metric=metric, seed=None):
                seeds = [
                    r for s, r in runs.of("records", task, metric=metric, budget=record["budget"]) if s == series and r["seed"] is not None
                ]
                values = [r for r in seeds if r["value"] is not None]
                if len(values) > 1 and record["value"] is not None:
                    marks = [Mark(0, r["value"], tip=f"seed {r['seed']}: {said(r['value'], percent)}") for r in values]
                    rows.append(Row(runs.number(series), runs.names[series], marks, record["value"]))
            if rows:
                drawn.append(rows_svg(rows, f"{metric} by draw of labels, {task}", metric, percent=percent))
    lead = "Each dot is one seed, which draws the labelled examples, at the largest label budget; the upright stroke is their mean."
    return Section("spread", "Spread over seeds", paragraph(lead, "note") + figures(drawn) if drawn else "")
