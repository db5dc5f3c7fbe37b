"""The one run loop: cell by cell fit, predict in planned units, and store every item's result.

A unit (a fixed range of a cell's items) is predicted in one call and committed in one transaction. A run that goes on after an
interruption computes the missing units whole, so batches, and with them the last bits of floats, are those of an uninterrupted run.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from ..errors import CostLimitError, IclError
from ..methods import write_regression
from ..plugins import find
from ..progress import note, progress
from ..protocols import LanguageModel
from ..values import Example, Prediction, TokenCounts
from . import guarded
from .cells import Cell, predictor_path
from .crossed import replicate_of
from .group_records import bias_record, content_free
from .prepare import Prepared
from .readouts import readouts_of
from .seen import prompts_of, shown_rows
from .store import RunStore
from .work import Work, cost_of, share_out

NOT_SENT = "not sent"
"""How the reason begins where an endpoint was not even asked, because it had failed many times in a row."""
_ERROR = re.compile(r"[A-Za-z_]\w*(Error|Exception)\w*(:|$)")
"""How it begins where an error left an item without an answer (`guarded.reason`)."""
UNIT_ITEMS = 32
"""Items of a unit of a method with a language model: some ten seconds of work, and enough to fill batches."""
UNIT_ITEMS_LIGHT = 256
"""The same for methods without one."""
Schedule: TypeAlias = Callable[[Sequence[Cell], RunStore], Iterable[Cell]]
"""(cells that are not finished, the store) -> those to do, in this order. It is asked for the next one when the one before is finished."""
TRAINING = "training"
"""Where the checkpoints of trained methods lie in a run's folder until their training is over."""


def units(n_items: int, cell: Cell) -> list[range]:
    """The ranges of item positions that are predicted together."""
    size = UNIT_ITEMS if cell.model is not None else UNIT_ITEMS_LIGHT
    return [range(start, min(start + size, n_items)) for start in range(0, n_items, size)]


def run_cells(
    prepared: Prepared, store: RunStore, *, max_cost: float | None = None, retry_failed: bool = False, schedule: Schedule | None = None
) -> None:
    """Do all that is not in the store yet. KeyboardInterrupt passes; what was committed before it stays.

    schedule: chooses what is done next, and leaves out what is not to be done at all; by default all cells, one after the other. max_cost:
    money that the run may cost, in all its sessions. retry_failed: first ask again for items that an endpoint or an error
    left without an answer.
    Raises Stopped before the limit is passed, or if an endpoint is down; what was answered by then is kept.
    """
    try:
        _run(_Running(prepared, store, max_cost), retry_failed, schedule)
    except CostLimitError as error:
        raise Stopped(f"the cost limit is reached: {error}", over_cost=True) from None


class Stopped(IclError):
    """A run ended before it was finished. What was done is kept, and the same command goes on from there, over_cost: with a higher limit."""

    def __init__(self, why: str, *, over_cost: bool = False) -> None:
        super().__init__(why)
        self.over_cost = over_cost


def _run(running: _Running, retry_failed: bool, schedule: Schedule | None) -> None:
    prepared, store = running.prepared, running.store
    if retry_failed:
        again = _failed(prepared.cells, store)
        finished = store.finished()
        with progress("retry", sum(len(positions) for _, positions in again), "predictions") as advance:
            for cell, positions in again:
                running.retry(cell, positions, advance, is_finished=cell.key in finished)
    done = store.finished()
    todo = [cell for cell in prepared.cells if cell.key not in done]

    def total() -> int:  # a schedule may leave cells out, and say of which it expects that they are done
        return sum(len(prepared.tasks[cell.task].test) for cell in getattr(schedule, "counted", todo))

    with progress("run", total if hasattr(schedule, "counted") else total(), "predictions") as advance:
        for cell in todo if schedule is None else schedule(todo, store):
            running.cell(cell, advance)
    if schedule is not None:
        prepared.left_out = frozenset(cell.key for cell in prepared.cells) - store.finished().keys()
    if prepared.work is not None and prepared.work.is_dir():
        shutil.rmtree(prepared.work, ignore_errors=True)


def _failed(cells: Sequence[Cell], store: RunStore) -> list[tuple[Cell, list[int]]]:
    """The cells with items to be asked for again, and their positions: an endpoint gave no answer, or an error left them without one. A cell
    whose fit failed is forgotten, so that it is done again as a whole."""
    found = []
    for cell in cells:
        unanswered = store.unanswered(cell.key)
        if any(str(p.why).startswith(guarded.FIT_FAILED) for p in unanswered.values()):
            store.forget(cell.key)
        elif positions := [at for at, p in unanswered.items() if p.lost or _ERROR.match(str(p.why))]:
            found.append((cell, positions))
    return found


class _Running:
    """One session of a run, and what its models have cost so far. saves: whether predictors are saved."""

    def __init__(self, prepared: Prepared, store: RunStore, max_cost: float | None, *, saves: bool = True) -> None:
        self.prepared, self.store, self.max_cost, self.saves = prepared, store, max_cost, saves
        self.work = Work()
        prepared.work = store.folder / TRAINING

    def cell(self, cell: Cell, advance: Any) -> None:
        data, pool = self.prepared.tasks[cell.task], self.prepared.pool(cell)
        started = time.perf_counter()
        lm = self._lm(cell)
        with self._counted(cell, lm, pool):
            predictor, failure = guarded.fit(self.prepared, cell, pool, lm)
        fit_s = time.perf_counter() - started
        done = self.store.units(cell.key)
        predict_s = sum(done.values())
        planned: TokenCounts | None = TokenCounts(0, 0)
        for number, part in enumerate(units(len(data.test), cell)):
            started = time.perf_counter()
            with self._counted(cell, lm, data.test[part.start : part.stop]):  # to plan is to retrieve
                counts = guarded.plan(predictor, data.test[part.start : part.stop])
            planned = planned + counts if planned is not None and counts is not None else None
            if number not in done:
                predict_s += self._unit(cell, (predictor, failure), pool, (number, part), started)
            advance(len(part))
        path = self._kept(cell, predictor, is_fresh=len(done) < len(units(len(data.test), cell)))
        facts = self._facts(cell, predictor, pool, planned) | {"predictor": path}
        if path is not None and data.task.kind == "classify" and (data.task.grouped or data.entry.label_bias):
            queries = content_free(data.task.inputs)
            with self._counted(cell, lm, queries):
                facts["label_bias"] = bias_record(predictor, queries, data.task.labels)
        timed = {"fit_s": fit_s, "predict_s": predict_s, "peak_memory_mb": peak_memory_mb()}
        training = getattr(predictor, "training", None)
        self.store.finish_cell(cell.key, facts, timed if training is None else {**timed, "training": training})
        self.work.forget(predictor)

    def _unit(self, cell: Cell, fitted: tuple[Any, str | None], pool: Sequence[Example], unit: tuple[int, range], started: float) -> float:
        """Predict and store a unit. fitted: as of `_fit`. started: when its planning began. Returns the seconds since then."""
        (predictor, failure), (number, part) = fitted, unit
        items, store = self.prepared.tasks[cell.task].test, self.store
        # What is fitted on the items that are predicted together must see all of them, however often the run was stopped.
        known = {} if _is_transductive(predictor) else store.stored(cell.key, part)
        if predictor is None:
            answers = dict(zip(part, guarded.unscored(items[part.start : part.stop], str(failure)), strict=True))
        else:
            answers = self._predict(predictor, cell, {at: items[at] for at in part if at not in known})
        seconds = time.perf_counter() - started
        if predictor is not None:
            self._keep_seen(predictor, cell, pool, unit, {**known, **answers})
        if known:  # of a unit that was cut short, where each item stands for itself
            store.put(cell.key, answers)
            answers = {}
        store.add_unit(cell.key, number, part.start, list(answers.values()), seconds)
        return seconds

    def _kept(self, cell: Cell, predictor: Any, *, is_fresh: bool) -> str | None:
        """Where the predictor was saved; None if it was not. is_fresh: it has predicted in this process."""
        path = predictor_path(self.prepared.loaded, cell, self.prepared.seed) if predictor is not None and self.saves else None
        if path is None:
            return None
        if not is_fresh and any(getattr(predictor, name, None) is not None for name in ("calibration", "abstaining")):
            # It is fitted at the first prediction, which an earlier process made: without this it would not be saved.
            items = self.prepared.tasks[cell.task].test
            guarded.predict(predictor, items[: len(units(len(items), cell)[0])], cell)
        return self._save(predictor, cell, path)

    def _facts(self, cell: Cell, predictor: Any, pool: Sequence[Example], planned: TokenCounts | None) -> dict[str, Any]:
        """What results.json says of a cell beside its figures."""
        seen = {example.target for example in pool}
        labels = self.prepared.tasks[cell.task].task.labels
        facts = {
            "n_labelled": len(pool),
            "labels_missing": [label for label in labels if label not in seen] if pool else [],
            "tokens_computed": planned.computed if planned else None,
            "tokens_naive": planned.naive if planned else None,
            "estimator": guarded.estimator(predictor),
            "readouts": readouts_of(predictor),
        }
        levels = self.prepared.levels(cell)
        if levels is not None and self.prepared.loaded.suite.crossed:
            sizes = self.prepared.loaded.suite.seed_sizes or {}
            facts |= {"seeds": levels, "replicate": replicate_of(levels, sizes)}
        return facts

    def _keep_seen(
        self, predictor: Any, cell: Cell, pool: Sequence[Example], unit: tuple[int, range], answers: Mapping[int, Prediction]
    ) -> None:
        """For the report, so no fault here fails a run. Before the unit itself, so that a unit that is there has all it needs."""
        number, part = unit
        items, predictions = self.prepared.tasks[cell.task].test, [answers[at] for at in part]
        try:
            prompts = prompts_of(predictor, [items[at] for at in part], predictions)
            rows = shown_rows(pool, prompts, predictions)
            texts = {at: None if prompt is None else prompt.text for at, prompt in zip(part, prompts, strict=True)}
        except Exception as error:
            note(f"{cell}: the report will lack the prompts of {len(part)} items: {guarded.reason(error)}")
            return
        self.store.add_seen(cell.key, number, cell.task, rows, texts)

    def retry(self, cell: Cell, positions: Sequence[int], advance: Any, *, is_finished: bool) -> None:
        """Ask again for items that have no answer; what fails once more keeps its newer reason."""
        items = self.prepared.tasks[cell.task].test
        lm, pool = self._lm(cell), self.prepared.pool(cell)
        with self._counted(cell, lm, pool):
            predictor, failure = guarded.fit(self.prepared, cell, pool, lm)
        if predictor is None or _is_transductive(predictor):
            note(f"{cell}: {failure or 'fitted on the items that are predicted together, so single ones are not asked for again'}")
            return
        for start in range(0, len(positions), UNIT_ITEMS):
            part = positions[start : start + UNIT_ITEMS]
            self.store.put(cell.key, self._predict(predictor, cell, {at: items[at] for at in part}))
            advance(len(part))
        path = predictor_path(self.prepared.loaded, cell, self.prepared.seed)
        if path is not None and is_finished:
            self._save(predictor, cell, path)

    def _predict(self, predictor: Any, cell: Cell, queries: Mapping[int, Example]) -> dict[int, Prediction]:
        """Predictions by position. What was answered before the cost limit was reached, or an endpoint went down, is stored at once."""
        if not queries:
            return {}
        own = predictor if hasattr(predictor, "totals") else None  # a trained method that is a model itself
        with self._counted(cell, own or getattr(predictor, "lm", None) or self._lm(cell), list(queries.values())):
            try:
                whole = guarded.predict(predictor, list(queries.values()), cell)
                answers: Sequence[Prediction | None] = whole
                stop: IclError | None = _is_down(whole)
            except CostLimitError as error:
                answers, stop = error.results or (None,) * len(queries), error
            found = {at: p for at, p in zip(queries, answers, strict=True) if p is not None and not (stop and p.lost)}
            if stop is not None:
                self.store.put(cell.key, found)
                raise stop
        return found

    def _lm(self, cell: Cell) -> LanguageModel | None:
        return self.prepared.lm(cell.model) if cell.model is not None else None

    @contextmanager
    def _counted(self, cell: Cell, lm: LanguageModel | None, rows: Sequence[Example] = ()) -> Iterator[None]:
        """Note what the model, and an encoder behind an address, do in the block, however the block ends, and let them spend no more than is
        left. rows: what the encoder may have to embed."""
        if self.max_cost is not None:
            self._limit(lm, rows, self.max_cost)
        try:
            yield
        finally:
            for each in (lm, self.prepared.paid_encoder):
                if counts := self.work.since(each):
                    self.store.add_work(cell.key, counts)

    def _limit(self, lm: LanguageModel | None, rows: Sequence[Example], max_cost: float) -> None:
        encoder = self.prepared.paid_encoder
        spent = sum(cost_of(counts) for _, counts in self.store.work())
        left = max(0.0, max_cost - spent - sum(cost_of(self.work.peek(each)) for each in (lm, encoder) if each is not None))
        share_out(left, lm, encoder, rows)

    def _save(self, predictor: Any, cell: Cell, path: str) -> str | None:
        """Where it was saved; None where its calibration is transductive, or that or a threshold could not be fitted, or no rationale came out
        right: then there is nothing to ship."""
        if getattr(predictor, "unusable", None) is not None:
            return None
        calibration, abstaining = (getattr(predictor, name, None) for name in ("calibration", "abstaining"))
        if (calibration is not None and not calibration.can_save) or (abstaining is not None and abstaining.failed is not None):
            return None
        folder = self.store.folder / path
        if hasattr(predictor, "name"):
            predictor.name = cell.method
        folder.parent.mkdir(parents=True, exist_ok=True)
        predictor.save(folder)
        items = self.prepared.tasks[cell.task].test
        write_regression(folder, items[:N_REGRESSION], self.store.predictions(cell.key)[:N_REGRESSION])
        return path


N_REGRESSION = 8
"""Test items whose predictions go along with a saved predictor, so that whoever uses it can see that it still answers the same."""


def _is_transductive(predictor: Any) -> bool:
    return bool(getattr(getattr(predictor, "calibration", None), "is_transductive", False))


def _is_down(answers: Sequence[Prediction]) -> Stopped | None:
    """Stopped if the endpoint behind these answers is no longer asked at all, rather than to fail on all that is left."""
    why = next((p.why for p in answers if p.lost and str(p.why).startswith(NOT_SENT)), None)
    return None if why is None else Stopped(f"the endpoint does not answer: {why}")


def peak_memory_mb() -> float | None:
    """Largest resident size of this process so far, in MiB; None where the platform does not say."""
    try:
        import resource
    except ImportError:
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(size / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def plan_cells(prepared: Prepared, max_cost: float | None = None) -> Iterator[tuple[Cell, TokenCounts | None]]:
    """Each cell with the tokens it will take, without a single forward pass of the language model on its items.

    Prompts are built (the encoder embeds the rows, cached for the run itself); methods without a language model cost no tokens, and those
    that train one (`TRAINS` in their file) nobody knows beforehand. max_cost: money that endpoints may cost from when they were loaded, all
    together; CostLimitError is raised before it is passed.
    """
    for cell in prepared.cells:
        total: TokenCounts | None = None
        module = find("method", prepared.method(cell).spec.name, prepared.loaded.plugins).load()
        if cell.model is not None and not getattr(module, "TRAINS", False):
            data = prepared.tasks[cell.task]
            lm, pool = prepared.lm(cell.model), prepared.pool(cell)
            if max_cost is not None:
                share_out(prepared.left_of(max_cost), lm, prepared.paid_encoder, [*pool, *data.test])
            method = prepared.build(cell, lm)
            predictor = method.fit(pool, labels=data.task.labels, unlabelled=data.task.unlabelled)
            parts = [guarded.plan(predictor, data.test[part.start : part.stop]) for part in units(len(data.test), cell)]
            known = [part for part in parts if part is not None]
            total = sum(known, TokenCounts(0, 0)) if len(known) == len(parts) else None
        yield cell, total
