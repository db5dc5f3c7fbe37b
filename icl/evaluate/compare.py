"""From the stores of runs to comparisons: two methods on the same items, for each task, label budget, seed and metric, and pooled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ..errors import InputError, Problem, UnknownNameError
from ..plugins import Context, build
from ..seeds import numpy_rng_for
from ..values import Example, Prediction, Spec
from .cells import Budget, Cell
from .check import metrics_for
from .crossed import merged
from .prepare import Prepared
from .scoring import coverage
from .store import RunStore
from .verdicts import recall

if TYPE_CHECKING:
    from .paired import Side

JUDGING, METHODS = "judging", "methods"
"""What the store says of how the tasks are judged, and of the methods."""
SHOWN = 3
Record: TypeAlias = "dict[str, Any]"


def keep_tests(prepared: Prepared, store: RunStore) -> None:
    """Keep what a run is judged on, and by what, so that it can be judged again from its folder alone."""
    judging = {}
    for name, data in prepared.tasks.items():
        store.set_tests(name, data.test)
        metrics = [[spec.name, dict(spec.settings)] for spec in metrics_for(prepared.loaded, data.task.kind)]
        judging[name] = {"labels": list(data.task.labels), "seed": data.entry.seed, "metrics": metrics}
    store.set(JUDGING, judging)
    store.set(METHODS, {entry.name: [entry.spec.name, dict(entry.spec.settings)] for entry in prepared.loaded.methods})


@dataclass(frozen=True, eq=False)
class StoredRun:
    """What is finished of a run, read from its folder."""

    folder: Path
    facts: Mapping[Cell, Mapping[str, Any]]
    """Finished cell -> what results.json says of it."""
    tests: Mapping[str, Sequence[Example]]
    """Task -> the items it is judged on."""
    judging: Mapping[str, Mapping[str, Any]]
    """Task -> `labels`, `seed` and `metrics`, as (name, settings)."""
    methods_as_written: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Method -> what kind it is, and its settings as the suite has them; empty in a store of a version that did not keep them."""
    _read: dict[Cell, list[Prediction]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: Path) -> StoredRun:
        """Raises InputError if there is no run, or one of a version that did not keep its test items."""
        with RunStore.read_only(folder) as store:
            judging = store.get(JUDGING)
            if judging is None:
                fix = "Give its `icl run` command again with the same --out: it adds them, and computes nothing anew."
                raise InputError(Problem("this run did not keep the items it was judged on", fix, str(folder)))
            finished = {Cell(*json.loads(key)): facts for key, (facts, _) in store.finished().items()}
            written = {name: (kind, settings) for name, (kind, settings) in (store.get(METHODS) or {}).items()}
            return cls(folder, finished, {task: store.tests(task) for task in judging}, judging, written)

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(self.facts)

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.method for cell in self.cells))

    def of(self, method: str, model: str | None) -> list[Cell]:
        """The cells of a method, under one model if it is named. Raises InputError if there are none."""
        found = [cell for cell in self.cells if cell.method == method]
        if not found:
            raise UnknownNameError("method in this run", method, self.methods, file=str(self.folder))
        if model is not None:
            found = [cell for cell in found if cell.model in (model, None)]
            if not found:
                known = sorted({str(cell.model) for cell in self.cells if cell.method == method})
                raise UnknownNameError("model of that method in this run", model, known, file=str(self.folder))
        return found

    def tokens(self, cells: Sequence[Cell]) -> int | None:
        """Tokens that a language model computes for these cells from a cold start; None where it is not known, or none is used."""
        return _sum([self.facts[cell].get("tokens_computed") for cell in cells])

    def answered(self, cells: Sequence[Cell]) -> float | None:
        """The share of the items that were not withheld, over these cells, among those that could be answered; None if there are none."""
        found = [p for cell in cells for p in self.predictions(cell)]
        return coverage(sum(p.answer is not None for p in found), sum(p.abstained for p in found))

    def predictions(self, cell: Cell) -> list[Prediction]:
        if cell not in self._read:
            with RunStore.read_only(self.folder) as store:
                self._read[cell] = store.predictions(cell.key)
        return self._read[cell]

    def metrics(self, task: str, plugins: Sequence[Path], only: str | None = None) -> dict[str, Any]:
        """The metrics that the run judged a task by, or one of them."""
        facts = self.judging[task]
        context = Context(labels=tuple(facts["labels"]), seed=facts["seed"])
        wanted = [(name, settings) for name, settings in facts["metrics"] if only in (None, name)]
        built = {name: build("metric", Spec(name, settings), context, plugins) for name, settings in wanted}
        if any(hasattr(metric, "verdicts") for metric in built.values()):
            with RunStore.read_only(self.folder) as store:
                recall(built.values(), store)
        return built


class Contender(NamedTuple):
    """A method of a run."""

    run: StoredRun
    method: str


class Match(NamedTuple):
    """What is compared: cells that differ in nothing but the method (and the run, and the model where one is compared with another)."""

    a: Contender
    b: Contender
    models: tuple[str | None, str | None]
    task: str
    budget: Budget
    cells: tuple[tuple[Cell, ...], tuple[Cell, ...]]
    """Of each side, one for each seed, or a single one for all."""


def compare(
    pairs: Sequence[tuple[Contender, Contender]], *, model: str | None = None, metrics: Sequence[str] = (), plugins: Sequence[Path] = ()
) -> list[Record]:
    """A record per pair of methods, metric, task and label budget: with each seed, with seed null over all seeds, and with task null over
    all tasks that both have at that budget, with equal weight.

    model, metrics: these only. plugins: folders with metrics of one's own.
    difference: a minus b on the items that both scored, with its paired 95 % interval (`paired.paired`). p: McNemar's exact test for one
    run of items that are right or wrong, else of the interval's own distribution (`test` says which); p_holm: that of the records over
    all seeds, adjusted for their number per metric (tasks and all tasks apart). settled: whether the interval leaves out 0. n_unscored,
    floor, ceiling: items that a side could not score, and what the difference could have been with them. coverage_a, coverage_b: the share
    of the items that each side did not withhold (mean over tasks); the difference is about those that both answered. detectable: the true difference
    that would have shown with 80 %; tokens_a, tokens_b: tokens computed from a cold start; more_items, more_runs: how many more until the one seen does.
    Raises InputError if the runs are judged on other items, or have nothing in common.
    """
    records: list[Record] = []
    for a, b in pairs:
        order = aligned(a.run, b.run)
        matches = list(_matches(a, b, model, order))
        if not matches:
            raise InputError(
                Problem(
                    f"'{a.method}' and '{b.method}' have no task, label budget and seed in common", "Compare others.", str(b.run.folder)
                )
            )
        built = {task: a.run.metrics(task, plugins) for task in order}
        names = list(dict.fromkeys(name for match in matches for name in built[match.task]))
        for unknown in [name for name in metrics if name not in names]:
            raise UnknownNameError("metric in this run", unknown, names, file=str(a.run.folder))
        for name in metrics or names:
            records += _of_metric(name, built, [m for m in matches if name in built[m.task]], order)
    _adjust(records)
    return records


def aligned(a: StoredRun, b: StoredRun) -> dict[str, list[int]]:
    """Task -> for each test item of `a` its position in `b`. Raises InputError where they are not judged on the same items."""
    tasks = [task for task in a.tests if task in b.tests]
    if not tasks:
        names = f"{', '.join(a.tests)} here, {', '.join(b.tests)} in {a.folder if b is a else b.folder}"
        raise InputError(Problem(f"the two runs have no task in common: {names}", "Compare runs of the same tasks.", str(a.folder)))
    found: dict[str, list[int]] = {}
    problems = []
    for task in tasks:
        mine, other = a.tests[task], b.tests[task]
        places = {example.uid: at for at, example in enumerate(other)}
        missing = [example for example in mine if example.uid not in places]
        n_same = len(mine) - len(missing)
        if missing or len(other) != n_same:
            message = (
                f"task '{task}' is judged on other items: {len(mine)} here and {len(other)} in {b.folder}, of which {n_same} are the same"
            )
            problems.append(Problem(message, "Compare runs on the same test file with the same limit.", str(a.folder)))
            continue
        found[task] = [places[example.uid] for example in mine]
        changed = [
            e.uid for e, at in zip(mine, found[task], strict=True) if (e.target, e.references) != (other[at].target, other[at].references)
        ]
        if changed:
            message = f"task '{task}': {len(changed)} items have another label in {b.folder}, such as {', '.join(changed[:SHOWN])}"
            problems.append(Problem(message, "Compare runs on the same test file.", str(a.folder)))
    if problems:
        raise InputError(problems)
    return found


def _matches(a: Contender, b: Contender, model: str | None, tasks: Mapping[str, Any]) -> Iterator[Match]:
    cells = a.run.of(a.method, model), b.run.of(b.method, model)
    ours_models, their_models = (list(dict.fromkeys(cell.model for cell in side)) for side in cells)
    for models in _model_pairs(ours_models, their_models, a):
        for task in tasks:
            sides = tuple(
                {budget: [c for c in side if (c.model, c.task, c.budget) == (m, task, budget)] for budget in _budgets(side, task)}
                for side, m in zip(cells, models, strict=True)
            )
            wanted = sides[1] if None in sides[0] else sides[0]
            for budget in wanted:
                ours, theirs = (side.get(budget) or side.get(None, []) for side in sides)
                if len(ours) > 1 and len(theirs) > 1:  # of an unfinished run, the seeds that both have
                    seeds = {cell.seed for cell in ours} & {cell.seed for cell in theirs}
                    ours, theirs = ([cell for cell in side if cell.seed in seeds] for side in (ours, theirs))
                if ours and theirs:
                    yield Match(a, b, models, task, budget, (tuple(ours), tuple(theirs)))


def _budgets(cells: Sequence[Cell], task: str) -> list[Budget]:
    return list(dict.fromkeys(cell.budget for cell in cells if cell.task == task))


def _model_pairs(ours: Sequence[str | None], theirs: Sequence[str | None], a: Contender) -> list[tuple[str | None, str | None]]:
    """The same model on both sides where both have it; else, where a side has one or none, whatever the other has."""
    same = [(model, model) for model in ours if model in theirs]
    if same or 1 in (len(ours), len(theirs)):
        return [*same] or [(m, n) for m in ours for n in theirs]
    names = ", ".join(str(model) for model in (*ours, *theirs))
    raise InputError(Problem(f"the two sides have different models: {names}", "Run them under one model.", str(a.run.folder)))


def _of_metric(
    name: str, metrics: Mapping[str, Mapping[str, Any]], matches: Sequence[Match], order: Mapping[str, list[int]]
) -> list[Record]:
    """The records of one metric, in the order of the matches, those over all tasks last."""
    records = []
    together: dict[tuple[Any, Budget], list[tuple[Match, tuple[Side, Side]]]] = {}
    for match in matches:
        sides = _sides(metrics[match.task][name], match, order[match.task])
        n_runs = max(len(side.values) for side in sides)
        if n_runs > 1:
            seeds = next(cells for cells in match.cells if len(cells) == n_runs)
            records += [
                _record(name, metrics, [_one_seed(match, at)], [tuple(_run(side, at) for side in sides)], seed=cell.seed)
                for at, cell in enumerate(seeds)
            ]
        whole = _merged(match, sides)
        records.append(_record(name, metrics, [match], [whole]))
        together.setdefault((match.models, match.budget), []).append((match, whole))
    for group in together.values():
        if len(group) > 1:
            records.append(_record(name, metrics, [match for match, _ in group], [sides for _, sides in group]))
    return records


def _sides(metric: Any, match: Match, order: Sequence[int]) -> tuple[Side, Side]:
    """What the metric says of both sides' predictions, in the order of the first run's items."""
    from .paired import side

    examples = match.a.run.tests[match.task]
    ours = [match.a.run.predictions(cell) for cell in match.cells[0]]
    theirs = [[run[at] for at in order] for run in (match.b.run.predictions(cell) for cell in match.cells[1])]
    return side(metric, ours, examples), side(metric, theirs, examples)


def _merged(match: Match, sides: tuple[Side, Side]) -> tuple[Side, Side]:
    """Where seeds are crossed, the runs of one draw are taken as one."""
    ours, theirs = (
        merged(side, [contender.run.facts[cell].get("replicate") for cell in cells])
        for side, contender, cells in zip(sides, (match.a, match.b), match.cells, strict=True)
    )
    return ours, theirs


def _one_seed(match: Match, at: int) -> Match:
    """Of the runs of both sides those under one seed; a single one stands for all."""
    ours, theirs = (cells[min(at, len(cells) - 1)] for cells in match.cells)
    return match._replace(cells=((ours,), (theirs,)))


def _run(whole: Side, at: int) -> Side:
    """One run of a side; a single one stands for all."""
    from .paired import Side

    at = min(at, len(whole.values) - 1)
    return Side(whole.values[at : at + 1], whole.functions[at : at + 1], whole.bounds)


def _record(
    name: str, metrics: Mapping[str, Mapping[str, Any]], matches: Sequence[Match], sides: Sequence[Any], *, seed: int | None = None
) -> Record:
    from .paired import paired

    match = matches[0]
    task = match.task if len(sides) == 1 else None
    keys = [match.a.method, match.b.method, *map(str, match.models), str(task), str(match.budget), str(seed), name]
    found = paired(sides, numpy_rng_for(0, "compare", *keys))
    metric = metrics[match.task][name]
    higher = getattr(metric, "higher_is_better", True)
    bounds = getattr(metric, "bounds", None)
    values = [_mean(parts) for parts in zip(*(_values(*pair) for pair in sides), strict=True)]
    exact = found.mcnemar is not None
    return {
        "a": _named(match.a, match.models[0]),
        "b": _named(match.b, match.models[1]),
        "task": task,
        "n_tasks": len(sides),
        "budget": match.budget,
        "seed": seed,
        "metric": name,
        "higher_is_better": higher,
        "bounds": None if bounds is None else list(bounds),
        "value_a": values[0],
        "value_b": values[1],
        "tokens_a": _sum([match.a.run.tokens(match.cells[0]) for match in matches]),
        "tokens_b": _sum([match.b.run.tokens(match.cells[1]) for match in matches]),
        "coverage_a": _mean([match.a.run.answered(match.cells[0]) for match in matches]),
        "coverage_b": _mean([match.b.run.answered(match.cells[1]) for match in matches]),
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "p": found.mcnemar if exact else found.p,
        "test": "mcnemar" if exact else "bootstrap",
        "p_holm": None,
        "settled": found.differs,
        "better": None if not found.differs else "a" if ((found.value or 0.0) > 0) is higher else "b",
        **{key: getattr(found, key) for key in ("n_items", "n_runs", "n_unscored", "floor", "ceiling", "detectable", "more_items", "more_runs")},
    }  # fmt: skip


def _named(contender: Contender, model: str | None) -> dict[str, str | None]:
    return {"run": str(contender.run.folder), "model": model, "method": contender.method}


def _values(ours: Side, theirs: Side) -> list[float | None]:
    """The two figures whose difference is taken: each the mean over its runs, of the items that both sides scored."""
    import numpy as np

    scored = [~np.isnan(side.values) for side in (ours, theirs)]
    everywhere = np.concatenate(scored).sum(axis=0) == len(scored[0]) + len(scored[1])
    if ours.functions or theirs.functions:
        positions = np.flatnonzero(everywhere)[None]
        return [float(np.mean([f(positions)[0] for f in side.functions])) if positions.size else None for side in (ours, theirs)]
    by_place = len(ours.values) == len(theirs.values) or 1 in (len(ours.values), len(theirs.values))
    used = scored[0] & scored[1] if by_place else everywhere[None]
    if not used.any(axis=1).all():
        return [None, None]
    return [float(np.nanmean(np.where(used, side.values, np.nan), axis=1).mean()) for side in (ours, theirs)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _adjust(records: Sequence[Record]) -> None:
    """Holm's p over the records of one metric: those of single tasks and those over all tasks each by themselves."""
    from .paired import holm

    families: dict[tuple[str, bool], list[Record]] = {}
    for record in records:
        if record["seed"] is None and record["p"] is not None:
            families.setdefault((record["metric"], record["task"] is None), []).append(record)
    for family in families.values():
        for record, p in zip(family, holm([record["p"] for record in family]), strict=True):
            record["p_holm"] = p
