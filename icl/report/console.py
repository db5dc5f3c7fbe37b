"""A run as plain text: figures with intervals, what was left out, what it cost. Written from results.json and timing.json alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..evaluate.work import cost_of
from .by_group import group_lines
from .readouts import NOTE, readout_rows
from .stages import stage_lines
from .variance import WORDS, variance_lines

Record = Mapping[str, Any]
Key = tuple[str | None, str]
"""(model, method)"""
LEADER, LEVEL = "*", "~"
ESTIMATORS = {"first_token": "first token", "generation": "writing"}
"""How the table calls the ways in which a language model answers other than by the log-likelihood of whole labels."""
COUNTS = ("n_abstained", "n_unanswered", "n_ties", "n_dropped", "n_windowed", "n_truncated")
"""Of a record, in the order of the table's columns."""


def table(results: Mapping[str, Any], timing: Mapping[str, Any] | None = None, data: Mapping[str, Sequence[str]] | None = None) -> str:
    """All tasks of a run: a table per metric, then counts and notes.

    results, timing: as in the files. data: task -> lines of its data report. The best figure of a column is marked with `*`, those whose
    paired 95 % interval of the difference to it includes 0 with `~`: they may be just as good.
    """
    blocks = [block for task in results["tasks"] for block in _task(results, timing or {}, task, (data or {}).get(task, ()))]
    marks = f"{LEADER} best in its column, {LEVEL} not told apart from it (the paired 95 % interval of the difference includes 0)"
    if results["records"]:
        abstained = any(r.get("n_abstained") for r in results["records"])
        note = ["of N%: the share of items answered; a figure about fewer items than others is not marked"] if abstained else []
        blocks.append([f"value [95 % interval]; {marks}", *note, *_seeds(results)])
    blocks.append([*_thresholds(results), *_total(results, timing)])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def aligned(rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Rows as lines with aligned columns: the first `left` columns to the left, the others to the right; empty columns are left out."""
    cells = [list(row) for row in rows]
    kept = [i for i in range(len(cells[0])) if any(row[i] for row in cells[1:])]
    widths = {i: max(len(row[i]) for row in cells) for i in kept}
    return ["  ".join(row[i].ljust(widths[i]) if i < left else row[i].rjust(widths[i]) for i in kept).rstrip() for row in cells]


def _task(results: Mapping[str, Any], timing: Mapping[str, Any], task: str, data: Sequence[str]) -> Iterable[list[str]]:
    facts = results["tasks"][task]
    records = [r for r in results["records"] if r["task"] == task]
    of_all = f" of {facts['n_test']}" if facts["n_items"] < facts["n_test"] else ""
    labels = f" · {len(facts['labels'])} labels" if facts["labels"] else f" · {facts['kind']}"
    ended = [said_ended(entry) for entry in results.get("ended_early", ()) if entry["task"] == task]
    yield [f"{task}{labels} · {facts['n_train']} rows to learn from · {facts['n_items']}{of_all} test items", *_left_out(facts), *ended]
    for name, metric in results["metrics"].items():
        if any(r["metric"] == name for r in records):
            yield _metric(results, task, name, metric)
    yield from group_lines(results, task)
    if records:
        yield _costs(results, timing, task, records)
        yield variance_lines(results, task)
        yield stage_lines(results, task)
        if rows := readout_rows(results, task):
            yield [*aligned(rows), NOTE]
    if data:
        yield list(data)


def said_ended(entry: Mapping[str, Any]) -> str:
    """Why a task has fewer draws than its suite says. entry: of `ended_early` in results.json."""
    level = f", or known to lie within {entry['margin']:g} of it" if entry["margin"] else ""
    return f"ended after {entry['draws']} of {entry['planned']} draws of the labels: every method is told apart from the best one{level}"


def _left_out(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    leaks = facts["leaks"]
    if any(leaks.values()):
        reasons = ", ".join(f"{n} by {reason}" for reason, n in leaks.items() if n)
        lines.append(f"leak guard: {sum(leaks.values())} rows that equal a test item were taken out of the rows to learn from ({reasons})")
    if facts["rejected"]:
        lines.append("rejected rows: " + ", ".join(f"{n} × {reason}" for reason, n in facts["rejected"].items()))
    if facts["holdout"] is not None:
        lines.append(f"no test file was given: {facts['n_test']} rows were held out, chosen by a hash of their content")
    return lines


def _keys(records: Iterable[Record]) -> list[Key]:
    return list(dict.fromkeys((r["model"], r["method"]) for r in records))


def _title(key: Key, keys: Sequence[Key]) -> str:
    """The method, with its model where there are several."""
    several = len({model for model, _ in keys if model is not None}) > 1
    return f"{key[1]} ({key[0]})" if several and key[0] is not None else key[1]


def _budgets(records: Iterable[Record]) -> list[Any]:
    return list(dict.fromkeys(r["budget"] for r in records if r["budget"] is not None)) or [None]


def _column(budget: Any) -> str:
    return "no labels" if budget is None else f"{budget} labels"


def _metric(results: Mapping[str, Any], task: str, name: str, metric: Mapping[str, Any]) -> list[str]:
    """Rows: methods; columns: label budgets. A method that needs no labels stands in every column."""
    records = [r for r in results["records"] if r["task"] == task and r["metric"] == name and r["seed"] is None]
    budgets, keys = _budgets(records), _keys(records)
    percent = metric["bounds"] == [0.0, 1.0]
    marks = _marks(results, task, name)
    unit = " in %" if percent else ""
    better = "" if metric["higher_is_better"] else ", lower is better"
    rows = [[f"{name}{unit}{better}", *map(_column, budgets)]]
    for key in keys:
        by_budget = {r["budget"]: r for r in records if (r["model"], r["method"]) == key}
        row = [_title(key, keys)]
        for budget in budgets:
            record = by_budget.get(budget, by_budget.get(None))
            row.append(f"{_figure(record, percent)} {marks.get((budget, key), ' ')}" if record else "")
        rows.append(row)
    return aligned(rows)


def _marks(results: Mapping[str, Any], task: str, name: str) -> dict[tuple[Any, Key], str]:
    marks: dict[tuple[Any, Key], str] = {}
    for entry in results["best"]:
        if entry["task"] == task and entry["metric"] == name:
            marks |= {(entry["budget"], (model, method)): LEVEL for model, method in entry["level"]}
            marks[entry["budget"], (entry["best"][0], entry["best"][1])] = LEADER
    return marks


def _figure(record: Record, percent: bool) -> str:
    if record["value"] is None:
        return "none scored"
    scale, digits = (100, 1) if percent else (1, 3)
    text = f"{record['value'] * scale:.{digits}f}"
    if record["low"] is not None:
        text += f" [{record['low'] * scale:.{digits}f}, {record['high'] * scale:.{digits}f}]"
    return f"{text} of {record['coverage']:.0%}" if record.get("n_abstained") else text


def _costs(results: Mapping[str, Any], timing: Mapping[str, Any], task: str, records: Sequence[Record]) -> list[str]:
    """What each method read and took, over all budgets and seeds, and what it could not do. Counts that are all 0 are left out."""
    keys = _keys(records)
    heads = ["all label budgets and seeds", "predictions", "answers by", "abstained", "not answered", "ties", "shots dropped"]
    heads += ["in windows", "input cut", "tokens", "without reuse", "ratio", "from cache", "seconds", "cost"]
    rows = [heads]
    first = records[0]["metric"]
    for key in keys:
        mine = [r for r in records if (r["model"], r["method"]) == key and r["metric"] == first and r["seed"] is None]
        cells = [c for c in results["cells"] if (c["model"], c["method"], c["task"]) == (*key, task)]
        clock = [c for c in timing.get("cells", ()) if (c["model"], c["method"], c["task"]) == (*key, task)]
        computed, naive = (sum(c[n] or 0 for c in cells) for n in ("tokens_computed", "tokens_naive"))
        rows.append(
            [
                _title(key, keys),
                f"{sum(r['n_scored'] + r['n_failed'] + r.get('n_abstained', 0) for r in mine):,}",
                _answered_by(mine[0].get("estimator")) if mine else "",
                *(_count(sum(r.get(n, 0) for r in mine)) for n in COUNTS),
                _count(computed),
                _count(naive),
                _ratio(computed, naive),
                _count(sum(_cached(c) for c in clock)),
                f"{sum(c['fit_s'] + c['predict_s'] for c in clock):.1f}" if clock else "",
                _money(sum(map(cost_of, clock))),
            ]
        )
    return aligned(rows)


def _answered_by(estimator: str | None) -> str:
    """Empty for the log-likelihoods of whole labels as the model gives them."""
    how, _, approximation = (estimator or "").partition(", ")
    return ", ".join(filter(None, (ESTIMATORS.get(how, ""), approximation)))


def _cached(cell: Mapping[str, Any]) -> int:
    """Tokens of a cell that were found in a cache: that of scores here, or a provider's."""
    return int(cell.get("tokens", {}).get("cached") or 0) + int(cell.get("usage", {}).get("cached_tokens") or 0)


def _ratio(computed: int, naive: int) -> str:
    """How many times the work is saved; empty where nothing is."""
    return f"{naive / computed:.1f}" if naive > computed > 0 else ""


def _count(n: int) -> str:
    return f"{n:,}" if n else ""


def _money(cost: float) -> str:
    return f"{cost:,.4f}" if cost else ""


def _seeds(results: Mapping[str, Any]) -> list[str]:
    seeds = sorted({c["seed"] for c in results["cells"] if c["seed"] is not None})
    if crossed := [c["seeds"] for c in results["cells"] if c.get("seeds")]:
        sizes = {name: len({each[name] for each in crossed}) for name in WORDS if name in crossed[0]}
        said = ", ".join(f"{WORDS[name]}: {n}" for name, n in sizes.items() if n > 1)
        return [f"means over crossed seeds ({said}) of those that play a part in a method; intervals over items and all of these"]
    if len(seeds) == 1:
        return [
            f"one draw of the labelled examples (seed {seeds[0]}): another draw may rank the methods differently; --set seeds=3 shows it"
        ]
    return (
        [f"means over {len(seeds)} draws of the labelled examples (seeds {seeds[0]} to {seeds[-1]}); intervals over items and draws"]
        if seeds
        else []
    )


def _thresholds(results: Mapping[str, Any]) -> list[str]:
    lines = []
    for t in results["thresholds"]:
        value = "none scored" if t["value"] is None else f"{t['value']:.3f}"
        where = " · ".join(part for part in (t["task"], t["model"], t["method"]) if part)
        lines.append(f"threshold {'met' if t['met'] else 'MISSED'}: {where}: {t['metric']} {value}, stated {t['threshold']:g}")
    return lines


def _total(results: Mapping[str, Any], timing: Mapping[str, Any] | None) -> list[str]:
    lines = [] if results["complete"] else ["not finished: the figures are of the cells that are complete"]
    if timing:
        memory = timing.get("peak_memory_mb")
        machine = results["manifest"].get("machine", {})
        threads = f", {machine['threads']} threads" if machine.get("threads") else ""
        lines.append(f"{timing['seconds']:.0f} s in all{f', {memory:,.0f} MiB' if memory else ''}{threads}")
        if usage := timing.get("usage"):
            paid = "" if usage["cost"] is None else f", {usage['cost']:,.4f} paid"
            asked = f"endpoints: {usage['requests']:,} requests ({usage['retries']:,} of them again, {usage['failed']:,} given up)"
            cached = f" ({usage['cached_tokens']:,} in the provider's cache)" if usage.get("cached_tokens") else ""
            saved = f", {usage['saved']:,.4f} saved by its cache" if usage.get("saved") else ""
            lines.append(f"{asked}, {usage['input_tokens']:,} tokens read{cached}, {usage['output_tokens']:,} written{paid}{saved}")
        if (embedding := timing.get("embedding")) and embedding["requests"]:
            paid = "" if embedding["cost"] is None else f", {embedding['cost']:,.4f} paid"
            lines.append(f"encoder: {embedding['requests']:,} requests, {embedding['input_tokens']:,} tokens read{paid}")
    return lines


def plan_table(cells: Sequence[Mapping[str, Any]]) -> str:
    """The cells of a plan with their tokens, time and money, added up over seeds. cells: as `icl.suite.Plan.cells`."""
    rows = [["task", "method", "model", "labels", "runs", "predictions", "tokens", "without reuse", "ratio", "about s", "cost at most"]]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["task"], cell["method"], cell["model"], cell["budget"]), []).append(cell)
    for (task, method, model, budget), members in groups.items():
        computed, naive = (sum(c[n] or 0 for c in members) for n in ("tokens_computed", "tokens_naive"))
        seconds, cost = ([c[n] for c in members if c[n] is not None] for n in ("seconds", "cost"))
        about, most = f"{sum(seconds):.0f}" if seconds else "", f"{sum(cost):.4f}" if cost else ""
        n_items = sum(c["n_items"] for c in members)
        labels = "–" if budget is None else str(budget)
        work = [f"{n_items:,}", _count(computed), _count(naive), _ratio(computed, naive), about, most]
        rows.append([task, method, model or "", labels, str(len(members)), *work])
    return "\n".join(aligned(rows, left=3))
