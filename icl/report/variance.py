"""Where the uncertainty of a run's figures comes from, as plain text: for suites whose seeds are crossed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORDS = {
    "item": "items",
    "draw": "draw of labels",
    "demonstrations": "demonstrations",
    "order": "order",
    "train": "training",
    "rest": "the rest",
}


def variance_lines(results: Mapping[str, Any], task: str) -> list[str]:
    """A table at the largest label budget by the first metric that has a split; empty where seeds are not crossed."""
    from .console import aligned

    records = [record for record in results.get("variance", ()) if record["task"] == task]
    if not records:
        return []
    metric = records[0]["metric"]
    largest = {(r["model"], r["method"]): r for r in records if r["metric"] == metric}  # budgets rise, so the last one is the largest
    parts = list(dict.fromkeys(tuple(part["of"]) for record in largest.values() for part in record["components"]))
    rows = [[f"{metric}: variance of the mean owed to, in %", *(" × ".join(WORDS[name] for name in names) for names in parts), "one more"]]
    for (_, method), record in largest.items():
        shares = {tuple(part["of"]): part["of_mean"] for part in record["components"]}
        whole = sum(shares.values())
        row = [f"{100 * shares[names] / whole:.0f}" if whole and names in shares else "" for names in parts]
        best = max(record["one_more"].items(), key=lambda item: item[1], default=None)
        more = "" if best is None or best[1] < 0.005 else f"{WORDS[best[0]]}: {100 * best[1]:.0f} % narrower"
        rows.append([method, *row, more])
    return [*aligned(rows), "one more: what one more value of the source named would narrow the interval by, at most"]
