"""`icl.run`: a suite from the first check to the table. `plan` says what a run would cost; `open_run` reads a finished one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from .errors import InputError, Problem, UnknownNameError
from .evaluate.before import Places, Source, check, check_cost, command_of, data_reports, folders_of, shared, whole
from .evaluate.check import load_suite
from .evaluate.loading import LoadedSuite
from .evaluate.loop import Schedule, plan_cells, run_cells
from .evaluate.on_ray import run_on_ray
from .evaluate.pace import UntilSettled
from .evaluate.partial import partial_document
from .evaluate.prepare import prepare
from .evaluate.results import MANIFEST, PAGE, REPORT, RESULTS, TIMING
from .evaluate.session import begin, opened, worked, written
from .evaluate.speed import cost_of_plan, requests_per_s, tokens_per_s
from .evaluate.store import STORE, RunStore, refuse_if_busy
from .files import read_text, write_text
from .progress import note
from .protocols import LanguageModel
from .report import Answer, Shown, plan_table, run_html, table
from .values import Prediction, canonical_json

FINE, FAILED, MISSED, PARTLY, INTERRUPTED = 0, 1, 3, 4, 130


@dataclass(frozen=True)
class Run:
    """A run and its folder."""

    folder: Path
    document: Mapping[str, Any]
    """What results.json holds; of an interrupted run, the part that is complete."""
    timing: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Task -> the lines of its data report."""
    interrupted: bool = False
    command: str | None = None
    """The command that goes on with the run, or does it again."""
    stopped: str | None = None
    """Why the run ended before it was finished, where it was neither you nor an error: the cost limit, or an endpoint that is down."""

    @property
    def results(self) -> list[dict[str, Any]]:
        """The records of results.json: a figure each, per seed, and with `seed` None over all seeds."""
        return list(self.document["records"])

    @property
    def passed(self) -> bool:
        """True if the run is complete and every stated threshold is met."""
        ended = self.interrupted or self.stopped is not None
        return not ended and bool(self.document["complete"]) and all(t["met"] for t in self.document["thresholds"])

    @property
    def exit_code(self) -> int:
        """0 fine, 1 stopped early, 3 a threshold was missed, 4 some items could not be answered (3 wins), 130 interrupted."""
        if self.interrupted:
            return INTERRUPTED
        if self.stopped is not None:
            return FAILED
        if not self.passed:
            return MISSED
        return PARTLY if any(r["n_unanswered"] for r in self.results) else FINE

    def table(self) -> str:
        """The figures as plain text, and the next command to try."""
        return "\n\n".join(part for part in (table(self.document, self.timing, self.data), "\n".join(self.next())) if part)

    def to_html(self, path: str | Path, *others: Run, answer: Answer | None = None) -> Path:
        """Write the run as one HTML page that needs nothing else: figures, curves, costs, every item with its prompt.

        others: runs to show beside it. answer: what stands on top; by default the decision that the run was made for, or which method
        leads. Returns the path. Raises InputError if the run's store is missing, IclError if it is damaged.
        """
        from .report.page import report_page

        write_text(Path(path), report_page([run.source for run in (self, *others)], answer))
        return Path(path)

    @property
    def source(self) -> Shown:
        """What a page shows of it."""
        return Shown(self.folder, self.document, self.timing, self.data)

    def _repr_html_(self) -> str:
        return run_html(self.source)

    def next(self) -> list[str]:
        """Commands to try after this run."""
        if self.interrupted:
            return [f"interrupted; go on with: {self.command}"]
        if self.stopped is not None:
            return [f"stopped: {self.stopped}", f"what was done is kept; go on with: {self.command}"]
        first = next(iter(self.document["metrics"]), None)
        winner = next((entry["best"][1] for entry in reversed(self.document["best"]) if entry["metric"] == first), None)
        suite = self.timing.get("suite", self.document["manifest"]["name"])
        lines = [f"Next: icl prompt {suite} --item 0      the exact prompt a model reads"] if self.document["manifest"]["models"] else []
        if winner is not None and self.document["predictors"]:
            lines.append(f"Next: icl export {self.folder} --to shipped --method {winner}      the method as a folder to use")
        if n_lost := sum(r.get("n_lost", 0) for r in self.results if r["metric"] == first and r["seed"] is None):
            again = self.command or f"icl run {suite} --out {self.folder}"
            lines.append(f"Next: {again} --retry-failed      asks again for {n_lost:,} predictions that an endpoint gave no answer for")
        return lines

    def export(self, format: str, to: str | Path | None = None, *, plugins: Sequence[str | Path] = ()) -> list[Path | str]:
        """Write a finished run as `csv`, `parquet`, `junit` or `lm-eval`, into `to` or `export` in its folder; returns the files. Or track
        it in `mlflow` or `wandb`; returns where it is.

        plugins: folders with metrics of your own. Raises InputError for a run that is not finished, MissingExtraError
        where a package is not there.
        """
        from .report.export import export_run

        return export_run(self.folder, format, to, plugins=[Path(folder) for folder in plugins])

    def predictions(
        self, method: str, *, task: str | None = None, model: str | None = None, budget: int | str | None = None, seed: int | None = None
    ) -> list[Prediction]:
        """One method's predictions in the order of the test items.

        Left out: the only task and model, the largest label budget, the first seed. Raises InputError if that leaves several or none.
        """
        cells = [c for c in self.document["cells"] if c["method"] == method]
        if not cells:
            raise UnknownNameError("method in this run", method, {c["method"] for c in self.document["cells"]}, file=str(self.folder))
        wanted = {"task": task, "model": model, "budget": budget, "seed": seed}
        cells = [c for c in cells if all(value is None or c[key] == value for key, value in wanted.items())]
        budgets = [c["budget"] for c in cells]
        cells = [c for c in cells if c["budget"] == budgets[-1]]
        cells = [c for c in cells if c["seed"] == cells[0]["seed"]]
        if len(cells) != 1:
            given = {key: value for key, value in wanted.items() if value is not None}
            choices = sorted({f"task={c['task']!r}, model={c['model']!r}" for c in cells})
            fix = f"Say which: {'; '.join(choices)}." if choices else "See the keys 'cells' of results.json."
            raise InputError(Problem(f"{len(cells)} cells of '{method}' fit {given}", fix, str(self.folder)))
        key = canonical_json([cells[0][k] for k in ("model", "task", "method", "budget", "seed")])
        with RunStore.read_only(self.folder) as store:
            return store.predictions(key)


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    cells: tuple[Mapping[str, Any], ...]
    """Per cell: model, task, method, budget, seed, n_items, tokens_computed, tokens_naive (None without a language model), seconds (None
    where nothing tells) and cost (None without prices)."""
    tokens_per_s: float | None
    """As measured on this machine with text that is not the suite's; None if no language model here is used."""

    @property
    def tokens(self) -> int:
        return sum(cell["tokens_computed"] or 0 for cell in self.cells)

    @property
    def seconds(self) -> float | None:
        """Estimate for the language models' work alone."""
        return _sum(cell["seconds"] for cell in self.cells)

    @property
    def cost(self) -> float | None:
        """Money for the endpoints that have prices, at most: every text as long as it may be, nothing in a cache. Retries come on top."""
        return _sum(cell["cost"] for cell in self.cells)

    def table(self) -> str:
        n_items = sum(cell["n_items"] for cell in self.cells)
        lines = [plan_table(self.cells), "", f"{len(self.cells)} runs, {n_items:,} predictions, {self.tokens:,} tokens"]
        if self.seconds is not None:
            how = f"at {self.tokens_per_s:,.0f} tokens/s as measured just now" if self.tokens_per_s else "judging by one short request"
            lines[-1] += f", about {self.seconds:,.0f} s for the language model {how}"
        if self.cost is not None:
            lines[-1] += f"; at most {self.cost:,.4f} to pay"
        return "\n".join(lines)


def _sum(values: Iterator[float | None] | Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def run(
    suite: Source,
    out: str | Path | None = None,
    limit: int | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    cache: bool = True,
    max_cost: float | None = None,
    retry_failed: bool = False,
    models: Mapping[str, LanguageModel] | None = None,
    schedule: Schedule | None = None,
    until_decided: bool = False,
    margin: float = 0.01,
    **places: Unpack[Places],
) -> Run:
    """Run a suite: every method on the same labelled examples, judged on the same test items.

    suite: a path, the name of a packaged suite, or a dict. out: the folder for results, by default `runs/SUITE-TIME`; a run that is there
    already goes on where it stopped, if nothing changed that could change a result. limit: test items per task. seed: the first seed.
    overrides: dotted keys of the suite and their new values. cache: use scores and answers of earlier runs, and keep those of this one;
    it changes the time, never a result. max_cost: most money that endpoints may cost in this folder, all sessions together. retry_failed:
    ask again for the items that an endpoint gave no answer for, or that an error (memory that ran out) left without one. models: language models that are loaded already, by the suite's names for
    them. schedule: which cells are done, and in which order (see `Schedule`). until_decided: a task gets no further draw of the labels once every
    method is told apart from the best one by the first metric, or known to lie within `margin` of it (`evaluate.pace`). places: `templates`, `plugins`, `data_root`, as in `Places`.
    Ctrl-C ends the run cleanly, as does the cost limit and an endpoint that is down; the Run says how to go on.
    Raises InputError with every problem before any work.
    """
    started = time.perf_counter()
    loaded = _load(suite, limit, overrides, places)
    asked = {"max_cost": max_cost, "retry_failed": retry_failed, "models": models, "schedule": schedule, "until_decided": until_decided}
    check(loaded, places, out, margin, asked)
    folder = Path(out) if out is not None else new_folder(loaded.name)
    refuse_if_busy(folder)
    again = partial(command_of, loaded, folder, limit, seed, overrides, places, margin if until_decided else None, cache=cache)
    try:
        prepared = prepare(loaded, seed=seed or 0, limit=limit, data_root=places.get("data_root"), cache=cache, models=models)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted before the first prediction; begin again with: {again(max_cost=max_cost)}") from None
    until = UntilSettled.of(prepared, margin) if until_decided else None
    with opened(folder) as store:
        manifest = prepared.manifest()
        begin(prepared, store, manifest)
        data: dict[str, list[str]] = {}

        def work() -> None:
            data.update(data_reports(prepared, folder, in_time=schedule is not None, limited=max_cost is not None))
            if on := places.get("on"):
                how = {"suite": whole(suite), "overrides": overrides, "seed": seed or 0, "limit": limit, "cache": cache, **shared(places)}
                run_on_ray(prepared, store, how, manifest, on, places.get("cpus", 1.0), places.get("gpus", 0.0))
            else:
                run_cells(prepared, store, max_cost=max_cost, retry_failed=retry_failed, schedule=until or schedule)

        ended = worked(work, store, started, max_cost)
        document, clock = written(prepared, store, manifest, until)
    command = again(max_cost=ended.next_cost)
    done = Run(folder, json.loads(json.dumps(document)), clock, data, ended.interrupted, command, ended.stopped)
    write_page(done)
    return done


def write_page(done: Run) -> None:
    """The report beside the results. A run is done without it, so whatever goes wrong here is said and no more."""
    try:
        done.to_html(done.folder / PAGE)
    except Exception as error:
        note(f"{done.folder / PAGE}: not written: {type(error).__name__}: {error}")


def open_run(folder: str | Path, *, unfinished: bool = False, plugins: Sequence[Path] = ()) -> Run:
    """A finished run, from its folder. unfinished: also one that still runs or was killed, with what is finished of it, judged by its metrics,
    for which plugins are folders with some of one's own.

    Raises InputError if there is none.
    """
    folder = Path(folder)
    if unfinished and (folder / STORE).is_file() and not (folder / RESULTS).is_file():
        data = json.loads(read_text(folder / REPORT)) if (folder / REPORT).is_file() else {}
        return Run(folder, partial_document(folder, plugins), {}, {task: report["lines"] for task, report in data.items()})
    if not (folder / RESULTS).is_file():
        fix = "Finish it: the same `icl run` with the same --out goes on." if (folder / MANIFEST).is_file() else "Give the folder of a run."
        raise InputError(Problem(f"not a finished run: there is no {RESULTS} in it", fix, str(folder)))
    document, clock, data = (
        json.loads(read_text(folder / name)) if (folder / name).is_file() else {} for name in (RESULTS, TIMING, REPORT)
    )
    return Run(folder, document, clock, {task: report["lines"] for task, report in data.items()})


def plan(
    suite: Source,
    limit: int | None = None,
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    max_cost: float | None = None,
    **places: Unpack[Places],
) -> Plan:
    """What `run` would compute: cells, items, tokens, and estimates of time and money. No item is scored; prompts are built.

    An endpoint is asked what it can do, and for one short text to see how fast it is. max_cost: most money that this may cost; CostLimitError is
    raised before a request that could pass it.
    """
    loaded = _load(suite, limit, overrides, places)
    check_cost(loaded, max_cost)
    prepared = prepare(loaded, seed=seed or 0, limit=limit, data_root=places.get("data_root"))
    cells = []
    speeds: dict[str, float] = {}
    for cell, tokens in plan_cells(prepared, max_cost):
        planned: dict[str, Any] = dict.fromkeys(("tokens_computed", "tokens_naive", "seconds", "cost"))
        n_items = len(prepared.tasks[cell.task].test)
        if tokens is not None and cell.model is not None:
            lm = prepared.lm(cell.model)
            is_remote = prepared.model_entry(cell.model).remote
            if cell.model not in speeds:
                speeds[cell.model] = requests_per_s(lm, prepared.model_entry(cell.model)) if is_remote else tokens_per_s(lm)
            seconds = (n_items if is_remote else tokens.computed) / speeds[cell.model]
            planned = {
                "tokens_computed": tokens.computed,
                "tokens_naive": tokens.naive,
                "seconds": seconds,
                "cost": cost_of_plan(lm, tokens),
            }
        cells.append({**cell.as_dict(), "n_items": n_items, **planned})
    here = [speed for key, speed in speeds.items() if not prepared.model_entry(key).remote]
    return Plan(tuple(cells), here[0] if here else None)


def _load(suite: Source, limit: int | None, overrides: Mapping[str, Any] | None, places: Places) -> LoadedSuite:
    if limit is not None and limit < 1:
        raise InputError(Problem(f"a limit of {limit} leaves no test items", "Give at least 1.", field="limit"))
    unknown = set(places) - set(Places.__annotations__)
    if unknown:
        raise TypeError(f"unknown argument(s): {', '.join(sorted(unknown))}")
    return load_suite(suite, overrides=overrides, templates=folders_of(places.get("templates")), plugins=places.get("plugins", ()))


def new_folder(name: str) -> Path:
    """Where a run goes that names no folder."""
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    candidates = (Path("runs") / (stem if n == 1 else f"{stem}-{n}") for n in range(1, 1000))
    return next(path for path in candidates if not path.exists())
