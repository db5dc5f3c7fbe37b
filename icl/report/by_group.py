"""Figures by group as plain text: a table per column, at the largest label budget, and what a method answers to inputs that say nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NOTE = "largest gap [95 % interval, which takes all pairs of groups into account: above 0 only if some two groups differ]"


def group_lines(results: Mapping[str, Any], task: str) -> Iterable[list[str]]:
    """Blocks of lines; none for a task of which neither was asked. By the task's first metric: results.json has the others."""
    records = [record for record in results.get("by_group", ()) if record["task"] == task]
    if records:
        yield from _columns(results, records)
    if bias := [(cell["method"], cell["label_bias"]) for cell in results["cells"] if cell["task"] == task and cell.get("label_bias")]:
        yield _bias(bias)


def _columns(results: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Iterable[list[str]]:
    """A table per column."""
    from .console import aligned

    metric = records[0]["metric"]
    scale = 100 if results["metrics"][metric]["bounds"] == [0.0, 1.0] else 1
    for column in dict.fromkeys(record["column"] for record in records):
        mine = [r for r in records if (r["column"], r["metric"]) == (column, metric)]
        largest = {(r["model"], r["method"]): r for r in mine}  # budgets rise, so the last one is the largest
        groups = [each["group"] for each in mine[0]["figures"]]
        sizes = {each["group"]: each["n_items"] for each in mine[0]["figures"]}
        heads = [f"{metric}{' in %' if scale == 100 else ''} by {column}", *(f"{g} ({sizes[g]} items)" for g in groups), "largest gap"]
        rows = [heads]
        for (_, method), record in largest.items():
            values = {each["group"]: each["value"] for each in record["figures"]}
            rows.append([method, *(_number(values.get(g), scale) for g in groups), _gap(record["gap"], scale)])
        yield [*aligned(rows), NOTE]


def _bias(found: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """found: (method, its label bias)."""
    from .console import aligned

    labels = list(found[0][1]["shares"])
    heads = ["answers to inputs that say nothing, in %", *labels, "bias"]
    rows = [[method, *(_number(one["shares"][label], 100) for label in labels), _number(one["bias"], 100)] for method, one in found]
    return [*aligned([heads, *rows]), "bias: how far the shares are from equal ones, 0 to 100"]


def _number(value: float | None, scale: int) -> str:
    if value is None:
        return "none scored"
    return f"{value * scale:.1f}" if scale == 100 else f"{value:.3f}"


def _gap(gap: Mapping[str, Any] | None, scale: int) -> str:
    if gap is None:
        return "too few items"
    low, high, value = (_number(gap[key], scale) for key in ("low", "high", "value"))
    return f"{value} [{low}, {high}] {gap['highest']} over {gap['lowest']}"
