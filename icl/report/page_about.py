"""The page's last parts: where time and tokens went, trainings, counts of the data, and the manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..evaluate.compare import StoredRun
from ..evaluate.work import cost_of
from .markup import Cell, Num, Safe, Section, esc, figures, fold, name, paragraph, table
from .plots import bars_svg
from .readouts import NOTE, readout_rows
from .runs import Runs
from .stages import stage_lines

_COUNTS = {
    "n_failed": "not scored", "n_abstained": "abstained", "n_unanswered": "not answered", "n_lost": "lost by an endpoint", "n_ties": "ties",
    "n_dropped": "shots dropped", "n_windowed": "in windows", "n_truncated": "input cut",
}  # fmt: skip
"""Of a record -> the column's head."""


def work_section(runs: Runs) -> Section:
    """Seconds, tokens and money per method, over all tasks, label budgets and seeds; and what could not be done."""
    rows: list[list[Cell]] = []
    bars = []
    for series, title in runs.names.items():
        clock = [cell for s, cell in runs.timed() if s == series]
        cells = [cell for s, cell in runs.of("cells") if s == series]
        fit, predict = (sum(cell[key] for cell in clock) for key in ("fit_s", "predict_s"))
        tokens = [cell.get("tokens", {}) for cell in clock]
        usage = [cell.get("usage", {}) for cell in clock]
        planned, naive = (sum(cell[key] or 0 for cell in cells) for key in ("tokens_computed", "tokens_naive"))
        memory = max((cell["peak_memory_mb"] or 0 for cell in clock), default=0)
        counts = [_sum(tokens, key) for key in ("computed", "cached", "padding", "generated")]
        paid = sum(map(cost_of, clock))
        if clock:
            bars.append((title, (fit, predict)))
        rows.append(
            [
                title,
                Num(f"{fit:,.1f}" if clock else ""),
                Num(f"{predict:,.1f}" if clock else ""),
                *(Num(f"{n:,}" if n else "") for n in (planned, naive)),
                Num(f"{naive / planned:.1f}" if naive > planned > 0 else ""),
                *(Num(f"{n:,}" if n else "") for n in counts),
                Num(f"{_sum(usage, 'requests'):,}" if usage and _sum(usage, "requests") else ""),
                Num(f"{paid:,.4f}" if paid else ""),
                Num(f"{memory:,.0f}" if memory else ""),
            ]
        )
    heads = ["s to fit", "s to predict", "tokens planned", "without reuse", "ratio", "computed", "from cache", "padding", "written"]
    head: list[Cell] = ["all tasks, budgets, seeds", *map(Num, [*heads, "requests", "paid", "peak MiB"])]
    drawn = figures([bars_svg(bars, ("fit", "predict"), "Where the time went", "seconds")]) if bars else ""
    body = f"{drawn}{table(head, rows)}{_totals(runs)}{_counts(runs)}" if rows else ""
    return Section("work", "Where time and tokens went", body, "Time")


def _sum(parts: Sequence[Mapping[str, Any]], key: str) -> int:
    return sum(part.get(key) or 0 for part in parts)


def _totals(runs: Runs) -> Safe:
    lines = []
    for title, source in zip(runs.titles, runs.sources, strict=True):
        if source.timing:
            machine = source.document["manifest"].get("machine", {})
            threads = f", {machine['threads']} thread{'s' if machine['threads'] != 1 else ''}" if machine.get("threads") else ""
            memory = source.timing.get("peak_memory_mb")
            sessions = source.timing.get("sessions", 1)
            where = f"{title}: " if len(runs.sources) > 1 else ""
            lines.append(
                f"{where}{source.timing['seconds']:,.0f} s in all"
                + (f" in {sessions} sessions" if sessions > 1 else "")
                + (f", {memory:,.0f} MiB" if memory else "")
                + threads
            )
    return paragraph(" · ".join(lines), "note")


def _counts(runs: Runs) -> Safe:
    """What could not be done as usual: by the first metric of every task, all budgets and seeds together."""
    rows: list[list[Cell]] = []
    for series, title in runs.names.items():
        records = [
            record
            for task in runs.tasks
            for s, record in runs.of("records", task, seed=None, metric=next(iter(runs.metrics_of(task)), None))
            if s == series
        ]
        answered = sum(r["n_scored"] + r["n_failed"] + r.get("n_abstained", 0) for r in records)
        found = [sum(record.get(key, 0) or 0 for record in records) for key in _COUNTS]
        how = ", ".join(dict.fromkeys(r["estimator"] for r in records if r.get("estimator")))
        rows.append([title, Num(f"{answered:,}"), *(Num(f"{n:,}" if n else "") for n in found), how])
    head: list[Cell] = ["counts", Num("predictions"), *map(Num, _COUNTS.values()), "answers by"]
    return Safe(f"<h3>What could not be done as usual</h3>{table(head, rows)}")


def data_section(runs: Runs) -> Section:
    """Rows, leaks and rejected rows per task, with the data report; read-outs and stages of retrievers."""
    rows: list[list[Cell]] = []
    parts = []
    for source, run in zip(runs.sources, runs.titles, strict=True):
        for task, facts in source.document["tasks"].items():
            title = f"{task} ({run})" if len(runs.sources) > 1 else task
            leaks = {reason: n for reason, n in facts["leaks"].items() if n}
            counts = [facts["n_train"], facts["n_test"], facts["n_items"]]
            held = "held out by a hash of their content" if facts["holdout"] is not None else ""
            rows.append(
                [
                    title,
                    *(Num(f"{n:,}") for n in counts),
                    Num(f"{sum(leaks.values()):,}", ", ".join(f"{n} by {reason}" for reason, n in leaks.items())),
                    Num(f"{sum(facts['rejected'].values()):,}", ", ".join(f"{n} × {reason}" for reason, n in facts["rejected"].items())),
                    held,
                ]
            )
            lines = list(source.data.get(task, ()))
            parts.append(fold(Safe(f"Data report of {name(title)}"), f"<pre>{esc(chr(10).join(lines))}</pre>" if lines else ""))
            stages, read = stage_lines(source.document, task), readout_rows(source.document, task)
            parts.append(fold(Safe(f"Retriever stages, {name(title)}"), f"<pre>{esc(chr(10).join(stages))}</pre>" if stages else ""))
            if read:
                others = table([read[0][0], read[0][1], *map(Num, read[0][2:])], [[r[0], r[1], *map(Num, r[2:])] for r in read[1:]])
                parts.append(fold(Safe(f"Other read-outs of the same scores, {name(title)}"), f"{others}{paragraph(NOTE, 'note')}"))
    head: list[Cell] = [
        "task",
        *map(Num, ("rows to learn from", "test rows", "judged on", "leaks taken out", "rejected rows")),
        "test rows are",
    ]
    lead = "Leaks: rows to learn from that equal a test row (by id, by text, or nearly) and were taken out before anything was drawn."
    return Section("data", "The data", f"{table(head, rows)}{paragraph(lead, 'note')}{''.join(parts)}" if rows else "", "Data")


def manifest_section(runs: Runs, stored: Mapping[int, StoredRun]) -> Section:
    """How the methods are set, and what could change a digit of the results; of several runs, first what differs."""
    parts = []
    if len(runs.sources) > 1:
        flat = [dict(_flat(source.document["manifest"])) for source in runs.sources]
        keys = [key for key in dict.fromkeys(k for each in flat for k in each) if len({str(each.get(key)) for each in flat}) > 1]
        rows = [[key, *(_short(each.get(key, "")) for each in flat)] for key in keys]
        parts.append(table(["differs", *runs.titles], rows) if rows else paragraph("The manifests are the same."))
    for n, (title, source) in enumerate(zip(runs.titles, runs.sources, strict=True)):
        parts.append(_methods(title, stored.get(n)))
        text = json.dumps(source.document["manifest"], indent=1, ensure_ascii=False)
        parts.append(fold(Safe(f"Manifest of {name(title)}"), f"<pre>{esc(text)}</pre>"))
    lead = "Digests and versions of everything that could change a digit of these results: the same manifest gives the same bytes."
    return Section("manifest", "Manifest", paragraph(lead, "note") + "".join(parts))


def _methods(title: str, run: StoredRun | None) -> Safe:
    """The methods as the suite has them; what is not named is at its default."""
    written = run.methods_as_written if run is not None else {}
    rows: list[list[Cell]] = [[method, kind, json.dumps(settings, ensure_ascii=False)] for method, (kind, settings) in written.items()]
    return fold(Safe(f"Methods of {name(title)}"), table(["method", "kind", "settings"], rows) if rows else "")


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for part, inner in value.items():
            yield from _flat(inner, f"{key}.{part}" if key else str(part))
    else:
        yield key, value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:79] + "…"
