"""The page's part on groups of items and on label bias: a method that is right on average may be wrong for some."""

from __future__ import annotations

from .markup import Cell, Num, Safe, Section, name, paragraph, sample, table
from .runs import Record, Runs, Series, in_order, is_percent, said, said_budget, said_interval


def groups_section(runs: Runs) -> Section:
    """Of tasks with groups, the first metric by group at the largest label budget; of prompts, what inputs without content are answered."""
    parts = []
    for task in runs.tasks:
        tables = [*_by_group(runs, task), _bias(runs, task)]
        if any(tables):
            parts.append(f"<h3>{name(task)}</h3>{''.join(tables)}")
    return Section("groups", "Groups and label bias", "".join(parts), "Groups")


def _by_group(runs: Runs, task: str) -> list[Safe]:
    metric = next(iter(runs.metrics_of(task)), None)
    found = [(series, record) for series, record in runs.of("by_group", task) if record["metric"] == metric]
    tables = []
    for column in dict.fromkeys(record["column"] for _, record in found):
        largest: dict[Series, Record] = {}
        for series, record in found:
            if record["column"] == column and (series not in largest or in_order(record["budget"]) >= in_order(largest[series]["budget"])):
                largest[series] = record
        sizes = {each["group"]: each["n_items"] for record in largest.values() for each in record["figures"]}
        percent = metric is not None and is_percent(runs.metrics[metric])
        unit = " in %" if percent else ""
        head: list[Cell] = [
            f"{metric}{unit} by {column}",
            *(Num(f"{group}", f"{n:,} items") for group, n in sizes.items()),
            Num("largest gap"),
        ]
        rows: list[list[Cell]] = []
        for series, record in largest.items():
            figures = {each["group"]: each for each in record["figures"]}
            cells = [_figure(figures.get(group), percent) for group in sizes]
            title = f"{runs.names.get(series, series.method)}, {said_budget(record['budget'])}"
            rows.append([Safe(f"{sample(runs.style(series))}{name(title)}"), *cells, _gap(record["gap"], percent)])
        note = "The gap's interval takes all pairs of groups into account: it is above 0 only if some two groups differ. Too few items have no gap."
        tables.append(Safe(table(head, rows, kind="figures-table") + paragraph(note, "note")))
    return tables


def _figure(figure: Record | None, percent: bool) -> Num:
    return Num("") if figure is None else Num(said(figure["value"], percent), said_interval(figure, percent))


def _gap(gap: Record | None, percent: bool) -> Num:
    if gap is None:
        return Num("")
    return Num(said(gap["value"], percent), f"{said_interval(gap, percent)} {gap['highest']} over {gap['lowest']}")


def _bias(runs: Runs, task: str) -> Safe:
    """One row per method: the shares of its answers to inputs that say nothing, of the largest label budget and the first seed."""
    found: dict[Series, Record] = {}
    for series, cell in runs.of("cells", task):
        if cell.get("label_bias") and (series not in found or in_order(cell["budget"]) > in_order(found[series]["budget"])):
            found[series] = cell
    if not found:
        return Safe("")
    labels = list(dict.fromkeys(label for cell in found.values() for label in cell["label_bias"]["shares"]))
    head: list[Cell] = ["answers to inputs that say nothing, in %", *map(Num, labels), Num("bias")]
    rows: list[list[Cell]] = []
    for series, cell in found.items():
        bias = cell["label_bias"]
        shares = [Num(said(bias["shares"][label], True) if label in bias["shares"] else "") for label in labels]
        rows.append(
            [Safe(f"{sample(runs.style(series))}{name(runs.names.get(series, series.method))}"), *shares, Num(said(bias["bias"], True))]
        )
    note = "Bias: how far the shares are from equal ones, 0 to 100."
    return Safe(table(head, rows) + paragraph(note, "note"))
