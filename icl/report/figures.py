"""The figures of a run, from its results.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..files import safe_name
from .svg import coverage_svg, reliability_svg


def figures(results: Mapping[str, Any]) -> dict[str, str]:
    """TASK/FILE -> SVG: a reliability diagram per method and label budget, and per task and budget the curves of accuracy against
    coverage of all methods whose answers have probabilities. A method without a label budget stands beside those of every budget.

    Empty for a run whose answers have none.
    """
    found: dict[str, str] = {}
    records = results.get("confidence", ())
    for record in records:
        name = _name(record, records)
        title = f"{name}, {record['task']}{_labels(record['budget'])}"
        found[f"{safe_name(record['task'])}/reliability-{_budget(record['budget'])}-{safe_name(name)}.svg"] = reliability_svg(
            [tuple(each) for each in record["bins"]], record["n_bins"], title, alone=True
        )
    for task, budget in dict.fromkeys((record["task"], record["budget"]) for record in records):
        mine = [r for r in records if r["task"] == task and r["budget"] in (budget, None)]
        if budget is None and any(r["task"] == task and r["budget"] is not None for r in records):
            continue
        curves = {_name(record, records): [tuple(point) for point in record["curve"]] for record in mine}
        found[f"{safe_name(task)}/coverage-{_budget(budget)}.svg"] = coverage_svg(curves, f"{task}{_labels(budget)}", alone=True)
    return found


def _name(record: Mapping[str, Any], records: Any) -> str:
    several = len({r["model"] for r in records if r["model"] is not None}) > 1
    return f"{record['method']} ({record['model']})" if several and record["model"] is not None else str(record["method"])


def _budget(budget: Any) -> str:
    return "none" if budget is None else str(budget)


def _labels(budget: Any) -> str:
    return "" if budget is None else f", {budget} labels"
