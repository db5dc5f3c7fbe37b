"""Paired differences on the page: of one run the leader against every other method, of several runs each method against itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import InputError
from ..evaluate.cells import Cell
from ..evaluate.compare import StoredRun, aligned
from ..seeds import numpy_rng_for
from .comparison import said_coverage, verdict
from .markup import Cell as TableCell
from .markup import Num, Section, figures, name, paragraph, table
from .plots import Mark, Row, rows_svg
from .runs import Record, Runs, Series, is_percent


class Pair(NamedTuple):
    """Two series at one label budget each."""

    a: tuple[Series, Any]
    b: tuple[Series, Any]


def differences_section(runs: Runs, stored: Mapping[int, StoredRun]) -> Section:
    """By the first metric of every task, at the largest label budget; p is Holm's over the rows of a task."""
    parts: list[str] = []
    for task in runs.tasks:
        metrics = runs.metrics_of(task)
        pairs = [pair for pair in _pairs(runs, task, metrics[0]) if {s.run for s, _ in pair} <= stored.keys()] if metrics else []
        if not pairs:
            continue
        try:
            records = [_record(runs, stored, task, metrics[0], pair) for pair in pairs]
        except InputError as error:
            parts.append(paragraph(f"{task}: no paired differences: {error}", "note"))
            continue
        parts.append(_task(runs, task, metrics[0], pairs, _with_holm(records)))
    lead = (
        "The first minus the second on the items that both scored, with its paired 95 % interval: over items, and draws of labels where there "
        "are several. Where the interval leaves out 0 the two are told apart; p is adjusted by Holm for the number of rows."
    )
    return Section("differences", "Paired differences", paragraph(lead, "note") + "".join(parts) if parts else "", "Differences")


def _pairs(runs: Runs, task: str, metric: str) -> Iterator[Pair]:
    largest = dict(runs.largest(task, metric=metric, seed=None))
    if len(runs.sources) > 1:
        for series, record in largest.items():
            for other, theirs in largest.items():
                if other.run > series.run == 0 and (other.model, other.method) == (series.model, series.method):
                    yield Pair((series, record["budget"]), (other, theirs["budget"]))
        return
    values = {series: record["value"] for series, record in largest.items() if record["value"] is not None}
    if len(values) < 2:
        return
    sign = 1 if runs.metrics[metric]["higher_is_better"] else -1
    leader = max(values, key=lambda series: sign * values[series])
    rivals = sorted((series for series in values if series != leader), key=lambda series: -sign * values[series])
    for series in rivals:
        yield Pair((leader, largest[leader]["budget"]), (series, largest[series]["budget"]))


def _record(runs: Runs, stored: Mapping[int, StoredRun], task: str, metric: str, pair: Pair) -> dict[str, Any]:
    """As `evaluate.compare.compare` has them, of one pair."""
    from ..evaluate.crossed import merged
    from ..evaluate.paired import paired, side

    (a, _), (b, _) = pair
    first, second = stored[a.run], stored[b.run]
    order = aligned(first, second)[task]
    built = first.metrics(task, (), only=metric)[metric]
    ours, theirs = _seeds(first, task, pair.a), _seeds(second, task, pair.b)
    if len(ours) > 1 and len(theirs) > 1:
        both = {cell.seed for cell in ours} & {cell.seed for cell in theirs}
        ours, theirs = ([cell for cell in cells if cell.seed in both] for cells in (ours, theirs))
    sides = (
        merged(side(built, [first.predictions(cell) for cell in ours], first.tests[task]), _replicates(first, ours)),
        merged(
            side(built, [[run[at] for at in order] for run in map(second.predictions, theirs)], first.tests[task]),
            _replicates(second, theirs),
        ),
    )
    found = paired([sides], numpy_rng_for(0, "compare", *(runs.names[s] for s in (a, b)), task, metric))
    facts = runs.metrics[metric]
    wins = None if not found.differs else "a" if ((found.value or 0.0) > 0) is facts["higher_is_better"] else "b"
    return {
        "bounds": facts["bounds"],
        "coverage_a": first.answered(ours),
        "coverage_b": second.answered(theirs),
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "p": found.p if found.mcnemar is None else found.mcnemar,
        "p_holm": None,
        "settled": found.differs,
        "better": wins,
        **{key: getattr(found, key) for key in ("n_items", "n_unscored", "detectable", "more_items", "more_runs")},
    }


def _replicates(run: StoredRun, cells: Sequence[Cell]) -> list[int | None]:
    """Where seeds are crossed, the runs of one draw are taken as one."""
    return [run.facts[cell].get("replicate") for cell in cells]


def _seeds(run: StoredRun, task: str, side: tuple[Series, Any]) -> list[Cell]:
    series, budget = side
    return [c for c in run.cells if (c.model, c.task, c.method, c.budget) == (series.model, task, series.method, budget)]


def _with_holm(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    from ..evaluate.paired import holm

    known = [record for record in records if record["p"] is not None]
    for record, p in zip(known, holm([record["p"] for record in known]), strict=True):
        record["p_holm"] = p
    return list(records)


def _task(runs: Runs, task: str, metric: str, pairs: Sequence[Pair], records: Sequence[Record]) -> str:
    percent = is_percent(runs.metrics[metric])
    scale, digits = (100.0, 1) if percent else (1.0, 3)
    many = len(pairs) > 1
    titles, marks = [], []
    rows: list[list[TableCell]] = []
    for pair, record in zip(pairs, records, strict=True):
        a, b = (runs.names[series] for series, _ in pair)
        if record["difference"] is None:
            continue
        value, low, high = (f"{record[key] * scale:+.{digits}f}" for key in ("difference", "low", "high"))
        p = "" if record["p_holm"] is None else "<0.001" if record["p_holm"] < 0.001 else f"{record['p_holm']:.3f}"
        answered = said_coverage(record)
        not_scored = f"{record['n_unscored']:,} not scored" if record["n_unscored"] else ""
        left_out = ", ".join(filter(None, (not_scored, f"answered {answered}" if answered else "")))
        says = verdict(record, many)
        if record["settled"]:
            says = says.replace(f"{record['better']} is better", f"{a if record['better'] == 'a' else b} is better", 1)
        titles.append((a, b))
        marks.append((runs.style(pair.b[0]), record, f"{value} [{low}, {high}]"))
        rows.append([a, b, Num(value, f"[{low}, {high}]"), Num(p), Num(f"{record['n_items']:,}", left_out), says])
    if not rows:
        return ""
    leader = titles[0][0] if len({a for a, _ in titles}) == 1 else None
    drawn = rows_svg(
        [
            Row(n, b if leader else a, [Mark(0, r["difference"], r["low"], r["high"], f"{a} minus {b}: {tip}")])
            for (n, r, tip), (a, b) in zip(marks, titles, strict=True)
        ],
        f"{leader} minus each other, {task}" if leader else f"{runs.titles[0]} minus {runs.titles[1]}, {task}",
        f"difference in {metric}" + (", points" if percent else ""),
        percent=percent,
        zero=True,
    )
    head: list[TableCell] = ["first", "second", Num("difference"), Num("p (Holm)" if many else "p"), Num("items"), "what it says"]
    if leader:
        head, rows = [f"{leader} minus", *head[2:]], [row[1:] for row in rows]
    counts = {record["n_items"] for record in records if record["difference"] is not None}
    if len(counts) == 1 and not any(record["n_unscored"] for record in records):  # said once instead of in every row
        head, rows = [*head[:-2], head[-1]], [[*row[:-2], row[-1]] for row in rows]
    about = f"{metric}, {counts.pop():,} items" if len(counts) == 1 else metric
    return f'<h3>{name(task)} <small>{name(about)}</small></h3><div class="beside wide-right">{figures([drawn])}{table(head, rows)}</div>'
