"""The top of the page: the answer. Of a decision what was decided; else which method leads, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .console import said_ended
from .markup import Cell, Num, Safe, fold, name, paragraph, table
from .plots import Crossing
from .runs import Record, Runs, Series, best_of, is_percent, said_budget, said_seconds, whole


class Answer(NamedTuple):
    """What stands on top of the page."""

    title: str
    paragraphs: Sequence[str]
    """The first is what matters most."""
    figures: Sequence[tuple[str, str]] = ()
    """(name, value) of key figures."""
    table: Sequence[Sequence[str]] = ()
    """The methods with what speaks for and against each, the head first."""
    note: str = ""
    """What stands below the table."""
    metric: str | None = None
    """The figure that it was decided by."""
    crossing: Crossing | None = None
    """From how many labels on training wins."""


def answer_section(answer: Answer) -> Safe:
    first, *others = [paragraph(name(each)) for each in answer.paragraphs] or [Safe("")]
    tiles = "".join(f"<div><dt>{name(key)}</dt><dd>{name(value)}</dd></div>" for key, value in answer.figures)
    listed = f"<dl>{tiles}</dl>" if tiles else ""
    more = ""
    if answer.table:
        head: list[Cell] = [answer.table[0][0], *map(Num, answer.table[0][1:])]
        rows: list[list[Cell]] = [[row[0], *map(Num, row[1:])] for row in answer.table[1:]]
        more = fold("All methods: figures, differences, costs", table(head, rows) + paragraph(answer.note, "note"))
    return Safe(f'<section id="answer" class="answer"><h2>{name(answer.title)}</h2>{first}{listed}{"".join(others)}{more}</section>')


class _Lead(NamedTuple):
    """The best of a run on a task."""

    task: str
    series: Series
    record: Record
    budget: Any
    level: Sequence[Series]
    n_methods: int


def default_answer(runs: Runs) -> Answer | None:
    """Per task the leading method at the largest label budget, by the first metric, and those not told apart from it."""
    leads = [lead for n, source in enumerate(runs.sources) for task in source.document["tasks"] if (lead := _lead(runs, n, task))]
    if not leads:
        return None
    winners = list(dict.fromkeys(runs.names[lead.series] for lead in leads))
    title = f"{winners[0]} leads" if len(winners) == 1 else f"{_and(winners)} lead" if len(winners) < 4 else "No method leads everywhere"
    tiles = _tiles(runs, leads[0]) if len(leads) == 1 else [_tile(runs, lead) for lead in leads[:8]]
    return Answer(title, [_said(runs, lead) for lead in leads], tiles)


def _lead(runs: Runs, run: int, task: str) -> _Lead | None:
    best = best_of(runs.sources[run].document, task)
    if best is None:
        return None
    series, level = Series(run, *best["best"]), [Series(run, model, method) for model, method in best["level"]]
    found = [
        r for s, r in runs.of("records", task, metric=best["metric"], seed=None) if s == series and r["budget"] in (best["budget"], None)
    ]
    n_methods = len({s for s, _ in runs.of("records", task) if s.run == run})
    return _Lead(task, series, found[0], best["budget"], [s for s in level if s in runs.names], n_methods) if found else None


def _said(runs: Runs, lead: _Lead) -> str:
    metric = lead.record["metric"]
    facts = runs.sources[lead.series.run].document["tasks"][lead.task]
    n_draws = len(
        {
            cell.get("replicate", cell["seed"])
            for s, cell in runs.of("cells", lead.task)
            if s.run == lead.series.run and cell["seed"] is not None
        }
    )
    draws = f", {n_draws} draw{'s' if n_draws > 1 else ''} of the labels" if n_draws else ""
    value = whole(lead.record, is_percent(runs.metrics[metric]))
    labels = f"all {facts['n_train']:,} labels" if lead.budget == "all" else said_budget(lead.budget)
    text = f"On {lead.task}, with {labels}, the {metric} of {runs.names[lead.series]} is {value} ({facts['n_items']:,} test items{draws})."
    early = [entry for entry in runs.sources[lead.series.run].document.get("ended_early", ()) if entry["task"] == lead.task]
    text += "".join(f" The run {said_ended(entry)}." for entry in early)
    if lead.level:
        return f"{text} Not told apart from it, so perhaps as good: {_and([runs.names[series] for series in lead.level])}."
    return f"{text} It is told apart from every other method." if lead.n_methods > 1 else text


def _tile(runs: Runs, lead: _Lead) -> tuple[str, str]:
    metric = lead.record["metric"]
    return f"{metric} of {runs.names[lead.series]} on {lead.task}", whole(lead.record, is_percent(runs.metrics[metric]))


def _tiles(runs: Runs, lead: _Lead) -> list[tuple[str, str]]:
    """Of a single task: the best, the next, and what a query and the labels cost the best."""
    metric = lead.record["metric"]
    facts = runs.metrics[metric]
    tiles = [(f"{metric} of {runs.names[lead.series]}", whole(lead.record, is_percent(facts)))]
    sign = 1 if facts["higher_is_better"] else -1
    rivals = [(s, r) for s, r in runs.largest(lead.task, metric=metric, seed=None) if s != lead.series and r["value"] is not None]
    if rivals:
        series, record = max(rivals, key=lambda each: sign * each[1]["value"])
        tiles.append((f"next: {runs.names[series]}", whole(record, is_percent(facts))))
    clock = [cell for s, cell in runs.timed(lead.task) if s == lead.series and cell["budget"] == lead.record["budget"]]
    if clock:
        n_items = runs.facts(lead.task)["n_items"]
        tiles.append(
            (f"a query of {runs.names[lead.series]} takes", said_seconds(sum(c["predict_s"] for c in clock) / len(clock) / max(1, n_items)))
        )
        if lead.record["budget"] is not None:
            tiles.append(("learning from the labels takes", said_seconds(sum(c["fit_s"] for c in clock) / len(clock))))
    return tiles


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
