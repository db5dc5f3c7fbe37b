"""Ship the winner: load a saved predictor, export one from a run, check that it still answers as it did."""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import InputError, Problem, UnknownNameError
from .evaluate.results import DECISION, MANIFEST, TIMING
from .evaluate.work import cost_of
from .files import read_text, safe_name, write_text
from .methods._fixed import FixedPrompt
from .methods._fixed import fixed_prompt as fixed
from .methods._folder import N_REGRESSION, PREDICTOR, README, REGRESSION, example_of, load_predictor, read_state, write_regression
from .protocols import LanguageModel, Predictor
from .values import Prediction

MEASURED = "measured.json"
"""The figures of the run that the predictor comes from."""
TOLERANCE = 1e-3
"""How far a probability may lie from the one recorded: another machine adds in another order."""
LOWER_IS_BETTER = frozenset({"ece", "brier", "nll", "aurc"})
Record = Mapping[str, Any]


def load(
    folder: Path | str, *, lm: LanguageModel | None = None, device: str | None = None, plugins: Sequence[Path | str] = ()
) -> Predictor:
    """The predictor in a folder that `save` or `icl export` wrote.

    Its language model, if it needs one, is loaded at the first `predict` (`lm` is used instead where given); prompts need none.
    plugins: folders with the Python of your own selectors or methods, imported only if named here.
    Raises InputError: no such folder, no predictor in it, made by a newer version, a file missing or changed.
    """
    return load_predictor(folder, lm=lm, device=device, plugins=tuple(Path(p) for p in plugins))


def check(folder: Path | str, *, lm: LanguageModel | None = None, device: str | None = None) -> list[str]:
    """Predict the regression queries of a shipped folder again. Returns one line per difference; an empty list is good.

    Raises InputError if the folder has no regression file, or as `load` does.
    """
    path = Path(folder) / REGRESSION
    predictor = load(folder, lm=lm, device=device)
    expected = [json.loads(line) for line in read_text(path, what="regression file").split("\n") if line]
    found = predictor.predict([example_of(line["query"]) for line in expected])
    return [text for n, (e, f) in enumerate(zip(expected, found, strict=True), 1) if (text := _difference(n, e, f))]


def _difference(n: int, expected: Mapping[str, Any], found: Prediction) -> str | None:
    if found.answer != expected["answer"]:
        return f"query {n}: expected {expected['answer']!r}, got {found.answer!r}" + (f" ({found.why})" if found.why else "")
    old, new = expected["probabilities"] or {}, found.probabilities or {}
    if old.keys() != new.keys():
        return f"query {n}: expected probabilities for {sorted(old)}, got {sorted(new)}"
    label, gap = max(((label, abs(old[label] - new[label])) for label in old), key=lambda p: p[1], default=("", 0.0))
    return f"query {n}: the probability of {label!r} moved by {gap:.2g}" if gap > TOLERANCE else None


def export(run_folder: Path | str, to: Path | str, method: str | None = None) -> Path:
    """Copy a method's predictor (largest label budget, first seed) out of a finished run, with its measured figures.

    method: a method's name in the suite, or `task/method` (`model/task/method`) where one name is not enough; if left out, the one that
    `icl.decide` chose, or the best by the run's first metric. Returns the new folder. Raises InputError: not a finished run, no such method, `to` is not empty.
    """
    to = Path(to)
    source, figures = _found(Path(run_folder), method)
    _check_empty(to)
    read_state(source)
    shutil.copytree(source, to, dirs_exist_ok=True)
    furnish(to, figures)
    return to


def refit(
    run_folder: Path | str,
    to: Path | str,
    method: str | None = None,
    *,
    templates: Sequence[Path | str] = (),
    plugins: Sequence[Path | str] = (),
    data_root: Path | str | None = None,
) -> Path:
    """Fit a method of a finished run on all rows its task has to learn from, and save it into `to`. How good that is, nobody has measured:
    the README says so. The rows the run was judged on stay out of it.

    method, templates, plugins, data_root: as in `export` and `icl.run`. Returns the new folder. Raises InputError: as `export`, and where the suite is no
    longer there or as it was run (its file, or what `overrides` changed), or the data has changed; a decision is fitted again by `Decision.refit`.
    """
    from .evaluate.cells import Cell
    from .evaluate.check import load_suite
    from .evaluate.prepare import prepare

    run, to = Path(run_folder), Path(to)
    _, figures = _found(run, method)
    name, task, model = (figures[0][key] for key in ("method", "task", "model"))
    if (run / DECISION).is_file():
        fix = f"Give its command again with --out {run} --ship FOLDER --refit: it goes straight to that."
        raise InputError(Problem("a decision keeps no suite to fit it from", fix, str(run)))
    _check_empty(to)
    source = str(json.loads(read_text(run / TIMING)).get("suite", ""))
    manifest = json.loads(read_text(run / MANIFEST))
    loaded = load_suite(source, templates=tuple(templates), plugins=tuple(plugins))
    if loaded.digest != manifest["suite"]:
        fix = "Write into it what --set changed, or bring back what it was."
        raise InputError(Problem(f"the suite {source} is not as it was run: it was changed since, or by --set", fix, str(run)))
    prepared = prepare(loaded, seed=manifest["seed"], data_root=data_root)
    then = manifest["tasks"].get(task, {}).get("data")
    if task not in prepared.tasks or prepared.tasks[task].task.digest != then or name not in {e.name for e in prepared.loaded.methods}:
        raise InputError(Problem(f"the suite {source} or its data is not what the run was made of", "Run it again.", str(run)))
    data = prepared.tasks[task]
    labels = max((r["budget"] for r in figures), key=lambda budget: _budget({"budget": budget}))
    cell = Cell(model, task, name, None if labels is None else "all", None if labels is None else prepared.seed)
    built = prepared.build(cell, prepared.lm(model) if model is not None else None)
    predictor = built.fit(prepared.pool(cell), labels=data.task.labels, unlabelled=data.task.unlabelled)
    predictor.name = name
    predictor.save(to)
    write_regression(to, data.test[:N_REGRESSION], predictor.predict(list(data.test[:N_REGRESSION])))
    furnish(to, ())
    return to


def _check_empty(to: Path) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(Problem("is not an empty folder", "Name a folder that does not exist yet.", str(to)))


def fixed_prompt(folder: Path | str, method: str | None = None, query: Any = None) -> FixedPrompt:
    """The prompt of a shipped predictor, or of a method of a finished run, with its demonstrations fixed, to be used without icl.

    method: as in `export`. query: the demonstrations are those for it; without one, those that rows of the pool get most often, each label
    in turn. Raises InputError for a method that answers without a prompt, or where no one prompt serves all rows.
    """
    path = Path(folder)
    return fixed(load(path if (path / PREDICTOR).is_file() else _found(path, method)[0]), query)


def _found(run: Path, method: str | None) -> tuple[Path, list[Record]]:
    """The folder of a method's predictor in a run, and its figures."""
    stored = _stored(run, _records(run))
    if not stored:
        raise InputError(Problem("no predictors are stored in this run", "Run the suite again.", str(run / "predictors")))
    method = method or _decided(run)
    source = _named(stored, method, run) if method else _best(stored, run)
    return source, with_costs(run, stored[source])


def furnish(folder: Path, figures: Sequence[Record]) -> None:
    """Add measured figures (records of results.json, each with its `cost`) to a saved predictor, and say in its README what else lies there."""
    if figures:
        write_text(folder / MEASURED, json.dumps(list(figures), ensure_ascii=False, indent=1) + "\n")
    unmeasured = "\n## Not measured\n\nFitted on all rows after the comparison: its own figures are not known.\n"
    write_text(folder / README, read_text(folder / README) + (_figures(figures) if figures else unmeasured) + _regression_note(folder))


def figures_of(run_folder: Path | str, method: str) -> list[Record]:
    """The measured figures of a method in a finished run of one task, and what they cost."""
    run = Path(run_folder)
    return with_costs(run, [record for record in _records(run) if record["method"] == method])


def with_costs(run: Path, records: Sequence[Record]) -> list[Record]:
    """Records of results.json, each with what its cells cost as `cost`, the mean over seeds: `fit_s`, seconds to learn from the labels;
    `query_s`, seconds per query; `tokens`, those that a language model here computed per query; `paid` per query, of endpoints with prices. None: nothing of the kind.
    """
    try:
        cells = json.loads(read_text(run / TIMING))["cells"]
    except (InputError, ValueError, KeyError):
        return list(records)
    alone = _timed_alone(run)
    found: list[Record] = []
    for record in records:
        mine = [c for c in cells if all(c[key] == record[key] for key in _KEYS) and record["seed"] in (c["seed"], None)]
        if mine:
            n = max(1, record["n_scored"] + record["n_failed"] + record.get("n_abstained", 0))
            paid = [money for c in mine if (money := cost_of(c))]
            tokens = [c["tokens"]["computed"] for c in mine if c.get("tokens", {}).get("computed")]
            cost = {
                "fit_s": sum(c["fit_s"] for c in mine) / len(mine),
                "query_s": alone.get(record["method"], sum(c["predict_s"] for c in mine) / n),
                "tokens": sum(tokens) / n if tokens else None,
                "paid": sum(paid) / n if paid else None,
            }
            found.append({**record, "cost": cost})
        else:
            found.append(record)
    return found


_KEYS = ("model", "task", "method", "budget")


def _timed_alone(run: Path) -> dict[str, float]:
    """Of a decision: seconds per query of methods whose clock in the run does not tell them, since they share the vectors of texts."""
    try:
        decided: dict[str, float] = (json.loads(read_text(run / DECISION)).get("ended") or {}).get("query_s") or {}
    except (InputError, ValueError):
        return {}
    return decided


def _decided(run: Path) -> str | None:
    """The winner of a decision; None for a run that is none, or has none yet."""
    try:
        decided: str | None = json.loads(read_text(run / DECISION)).get("winner")
    except (InputError, ValueError):
        return None
    return decided


def _records(run: Path) -> list[Record]:
    path = run / "results.json"
    if (run / PREDICTOR).is_file():
        fix = f"Use it as it is: icl predict {run} FILE, or icl.load({str(run)!r}). A copy of the folder is as good as this one."
        raise InputError(Problem("this is a predictor that was saved or exported already, and no run", fix, str(run)))
    if not path.is_file():
        fix = "Finish it: the same `icl run` with the same --out resumes." if run.is_dir() else "Give the folder that `icl run` wrote."
        raise InputError(Problem("not a finished run: there is no results.json in it", fix, str(run)))
    try:
        results = json.loads(read_text(path))
        records: list[Record] = results["records"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(Problem(f"damaged: {error}", "Run the suite again.", str(path))) from None
    if not results.get("complete", True):
        raise InputError(Problem("the run is not finished", "The same `icl run` with the same --out resumes it.", str(run)))
    return records


def _stored(run: Path, records: Sequence[Record]) -> dict[Path, list[Record]]:
    """Predictor folder -> the records of its method, task and model (the names in its path), all budgets and seeds."""
    root = run / "predictors"
    result: dict[Path, list[Record]] = {}
    for path in sorted(root.rglob(PREDICTOR)):
        parts = path.parent.relative_to(root).parts
        belong = [r for r in records if safe_name(str(r["method"])) in parts and set(parts) <= _names(r)]
        if belong:
            result[path.parent] = belong
    return result


def _names(record: Record) -> set[str]:
    return {safe_name(str(record[key])) for key in ("model", "task", "method") if record.get(key) is not None}


def _titles(records: Sequence[Record]) -> set[str]:
    """What a user may call a stored predictor."""
    r = records[0]
    model, task, method = (str(r[k]) if r.get(k) is not None else None for k in ("model", "task", "method"))
    titles = {str(method), f"{task}/{method}"}
    return titles | ({f"{model}/{method}", f"{model}/{task}/{method}"} if model else set())


def _named(stored: Mapping[Path, list[Record]], method: str, run: Path) -> Path:
    found = [path for path, records in stored.items() if method in _titles(records)]
    if not found:
        raise UnknownNameError("method in this run", method, {min(_titles(r), key=len) for r in stored.values()}, file=str(run))
    if len(found) > 1:
        longest = [max(_titles(stored[path]), key=len) for path in found]
        raise InputError(
            Problem(f"'{method}' stands for several predictors", f"Say which: {', '.join(longest)}.", str(run), field="method")
        )
    return found[0]


def _best(stored: Mapping[Path, list[Record]], run: Path) -> Path:
    """The highest mean over the seeds at the largest label budget; items that could not be scored, or were not answered, count as wrong
    here."""
    tasks = {(r.get("task"), r.get("model")) for records in stored.values() for r in records if r.get("model") is not None}
    if len({r.get("task") for records in stored.values() for r in records}) > 1 or len(tasks) > 1:
        titles = sorted(max(_titles(r), key=len) for r in stored.values())
        raise InputError(
            Problem("this run has several tasks or models", f"Name the method: {', '.join(titles)}.", str(run), field="method")
        )
    metric = next(r["metric"] for records in stored.values() for r in records if r["metric"] not in LOWER_IS_BETTER)
    return max(stored, key=lambda path: _mean(stored[path], metric))


def _mean(records: Sequence[Record], metric: str) -> float:
    usable = [r for r in records if r["metric"] == metric and r["value"] is not None]
    top = max((_budget(r) for r in usable), default=0.0)
    values = [
        r["value"] * r["n_scored"] / max(1, r["n_scored"] + r["n_failed"] + r.get("n_abstained", 0)) for r in usable if _budget(r) == top
    ]
    return sum(values) / len(values) if values else -math.inf


def _budget(record: Record) -> float:
    budget = record.get("budget")
    return math.inf if budget == "all" else float(budget or 0)


def _figures(records: Sequence[Record]) -> str:
    """Measured figures as a Markdown table, the largest label budget first."""
    rows = defaultdict(list)
    for r in records:
        rows[(r.get("budget"), r["metric"])].append(r)
    lines = [
        "",
        "## Measured",
        "",
        "| label budget | metric | seed | value | 95 % interval | items | abstained | not scored |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for _, group in sorted(rows.items(), key=lambda item: -_budget(item[1][0])):
        for r in group:
            value = "–" if r["value"] is None else f"{r['value']:.4f}"
            interval = "–" if r.get("low") is None else f"{r['low']:.4f} to {r['high']:.4f}"
            lines.append(
                f"| {r.get('budget') or '–'} | {r['metric']} | {'all' if r.get('seed') is None else r['seed']} | {value} | {interval} "
                f"| {r['n_scored']} | {r.get('n_abstained', 0)} | {r['n_failed']} |"
            )
    return "\n".join([*lines, "", *_cost(records)])


def _cost(records: Sequence[Record]) -> list[str]:
    """What the method took at the largest label budget, over all seeds, on the machine of the run."""
    known = [r for r in records if r.get("cost") and r["seed"] is None] or [r for r in records if r.get("cost")]
    if not known:
        return []
    record = max(known, key=_budget)
    cost, labels = record["cost"], record.get("budget")
    learnt = f"Learning from {labels} labels took {cost['fit_s']:.3g} s; a" if labels is not None else "A"
    tokens = f" and {cost['tokens']:,.0f} tokens of the language model" if cost["tokens"] else ""
    paid = f" It cost {cost['paid']:.3g} to pay, in the currency of the prices given." if cost["paid"] else ""
    return ["## Cost", "", f"{learnt} query took {cost['query_s']:.3g} s{tokens}, as measured on the machine of the comparison.{paid}", ""]


def _regression_note(folder: Path) -> str:
    if not (folder / REGRESSION).is_file():
        return ""
    return f'\n`icl.ship.check("FOLDER")` predicts the queries of `{REGRESSION}` again and lists what differs.\n'
