"""From the store to results.json: every figure recomputed from all stored items, in the suite's order, the same bytes each time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_text
from ..seeds import numpy_rng_for
from ..values import Prediction
from .cells import Budget, Cell
from .confidence import BINS, confidence_record
from .crossed import judge_crossed, merged, replicate_of, variance_record
from .group_records import group_records
from .intervals import statistic
from .prepare import Prepared, TaskData
from .readouts import readout_records
from .scoring import Metric, coverage, judge, judge_runs
from .stage_log import group_record
from .store import RunStore
from .verdicts import keep, recall
from .work import Counts, added

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA = 1
RESULTS, TIMING, MANIFEST, REPORT = "results.json", "timing.json", "manifest.json", "data.json"
DECISION, PAGE = "decision.json", "report.html"


@dataclass(frozen=True)
class Group:
    """The finished cells that differ only in their seed, with their predictions."""

    cells: tuple[Cell, ...]
    runs: tuple[list[Prediction], ...]
    """One list per cell, in the order of the test items."""


def assemble(prepared: Prepared, store: RunStore, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What results.json holds; of an unfinished run, the figures whose cells are all there.

    records: per metric one record for each seed, and one with seed null: over all seeds the mean, with an interval over items and seeds
    and counts that are sums. A method that needs no labels runs once and has the latter alone.
    groups: per method and label budget, over its seeds: the tokens planned from a cold start, computed and naive, why items have no answer
    (reason -> how many), and what each stage of its retriever did.
    confidence: per method and label budget, over its seeds, where answers have probabilities: a reliability diagram's bins and the curve
    of accuracy against coverage, as `confidence.confidence_record` says.
    readouts: per method and label budget, over its seeds, what each read-out of its stored scores would give, as
    `readouts.readout_records` says.
    variance: where seeds are crossed, where the uncertainty of each mean comes from (`crossed.variance_record`).
    by_group: of tasks with `groups`, as `group_records.group_records` says; `label_bias` of a cell is what it answers to inputs without content.
    n_abstained: answers withheld, which are no failures; coverage: scored items among those and the scored ones.
    estimator: how answers were found, null without a language model; n_lost: unanswered since an endpoint failed (try them again).
    best: per task, label budget and metric the leading method, and those whose paired 95 % interval against it includes 0. A method that
    abstained is not among them: its figures are about the items it chose.
    """
    finished = store.finished()
    records: list[dict[str, Any]] = []
    leaders: list[dict[str, Any]] = []
    totals: list[dict[str, Any]] = []
    trust: list[dict[str, Any]] = []
    variance: list[dict[str, Any]] = []
    by_group: list[dict[str, Any]] = []
    readouts: list[dict[str, Any]] = []
    for name, data in prepared.tasks.items():
        recall(data.metrics.values(), store)
        groups = _groups(prepared, store, finished, name)
        for group in groups:
            found_records, splits = _records(prepared, data, group, finished[group.cells[0].key][0].get("estimator"))
            records += found_records
            variance += splits
            totals.append(group_record(group.cells[0].as_dict(), [finished[cell.key][0] for cell in group.cells], group.runs))
            bins = getattr(data.metrics.get("ece"), "bins", BINS)
            found = None if data.task.kind == "answer" else confidence_record(group.cells[0].as_dict(), group.runs, data.test, bins)
            trust += [found] if found else []
            by_group += group_records(
                prepared.seed, group.cells[0], data.metrics, group.runs, data.test, data.task.grouped, _replicates(prepared, group)
            )
            readouts += readout_records(prepared.seed, data, group.cells[0], group.runs, finished[group.cells[0].key][0].get("readouts"))
        for metric in (name for name, each in data.metrics.items() if getattr(each, "ranked", True)):
            leaders += _leaders(prepared, data, metric, groups)
        keep(data.metrics.values(), store)
    cells = [{**cell.as_dict(), **finished[cell.key][0]} for cell in prepared.cells if cell.key in finished]
    return {
        "schema": SCHEMA,
        "manifest": manifest,
        "complete": len(cells) == len(prepared.cells),
        "tasks": {name: task_facts(data) for name, data in prepared.tasks.items()},
        "metrics": {name: metric_facts(metric) for data in prepared.tasks.values() for name, metric in data.metrics.items()},
        "records": records,
        "groups": totals,
        "confidence": trust,
        "readouts": readouts,
        **({"by_group": by_group} if by_group else {}),
        **({"variance": variance} if variance else {}),
        "cells": cells,
        "best": leaders,
        "thresholds": _thresholds(prepared, records),
        "predictors": [{**_without_seed(cell), "path": cell["predictor"]} for cell in cells if cell["predictor"]],
    }


def _without_seed(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {key: cell[key] for key in ("model", "task", "method", "budget")}


def _groups(prepared: Prepared, store: RunStore, finished: Mapping[str, Any], task: str) -> list[Group]:
    """In the suite's order of methods, then models and budgets; only those with all seeds done."""
    together: dict[Any, list[Cell]] = {}
    for cell in prepared.cells:
        if cell.task == task:
            together.setdefault(cell.group, []).append(cell)
    order = {entry.name: n for n, entry in enumerate(prepared.loaded.methods)}
    whole = [tuple(group) for group in together.values() if all(cell.key in finished for cell in group)]
    whole.sort(key=lambda group: order[group[0].method])
    return [Group(group, tuple(store.predictions(cell.key) for cell in group)) for group in whole]


def _records(prepared: Prepared, data: TaskData, group: Group, estimator: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(the records, where seeds are crossed the split of each mean's variance)."""
    records, splits = [], []
    first = group.cells[0]
    levels = [found for cell in group.cells if (found := prepared.levels(cell)) is not None] if prepared.loaded.suite.crossed else []
    for name, metric in data.metrics.items():
        for cell, run in zip(group.cells, group.runs, strict=True):
            if cell.seed is not None:
                rng = numpy_rng_for(prepared.seed, "interval", cell.key, name)
                records.append(figure_record(cell, name, judge(metric, run, data.test, rng), [run], estimator))
        over_seeds = Cell(first.model, first.task, first.method, first.budget, None)
        rng = numpy_rng_for(prepared.seed, "interval", over_seeds.key, name)
        if levels:
            figure, split = judge_crossed(metric, group.runs, levels, data.test, rng)
            splits += [variance_record(_without_seed(over_seeds.as_dict()), name, split)] if split is not None else []
        else:
            figure = judge_runs(metric, group.runs, data.test, rng)
        records.append(figure_record(over_seeds, name, figure, group.runs, estimator))
    return records, splits


def figure_record(cell: Cell, name: str, figure: Metric, runs: Sequence[Sequence[Prediction]], estimator: str | None) -> dict[str, Any]:
    predictions = [prediction for run in runs for prediction in run]
    return {
        **cell.as_dict(),
        "metric": name,
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        "n_scored": figure.n_scored,
        "n_failed": figure.n_failed,
        "n_abstained": figure.n_abstained,
        "coverage": coverage(figure.n_scored, figure.n_abstained),
        "n_ties": sum(p.tie for p in predictions),
        "n_dropped": sum(p.n_dropped for p in predictions),
        "n_windowed": sum(p.n_windows > 1 for p in predictions),
        "n_truncated": sum(p.n_cut > 0 for p in predictions),
        "n_unanswered": sum(p.answer is None and not p.abstained for p in predictions),
        "n_lost": sum(p.lost for p in predictions),
        "estimator": estimator,
    }


def _leaders(prepared: Prepared, data: TaskData, name: str, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """A method without a label budget competes at every budget; one that abstained competes at none."""
    from .paired import paired, side

    metric = data.metrics[name]
    groups = [group for group in groups if not any(p.abstained for run in group.runs for p in run)]
    plain = {id(group): side(metric, group.runs, data.test) for group in groups}
    sides = {id(group): merged(plain[id(group)], _replicates(prepared, group)) for group in groups}
    budgets = dict.fromkeys(group.cells[0].budget for group in groups if group.cells[0].budget is not None)

    def is_level(best: Group, rival: Group, budget: Budget | None) -> bool:
        """What `compare` says of the two, from the same resamples: whether the interval includes 0, or there is none."""
        cells = [group.cells[0] for group in (best, rival)]
        keys = [*(cell.method for cell in cells), *(str(cell.model) for cell in cells), data.entry.name, str(budget), "None", name]
        return not paired([(sides[id(best)], sides[id(rival)])], numpy_rng_for(0, "compare", *keys)).differs

    leaders = []
    for budget in budgets or (None,):
        rivals = [group for group in groups if group.cells[0].budget in (budget, None)]
        means = {id(g): _mean(metric, plain[id(g)].values, g, data) for g in rivals}
        rivals = [group for group in rivals if means[id(group)] is not None]
        if not rivals:
            continue
        sign = 1 if getattr(metric, "higher_is_better", True) else -1
        best = max(rivals, key=lambda group: sign * (means[id(group)] or 0.0))
        level = [g for g in rivals if g is not best and is_level(best, g, budget)]
        leaders.append(
            {
                "task": data.entry.name,
                "budget": budget,
                "metric": name,
                "best": [best.cells[0].model, best.cells[0].method],
                "level": [[group.cells[0].model, group.cells[0].method] for group in level],
            }
        )
    return leaders


def _replicates(prepared: Prepared, group: Group) -> list[int | None]:
    sizes = prepared.loaded.suite.seed_sizes
    levels = [prepared.levels(cell) for cell in group.cells]
    is_crossed = prepared.loaded.suite.crossed and sizes is not None
    return [replicate_of(each, sizes) if is_crossed and sizes is not None and each is not None else None for each in levels]


def _mean(metric: Any, values: NDArray[np.float64], group: Group, data: TaskData) -> float | None:
    import numpy as np

    found = []
    for item, run in zip(values, group.runs, strict=True):
        scored = np.flatnonzero(~np.isnan(item))
        if not len(scored):
            return None
        found.append(float(statistic(metric, item, run, data.test)(scored[None])[0]))
    return float(np.mean(found))


def _thresholds(prepared: Prepared, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every threshold against the seed mean at the largest label budget, for each task and model that has the figure."""
    largest = prepared.loaded.suite.budgets[-1]
    results = []
    for method, limits in prepared.loaded.suite.thresholds.items():
        for metric, limit in limits.items():
            for record in records:
                fits = record["method"] == method and record["metric"] == metric and record["seed"] is None
                if fits and record["budget"] in (largest, None):
                    built = prepared.tasks[record["task"]].metrics[metric]
                    value = record["value"]
                    higher = getattr(built, "higher_is_better", True)
                    met = value is not None and (value >= limit if higher else value <= limit)
                    keys = {key: record[key] for key in ("model", "task", "method", "budget", "metric", "value")}
                    results.append({**keys, "threshold": limit, "met": met})
    return results


def task_facts(data: TaskData) -> dict[str, Any]:
    task = data.task
    signatures = {name: metric.signature(data.test) for name, metric in data.metrics.items() if hasattr(metric, "signature")}
    return {
        **({"signatures": signatures} if signatures else {}),
        "kind": task.kind,
        "labels": list(task.labels),
        "n_train": len(task.train),
        "n_test": len(task.test),
        "n_items": len(data.test),
        "holdout": task.holdout,
        "rows": dict(task.n_rows),
        "rejected": dict(task.reasons),
        "leaks": {"id": data.leaks.n_id, "text": data.leaks.n_text, "near": data.leaks.n_near},
    }


def metric_facts(metric: Any) -> dict[str, Any]:
    bounds = getattr(metric, "bounds", None)
    return {"bounds": None if bounds is None else list(bounds), "higher_is_better": getattr(metric, "higher_is_better", True)}


def timing(prepared: Prepared, store: RunStore, seconds: float) -> dict[str, Any]:
    """What timing.json holds: seconds, tokens really computed and money paid, of whichever process did it, and the peak memory.

    `methods` and the totals count unfinished cells too; with `usage` comes what endpoints were asked for and what it cost. All of it
    differs from run to run.
    """
    finished = store.finished()
    work: dict[str, Counts] = {}
    for key, counts in store.work():
        work[key] = added([work.get(key, {}), counts])
    cells = [{**cell.as_dict(), **finished[cell.key][1], **work.get(cell.key, {})} for cell in prepared.cells if cell.key in finished]
    peaks = [cell["peak_memory_mb"] for cell in cells if cell["peak_memory_mb"] is not None]
    methods: dict[tuple[str | None, str], list[Counts]] = {}
    for cell in prepared.cells:
        if cell.key in work:
            methods.setdefault((cell.model, cell.method), []).append(work[cell.key])
    return {
        "schema": SCHEMA,
        "seconds": seconds,
        "sessions": store.get("sessions") or 1,
        "peak_memory_mb": max(peaks, default=None),
        **added(work.values()),
        "methods": [{"model": model, "method": method, **added(parts)} for (model, method), parts in methods.items()],
        "cells": cells,
    }


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all; a number that is not finite is our mistake and raises ValueError."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
