"""Comparisons of two methods as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .console import aligned

Record = Mapping[str, Any]
ALL_TASKS = "all tasks"


def comparison_table(records: Sequence[Record], *, per_seed: bool = False) -> str:
    """A table per metric: both figures, their difference with its interval, and what it says. records: as `evaluate.compare.compare`.

    per_seed: also the comparison under each seed. Where several pairs or label budgets are compared, p is Holm's.
    """
    shown = [r for r in records if per_seed or r["seed"] is None]
    blocks = [_metric([r for r in shown if r["metric"] == name]) for name in dict.fromkeys(r["metric"] for r in shown)]
    return "\n\n".join("\n".join(block) for block in (*blocks, _notes(records)) if block)


def _metric(records: Sequence[Record]) -> list[str]:
    scale, unit = (100, " in points") if records[0]["bounds"] == [0.0, 1.0] else (1, "")
    better = "" if records[0]["higher_is_better"] else ", lower is better"
    many = sum(r["seed"] is None for r in records) > 1
    heads = ["a", "b", "task", "labels", "seed", "a", "b", "a - b", "p (Holm)" if many else "p", "items", "answered", "tokens a : b"]
    rows = [heads, *(_row(record, records, scale, many) for record in records)]
    lines = aligned(_without_constant(rows), left=_n_left(rows))
    says = ["", *(verdict(record, many) for record in records)]
    title = f"{records[0]['metric']}{unit}{better}: {_title(records)}"
    return [title, *(f"{line}  {words}".rstrip() for line, words in zip(lines, says, strict=True))]


def _title(records: Sequence[Record]) -> str:
    names = [list(dict.fromkeys(_name(r[side], r["a" if side == "b" else "b"]) for r in records)) for side in "ab"]
    return " against ".join(f"{side} = {each[0]}" if len(each) == 1 else side for side, each in zip("ab", names, strict=True))


def _name(side: Mapping[str, str | None], other: Mapping[str, str | None]) -> str:
    """The method, with what else tells the two sides apart."""
    more = [str(side[key]) for key in ("model", "run") if side[key] != other[key] and side[key] is not None]
    return f"{side['method']} ({', '.join(more)})" if more else str(side["method"])


def _row(record: Record, records: Sequence[Record], scale: float, many: bool) -> list[str]:
    task = record["task"] or f"{ALL_TASKS} ({record['n_tasks']})"
    p = record["p_holm"] if many and record["seed"] is None else record["p"]
    return [
        _name(record["a"], record["b"]),
        _name(record["b"], record["a"]),
        task,
        "-" if record["budget"] is None else str(record["budget"]),
        "" if record["seed"] is None else str(record["seed"]),
        _figure(record["value_a"], scale),
        _figure(record["value_b"], scale),
        _interval(record, scale),
        "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
        f"{record['n_items']:,}" + (f", {record['n_unscored']:,} not scored" if record["n_unscored"] else ""),
        said_coverage(record),
        f"{record['tokens_a'] / record['tokens_b']:.2f}" if record["tokens_a"] and record["tokens_b"] else "",
    ]


def said_coverage(record: Record) -> str:
    """What share of the items each side answered; empty where neither withheld any."""
    shares = [record["coverage_a"], record["coverage_b"]]
    return "" if all(share in (None, 1.0) for share in shares) else " : ".join("-" if s is None else f"{s:.0%}" for s in shares)


def verdict(record: Record, many: bool = False) -> str:
    """What a comparison says, in words. many: it stands among others."""
    if record["difference"] is None:
        return "nothing that both scored"
    if record["settled"]:
        alone = many and record["p_holm"] is not None and record["p_holm"] >= 0.05
        return f"{record['better']} is better" + (" by itself, not among so many comparisons" if alone else "")
    percent = record["bounds"] == [0.0, 1.0]
    seen = f"{record['detectable'] * 100:.1f}" if percent else f"{record['detectable']:.3f}"
    return "; ".join([f"not settled: {seen} would have been seen", *_more(record)])


def _more(record: Record) -> list[str]:
    items, runs = record["more_items"], record["more_runs"]
    if items is None and runs is None:
        return [] if not record["difference"] else ["more items alone would not settle it"]
    if 0 in (items, runs):
        return ["a little more would settle it"]
    return [" or ".join([f"about {n:,} more {what} would settle it" for n, what in ((items, "items"), (runs, "draws")) if n is not None])]


def _figure(value: float | None, scale: float) -> str:
    return "none" if value is None else f"{value * scale:.1f}" if scale == 100 else f"{value:.3f}"


def _interval(record: Record, scale: float) -> str:
    if record["difference"] is None:
        return ""
    digits = 1 if scale == 100 else 3
    value, low, high = (f"{record[key] * scale:+.{digits}f}" for key in ("difference", "low", "high"))
    return f"{value} [{low}, {high}]"


def _without_constant(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Without the columns of names that say the same in every row: the title has them."""
    kept = [n for n in range(len(rows[0])) if n not in (0, 1) or len({row[n] for row in rows[1:]}) > 1]
    return [[row[n] for n in kept] for row in rows]


def _n_left(rows: Sequence[Sequence[str]]) -> int:
    """Columns that are aligned to the left: names and the task, as far as they are shown."""
    return 1 + sum(len({row[n] for row in rows[1:]}) > 1 for n in (0, 1))


def _notes(records: Sequence[Record]) -> list[str]:
    lines = [
        "a - b [paired 95 % interval], on the items that both scored; p: McNemar's exact test for one run of items that are right or wrong"
    ]
    if sum(r["seed"] is None and r["metric"] == records[0]["metric"] for r in records) > 1:
        lines.append("p (Holm): adjusted for the number of comparisons by a metric, single tasks and all tasks each by themselves")
    if any(said_coverage(r) for r in records):
        lines.append("answered: the share of the items that a and b did not withhold; a - b is about those that both answered")
    if any(r["tokens_a"] and r["tokens_b"] for r in records):
        lines.append("tokens a : b: how many times the tokens of b the language model computes for a, from a cold start")
    if any(r["n_unscored"] for r in records):
        lines += [_bounds(r) for r in records if r["n_unscored"] and r["seed"] is None and r["floor"] is not None]
    if any(not r["settled"] for r in records):
        lines.append(
            "not settled: the interval includes 0; what would have been seen is the true difference that shows with a chance of 80 %"
        )
    return lines


def _bounds(record: Record) -> str:
    scale, digits = (100, 1) if record["bounds"] == [0.0, 1.0] else (1, 3)
    where = record["task"] or ALL_TASKS
    low, high = (f"{record[key] * scale:+.{digits}f}" for key in ("floor", "ceiling"))
    names = f"{_name(record['a'], record['b'])} - {_name(record['b'], record['a'])}"
    return f"{record['n_unscored']:,} not scored, {names} on {where}: {record['metric']} between {low} and {high}, whatever they are worth"
