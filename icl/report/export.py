"""A finished run in the formats of others: CSV, Parquet, JUnit XML, the results and samples of lm-evaluation-harness; and in trackers."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from ..errors import InputError, MissingExtraError, Problem, UnknownNameError
from ..evaluate.cells import Cell
from ..evaluate.compare import StoredRun
from ..evaluate.results import RESULTS
from ..evaluate.scoring import item_values
from ..files import read_text, safe_name, write_text
from ..values import Prediction, canonical_json
from .trackers import to_mlflow, to_wandb

ITEM = ("model", "task", "method", "budget", "seed", "position", "uid", "input", "target", "answer", "why", "probability", "n_tokens")
"""Columns of an item's prediction; a column for each metric follows."""
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
Document = Mapping[str, Any]


def export_run(folder: Path | str, format: str, to: Path | str | None = None, *, plugins: Sequence[Path] = ()) -> list[Path | str]:
    """Write a finished run in another format; returns the files, for a tracker where it is instead.

    format: `csv` or `parquet` (figures and items, a table each), `junit` (every figure as a test case, failed where a stated threshold was missed),
    `lm-eval` (results and samples as `lm_eval --log_samples` writes them, a task for each task, method and label budget), `mlflow` and `wandb`
    (see `trackers`). to: a folder, by default `export` in the run's; for MLflow where its settings say. Raises InputError for a run that is not finished, MissingExtraError for Parquet without pyarrow.
    """
    run = Path(folder)
    check_format(format)
    if not (run / RESULTS).is_file():
        raise InputError(Problem(f"not a finished run: there is no {RESULTS} in it", "Finish it, or give the folder of a run.", str(run)))
    document: Document = json.loads(read_text(run / RESULTS))
    if format in TRACKERS:
        return [TRACKERS[format](run, document, None if to is None else Path(to))]
    target = Path(to) if to is not None else run / "export"
    target.mkdir(parents=True, exist_ok=True)
    return [*FORMATS[format](StoredRun.open(run), document, target, plugins)]


def check_format(format: str) -> None:
    """Raises UnknownNameError for a name that is no format."""
    if format not in FORMATS and format not in TRACKERS:
        raise UnknownNameError("export format", format, [*FORMATS, *TRACKERS], field="export")


def _csv(run: StoredRun, document: Document, to: Path, plugins: Sequence[Path]) -> list[Path]:
    tables = {"figures": _figures(document), "items": list(_items(run, document, plugins))}
    files = []
    for name, rows in tables.items():
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
        files.append(to / f"{name}.csv")
        _write(files[-1], text.getvalue())
    return files


def _parquet(run: StoredRun, document: Document, to: Path, plugins: Sequence[Path]) -> list[Path]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("pyarrow", "data", "writing Parquet") from None
    files = []
    for name, rows in (("figures", _figures(document)), ("items", list(_items(run, document, plugins)))):
        # A label budget is a number or "all", so a column of text.
        plain = [
            {k: str(v) if k == "budget" and v is not None else _utf8(v) if isinstance(v, str) else v for k, v in row.items()}
            for row in rows
        ]
        columns = list(dict.fromkeys(key for row in plain for key in row))
        files.append(to / f"{name}.parquet")
        pq.write_table(pa.table({column: [row.get(column) for row in plain] for column in columns}), files[-1])
    return files


def _utf8(text: str) -> str:
    """A lone surrogate, which a server's answer may hold, as its escape (in a JSON string that is the same character again)."""
    return text.encode("utf-8", "backslashreplace").decode()


def _write(path: Path, text: str) -> None:
    write_text(path, _utf8(text))


def _figures(document: Document) -> list[dict[str, Any]]:
    return [dict(record) for record in document["records"]]


def _items(run: StoredRun, document: Document, plugins: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for cell in _cells(run, document):
        examples, predictions = run.tests[cell.task], run.predictions(cell)
        values = _values(run, cell, plugins)
        for at, (example, prediction) in enumerate(zip(examples, predictions, strict=True)):
            shares = prediction.probabilities or {}
            facts = (at, example.uid, canonical_json(dict(example.fields)), example.target, prediction.answer, prediction.why)
            row = dict(zip(ITEM, (*cell.as_dict().values(), *facts, shares.get(prediction.answer or ""), prediction.n_tokens), strict=True))
            yield row | {name: each[at] for name, each in values.items()}


def _cells(run: StoredRun, document: Document) -> list[Cell]:
    """In the order of results.json."""
    order = [Cell(c["model"], c["task"], c["method"], c["budget"], c["seed"]) for c in document["cells"]]
    return [cell for cell in order if cell in run.facts]


def _values(run: StoredRun, cell: Cell, plugins: Sequence[Path]) -> dict[str, list[float | None]]:
    """Metric -> what it says of each item; None where it says nothing of a single one, or could not score it."""
    examples, predictions = run.tests[cell.task], run.predictions(cell)
    metrics = run.metrics(cell.task, plugins)
    found = {
        name: item_values(metric, predictions, examples).tolist() for name, metric in metrics.items() if not hasattr(metric, "aggregate")
    }
    return {name: [None if math.isnan(value) else value for value in values] for name, values in found.items()}


def _junit(run: StoredRun, document: Document, to: Path, plugins: Sequence[Path]) -> list[Path]:
    """A suite per task: a case per figure over all seeds, failed where a stated threshold was missed."""
    limits = {(t["model"], t["task"], t["method"], t["budget"], t["metric"]): t for t in document["thresholds"]}
    suites, totals = [], [0, 0]
    for task in document["tasks"]:
        cases, failed = [], 0
        for r in document["records"]:
            if r["task"] != task or r["seed"] is not None:
                continue
            title = " · ".join(str(part) for part in (r["method"], r["model"], _labels(r["budget"]), r["metric"]) if part)
            value = "nothing could be scored" if r["value"] is None else f"{r['value']:.4f} [{r['low']}, {r['high']}]"
            said = f"{value}, {r['n_scored']} scored, {r['n_failed']} not scored"
            limit = limits.get((r["model"], task, r["method"], r["budget"], r["metric"]))
            inner = f"<system-out>{_xml(said)}</system-out>"
            if limit is not None and not limit["met"]:
                failed += 1
                missed = f"{value}, stated {limit['threshold']:g}"
                inner = f"<failure message={_attribute(missed)}/>{inner}"
            cases.append(f"<testcase classname={_attribute(task)} name={_attribute(title)}>{inner}</testcase>")
        suites.append(f'<testsuite name={_attribute(task)} tests="{len(cases)}" failures="{failed}">{"".join(cases)}</testsuite>')
        totals = [totals[0] + len(cases), totals[1] + failed]
    name = _attribute(document["manifest"]["name"])
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name={name} tests="{totals[0]}" failures="{totals[1]}">{"".join(suites)}</testsuites>\n'
    write_text(to / "junit.xml", text)
    return [to / "junit.xml"]


def _labels(budget: Any) -> str:
    return "" if budget is None else f"{budget} labels"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _attribute(text: Any) -> str:
    return quoteattr(_NOT_XML.sub("\ufffd", str(text)))


def _lm_eval(run: StoredRun, document: Document, to: Path, plugins: Sequence[Path]) -> list[Path]:
    """results.json and samples_TASK.jsonl, the layout of lm-evaluation-harness 0.4: `results`, `n-shot`, `n-samples`, `higher_is_better`,
    `configs`, `versions`; metric keys end in `,none`. A run of several seeds has a task for each, since a sample is of one run."""
    results: dict[str, dict[str, Any]] = {}
    samples: dict[str, int] = {}
    configs: dict[str, Any] = {}
    shots: dict[str, int] = {}
    higher = {name: facts["higher_is_better"] for name, facts in document["metrics"].items()}
    files = []
    single = {(r["model"], r["task"], r["method"], r["budget"]) for r in document["records"] if r["seed"] is not None}
    for cell in _cells(run, document):
        key = cell.group
        records = [
            r for r in document["records"]
            if (r["model"], r["task"], r["method"], r["budget"]) == key and r["seed"] == (cell.seed if key in single else None)
        ]  # fmt: skip
        parts = (
            cell.task,
            cell.method,
            cell.model,
            None if cell.budget is None else f"{cell.budget}",
            None if cell.seed is None else f"s{cell.seed}",
        )
        name = safe_name("-".join(str(part) for part in parts if part is not None))
        n = len(run.tests[cell.task])
        results[name] = {"alias": name, "sample_len": n}
        for r in records:
            results[name][f"{r['metric']},none"] = r["value"]
            half = None if r["low"] is None else (r["high"] - r["low"]) / (2 * 1.959964)
            results[name][f"{r['metric']}_stderr,none"] = "N/A" if half is None else half
        samples[name], configs[name] = n, {"task": name, **cell.as_dict()}
        shots[name] = max((len(p.demonstrations) for p in run.predictions(cell)), default=0)
        files.append(to / f"samples_{name}.jsonl")
        _write(files[-1], "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _samples(run, cell, plugins)))
    manifest = document["manifest"]
    models = list(manifest.get("models", {}))
    whole = {
        "results": results,
        "group_subtasks": {},
        "configs": configs,
        "versions": dict.fromkeys(results, "icl"),
        "n-shot": shots,
        "higher_is_better": dict.fromkeys(results, higher),
        "n-samples": {name: {"original": n, "effective": n} for name, n in samples.items()},
        "config": {"model": "icl", "model_args": ",".join(models), "limit": manifest.get("limit"), "random_seed": manifest.get("seed")},
        "model_name": models[0] if models else manifest["name"],
        "icl_manifest": manifest,
    }
    _write(to / "results.json", json.dumps(whole, ensure_ascii=False, indent=1) + "\n")
    return [to / "results.json", *files]


def _samples(run: StoredRun, cell: Cell, plugins: Sequence[Path]) -> Iterator[dict[str, Any]]:
    values = _values(run, cell, plugins)
    for at, (example, prediction) in enumerate(zip(run.tests[cell.task], run.predictions(cell), strict=True)):
        doc = {**dict(example.fields), **({"choices": list(example.choices)} if example.choices else {})}
        yield {
            "doc_id": at,
            "doc": doc,
            "target": example.target,
            "arguments": {},
            "resps": _responses(prediction),
            "filtered_resps": [each[0] for each in _responses(prediction)],
            "filter": "none",
            "metrics": list(values),
            "doc_hash": _hash(canonical_json(doc)),
            "target_hash": _hash(str(example.target)),
            "uid": example.uid,
            "answer": prediction.answer,
            **({} if prediction.why is None else {"why": prediction.why}),
            **{name: each[at] for name, each in values.items()},
        }


def _responses(prediction: Prediction) -> list[list[Any]]:
    """Log-likelihoods of the candidates, each with whether it was the answer; of a model that writes, its text."""
    if prediction.scores is not None:
        best = max(prediction.scores.sums, default=0.0)
        return [[[total, total == best]] for total in prediction.scores.sums]
    return [[prediction.text if prediction.text is not None else prediction.answer]]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


FORMATS: Mapping[str, Callable[[StoredRun, Document, Path, Sequence[Path]], list[Path]]] = {
    "csv": _csv,
    "parquet": _parquet,
    "junit": _junit,
    "lm-eval": _lm_eval,
}
TRACKERS: Mapping[str, Callable[[Path, Document, Path | None], str]] = {"mlflow": to_mlflow, "wandb": to_wandb}
