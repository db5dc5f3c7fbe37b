"""What a report page is about: one run or several, with one name, one number and one colour for each of their methods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from .svg import DASHES, SERIES

Record = Mapping[str, Any]
Budget = Any
"""A label budget: a number, "all", or None for a method that needs no labels."""


@dataclass(frozen=True)
class Source:
    """A run: its folder, and what its files hold."""

    folder: Path
    document: Mapping[str, Any]
    """As results.json; of an unfinished run, of the cells that are complete."""
    timing: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Task -> the lines of its data report."""


class Series(NamedTuple):
    """A method of a run under a model."""

    run: int
    model: str | None
    method: str


@dataclass(frozen=True)
class Runs:
    """One run or several."""

    sources: tuple[Source, ...]

    @cached_property
    def names(self) -> dict[Series, str]:
        """Every series in the order of the runs' methods -> its name: the method, with its model and its run where there are several."""
        found = list(dict.fromkeys(series for _, series, _ in self._all("records")))
        several = len({series.model for series in found if series.model is not None}) > 1
        titles = self.titles
        names = {}
        for series in found:
            more = [series.model] if several and series.model is not None else []
            more += [titles[series.run]] if len(self.sources) > 1 else []
            names[series] = f"{series.method} ({', '.join(more)})" if more else series.method
        return names

    @cached_property
    def titles(self) -> tuple[str, ...]:
        """A name for every run: its folder's, with a number where two are the same."""
        folders = [source.folder.resolve().name or str(source.document["manifest"].get("name")) for source in self.sources]
        return tuple(f"{each} #{n + 1}" if folders.count(each) > 1 else each for n, each in enumerate(folders))

    def number(self, series: Series) -> int:
        """Its place among all."""
        return list(self.names).index(series)

    def style(self, series: Series) -> int:
        """For its colour and dash, as `svg.series` takes it: a method has the same colour in every run, and in each its own dash."""
        methods = list(dict.fromkeys((each.model, each.method) for each in self.names))
        n = methods.index((series.model, series.method))
        rounds = -(-len(methods) // len(SERIES))
        return n % len(SERIES) + len(SERIES) * ((n // len(SERIES) + rounds * series.run) % len(DASHES))

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(task for source in self.sources for task in source.document["tasks"]))

    @cached_property
    def metrics(self) -> dict[str, Mapping[str, Any]]:
        """Metric -> `bounds` and `higher_is_better`."""
        return {name: metric for source in reversed(self.sources) for name, metric in source.document["metrics"].items()}

    def facts(self, task: str) -> Mapping[str, Any]:
        """What results.json says of a task, in the first run that has it."""
        return next(source.document["tasks"][task] for source in self.sources if task in source.document["tasks"])

    def of(self, key: str, task: str | None = None, **wanted: Any) -> list[tuple[Series, Record]]:
        """Records of a part of results.json, with the series each is of; task and other keys: these only."""
        return [
            (series, record)
            for _, series, record in self._all(key)
            if (task is None or record["task"] == task) and all(record[name] == value for name, value in wanted.items())
        ]

    def timed(self, task: str | None = None) -> list[tuple[Series, Record]]:
        """The cells of timing.json."""
        cells = [(n, cell) for n, source in enumerate(self.sources) for cell in source.timing.get("cells", ())]
        return [(Series(n, c["model"], c["method"]), c) for n, c in cells if task is None or c["task"] == task]

    def metrics_of(self, task: str) -> list[str]:
        return list(dict.fromkeys(record["metric"] for _, record in self.of("records", task)))

    def largest(self, task: str, key: str = "records", **wanted: Any) -> list[tuple[Series, Record]]:
        """One record per series: that of its largest label budget, of all seeds together."""
        found: dict[Series, Record] = {}
        for series, record in self.of(key, task, **wanted):
            old = found.get(series)
            if old is None or in_order(record["budget"]) >= in_order(old["budget"]):
                found[series] = record
        return [(series, found[series]) for series in self.names if series in found]

    def labels_owned(self, task: str, budget: Budget) -> float:
        """A label budget as a number: how many examples were drawn, all of them for "all", 0 for none."""
        if budget is None:
            return 0.0
        drawn = [cell["n_labelled"] for _, cell in self.of("cells", task, budget=budget)]
        return float(max(drawn)) if drawn else float(self.facts(task)["n_train"]) if budget == "all" else float(budget)

    def _all(self, key: str) -> Iterator[tuple[int, Series, Record]]:
        for n, source in enumerate(self.sources):
            for record in source.document.get(key, ()):
                yield n, Series(n, record["model"], record["method"]), record


def in_order(budget: Budget) -> float:
    return -1.0 if budget is None else float("inf") if budget == "all" else float(budget)


def budgets_of(records: Iterable[Record]) -> list[Budget]:
    """The label budgets that occur, smallest first; [None] if there are none."""
    return sorted({r["budget"] for r in records if r["budget"] is not None}, key=in_order) or [None]


def said_budget(budget: Budget) -> str:
    return "no labels" if budget is None else f"{budget:,} labels" if isinstance(budget, int) else f"{budget} labels"


def is_percent(metric: Mapping[str, Any]) -> bool:
    return bool(metric["bounds"] == [0.0, 1.0])


def said(value: float | None, percent: bool) -> str:
    """A figure, in % where its metric has the bounds 0 and 1."""
    return "none scored" if value is None else f"{value * 100:.1f}" if percent else f"{value:.3f}"


def said_interval(record: Record, percent: bool) -> str:
    return "" if record["low"] is None else f"[{said(record['low'], percent)}, {said(record['high'], percent)}]"


def whole(record: Record, percent: bool) -> str:
    """A figure with its interval and unit."""
    unit = " %" if percent and record["value"] is not None else ""
    return f"{said(record['value'], percent)}{unit} {said_interval(record, percent)}".strip()


def said_seconds(seconds: float) -> str:
    """A time in the unit that fits it, to two digits or three."""
    if seconds >= 90:
        return f"{seconds / 60:,.3g} min"
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        value = seconds * scale
        if value >= 0.9995 or unit == "µs":
            return f"{value:.3g} {unit}" if value >= 100 else f"{float(f'{value:.2g}'):g} {unit}"
    raise AssertionError


def best_of(document: Record, task: str) -> Record | None:
    """The entry of `best` for a task at its largest label budget, by the first metric; None if nothing is finished."""
    entries = [entry for entry in document["best"] if entry["task"] == task]
    mine = [entry for entry in entries if entry["metric"] == entries[0]["metric"]]
    return max(mine, key=lambda entry: in_order(entry["budget"]), default=None)
