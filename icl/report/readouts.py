"""What other read-outs of the same scores would give, as plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BETTER, WORSE = "+", "-"
NOTE = f"not calibrated, nothing withheld; {BETTER} better, {WORSE} worse than the method's own by the paired 95 % interval"


def readout_rows(results: Mapping[str, Any], task: str) -> list[list[str]]:
    """A head, then per method one row, at its largest label budget, in the first metric: the figure of every read-out. Methods for which
    all read-outs give the same are left out; empty if that is so for all."""
    records = [r for r in results.get("readouts", ()) if r["task"] == task]
    if not records:
        return []
    name = records[0]["metric"]
    metric = results["metrics"][name]
    largest: dict[tuple[Any, str], dict[str, Mapping[str, Any]]] = {}
    for record in records:
        if record["metric"] == name:
            group = largest.setdefault((record["model"], record["method"]), {})
            if group and next(iter(group.values()))["budget"] != record["budget"]:
                group.clear()
            group[record["readout"]] = record
    rows = {key: group for key, group in largest.items() if any(r["difference"] for r in group.values())}
    if not rows:
        return []
    columns = list(dict.fromkeys(readout for group in rows.values() for readout in group))
    several = len({model for model, _ in rows}) > 1
    head = [f"{name} by read-out of the same scores" + (" in %" if metric["bounds"] == [0.0, 1.0] else ""), "own", *columns]
    lines = [head]
    for (model, method), group in rows.items():
        own = next(readout for readout, record in group.items() if record["own"])
        cells = [_cell(group.get(readout), metric) for readout in columns]
        lines.append([f"{method} ({model})" if several else method, own, *cells])
    return lines


def _cell(record: Mapping[str, Any] | None, metric: Mapping[str, Any]) -> str:
    if record is None or record["value"] is None:
        return ""
    scale, digits = (100, 1) if metric["bounds"] == [0.0, 1.0] else (1, 3)
    low, high = record["difference_low"], record["difference_high"]
    mark = " "
    if low is not None and (low > 0 or high < 0):
        mark = BETTER if (low > 0) is metric["higher_is_better"] else WORSE
    return f"{record['value'] * scale:.{digits}f}{mark}"
