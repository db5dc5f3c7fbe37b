"""What is finished of a run, as results.json would hold it, from its folder alone: while it runs, or after it was killed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, Problem
from ..seeds import numpy_rng_for
from ..values import Example
from .cells import Cell
from .compare import StoredRun
from .confidence import BINS, confidence_record
from .crossed import judge_crossed
from .prepare import Prepared
from .results import SCHEMA, Group, figure_record, metric_facts, task_facts
from .scoring import judge, judge_runs
from .stage_log import group_record
from .store import RunStore

PLAN = "plan"
"""What the store says of the whole run: its cells, its seed, and the facts of its tasks and metrics."""


def keep_plan(prepared: Prepared, store: RunStore) -> None:
    """Keep what the figures of an unfinished run need beside its predictions."""
    metrics = {name: metric_facts(metric) for data in prepared.tasks.values() for name, metric in data.metrics.items()}
    tasks = {name: task_facts(data) for name, data in prepared.tasks.items()}
    cells = [list(cell.as_dict().values()) for cell in prepared.cells]
    store.set(PLAN, {"seed": prepared.seed, "cells": cells, "tasks": tasks, "metrics": metrics})


def partial_document(folder: Path, plugins: Sequence[Path] = ()) -> dict[str, Any]:
    """As results.json, of the methods and label budgets all of whose seeds are done: figures with intervals, counts, reliability.

    Which methods lead, thresholds and other read-outs are left to the finished run. plugins: folders with metrics of one's own. Raises InputError if the folder holds no run, or one of
    a version that did not keep its plan.
    """
    with RunStore.read_only(folder) as store:
        plan, manifest = store.get(PLAN), store.get("manifest")
    if plan is None or manifest is None:
        raise InputError(Problem("nothing of this run can be shown yet", "The same `icl run` with the same --out goes on.", str(folder)))
    run = StoredRun.open(folder)
    planned = [Cell(*values) for values in plan["cells"]]
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "manifest": manifest,
        "complete": False,
        "tasks": plan["tasks"],
        "metrics": plan["metrics"],
    }
    document |= {key: [] for key in ("records", "groups", "confidence", "readouts", "best", "thresholds", "predictors")}
    metrics = {task: run.metrics(task, plugins) for task in run.judging}
    for group in _groups(run, planned):
        facts = [run.facts[cell] for cell in group.cells]
        first, tests = group.cells[0], run.tests[group.cells[0].task]
        document["records"] += _records(metrics[first.task], tests, group, (facts, plan["seed"]))
        document["groups"].append(group_record(first.as_dict(), facts, group.runs))
        if plan["tasks"][first.task]["kind"] != "answer":
            bins = getattr(metrics[first.task].get("ece"), "bins", BINS)
            found = confidence_record(first.as_dict(), group.runs, tests, bins)
            document["confidence"] += [found] if found else []
    return document | {"cells": [{**cell.as_dict(), **run.facts[cell]} for cell in planned if cell in run.facts], "n_planned": len(planned)}


def _groups(run: StoredRun, planned: list[Cell]) -> Iterator[Group]:
    together: dict[Any, list[Cell]] = {}
    for cell in planned:
        together.setdefault(cell.group, []).append(cell)
    for cells in together.values():
        if all(cell in run.facts for cell in cells):
            yield Group(tuple(cells), tuple(run.predictions(cell) for cell in cells))


def _records(
    metrics: Mapping[str, Any], examples: Sequence[Example], group: Group, about: tuple[Sequence[Mapping[str, Any]], int]
) -> Iterator[dict[str, Any]]:
    """The same figures as those of the finished run. about: what the store says of each cell, and the run's seed."""
    (facts, seed), first = about, group.cells[0]
    estimator = facts[0].get("estimator")
    for name, metric in metrics.items():
        for cell, answers in zip(group.cells, group.runs, strict=True):
            if cell.seed is not None:
                figure = judge(metric, answers, examples, numpy_rng_for(seed, "interval", cell.key, name))
                yield figure_record(cell, name, figure, [answers], estimator)
        over_seeds = Cell(first.model, first.task, first.method, first.budget, None)
        rng = numpy_rng_for(seed, "interval", over_seeds.key, name)
        levels = [fact["seeds"] for fact in facts if "seeds" in fact]
        figure = judge_crossed(metric, group.runs, levels, examples, rng)[0] if levels else judge_runs(metric, group.runs, examples, rng)
        yield figure_record(over_seeds, name, figure, group.runs, estimator)
