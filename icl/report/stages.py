"""What the stages of retrievers did, as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NOT_CHOSEN = "not chosen"


def stage_lines(results: Mapping[str, Any], task: str) -> list[str]:
    """Per method with several stages one line, at its largest label budget: rows per query from stage to stage, and why rows were left out."""
    largest: dict[tuple[Any, str], Mapping[str, Any]] = {}
    for group in results.get("groups", ()):
        if group["task"] == task and len(group["stages"]) > 1:
            largest[group["model"], group["method"]] = group
    if not largest:
        return []
    lines = [f"{method}: {summary(group['stages'])}" for (_, method), group in largest.items()]
    return ["rows per query, from stage to stage (mean; largest label budget)", *lines]


def summary(stages: Sequence[Mapping[str, Any]]) -> str:
    """One stage after the other: `all 96.0 > length 90.1 (more than 60 words 5.9) > mmr 8.0 (2.1 brought forward)`."""
    first = stages[0]
    return " > ".join([f"all {first['n_in'] / first['n_queries']:.1f}", *(_stage(stage) for stage in stages)])


def _stage(stage: Mapping[str, Any]) -> str:
    n = stage["n_queries"]
    notes = [f"{reason} {count / n:.1f}" for reason, count in stage["dropped"].items() if reason != NOT_CHOSEN]
    if stage["n_changed"]:
        notes.append(f"{stage['n_changed'] / n:.1f} brought forward")
    return f"{stage['stage']} {stage['n_out'] / n:.1f}" + (f" ({', '.join(notes)})" if notes else "")


def step_lines(steps: Iterable[Any]) -> list[str]:
    """The steps of one query, a line each. steps: `icl.values.Step`."""
    return [
        f"{step.stage}: {step.n_in:,} -> {step.n_out:,}"
        + "".join(f", {count:,} {reason}" for reason, count in step.dropped.items())
        + (f", {step.n_changed:,} brought forward" if step.n_changed else "")
        for step in steps
    ]
