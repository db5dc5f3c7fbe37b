"""The one run loop: cell by cell fit, predict in planned units, and store every item's result.

A unit (a fixed range of a cell's items) is predicted in one call and committed in one transaction. A run that goes on after an
interruption computes the missing units whole, so batches, and with them the last bits of floats, are those of an uninterrupted run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import IclError, InputError
from ..methods import write_regression
from ..progress import note, progress
from ..values import Example, Prediction, TokenCounts
from .cells import Cell, predictor_path
from .prepare import Prepared
from .store import RunStore

UNIT_ITEMS = 32
"""Items of a unit of a method with a language model: some ten seconds of work, and enough to fill batches."""
UNIT_ITEMS_LIGHT = 256
"""The same for methods without one."""


def units(n_items: int, cell: Cell) -> list[range]:
    """The ranges of item positions that are predicted together."""
    size = UNIT_ITEMS if cell.model is not None else UNIT_ITEMS_LIGHT
    return [range(start, min(start + size, n_items)) for start in range(0, n_items, size)]


def run_cells(prepared: Prepared, store: RunStore) -> None:
    """Do all that is not in the store yet. KeyboardInterrupt passes; what was committed before it stays."""
    finished = store.finished()
    todo = [cell for cell in prepared.cells if cell.key not in finished]
    total = sum(len(prepared.tasks[cell.task].test) for cell in todo)
    with progress("run", total, "predictions") as advance:
        for cell in todo:
            _run_cell(prepared, store, cell, advance)


def _run_cell(prepared: Prepared, store: RunStore, cell: Cell, advance: Any) -> None:
    data = prepared.tasks[cell.task]
    items = data.test
    pool = prepared.pool(cell)
    started = time.perf_counter()
    predictor, failure = _fit(prepared, cell, pool)
    fit_s = time.perf_counter() - started
    planned: TokenCounts | None = TokenCounts(0, 0)
    done = store.units(cell.key)
    predict_s = sum(done.values())
    for number, part in enumerate(units(len(items), cell)):
        queries = items[part.start : part.stop]
        started = time.perf_counter()
        counts = _planned(predictor, queries)
        planned = planned + counts if planned is not None and counts is not None else None
        if number not in done:
            answers = _predict(predictor, queries, cell) if predictor is not None else _unscored(queries, str(failure))
            seconds = time.perf_counter() - started
            store.add_unit(cell.key, number, part.start, answers, seconds)
            predict_s += seconds
        advance(len(queries))
    path = predictor_path(prepared.loaded, cell, prepared.seed) if predictor is not None else None
    if path is not None:
        if len(done) == len(units(len(items), cell)):
            # A calibration is fitted at the first prediction, which an earlier process made: without this it would not be saved.
            _predict(predictor, items[: len(units(len(items), cell)[0])], cell)
        _save(predictor, store.folder / path, cell)
        write_regression(store.folder / path, items[:N_REGRESSION], store.predictions(cell.key)[:N_REGRESSION])
    seen = {example.target for example in pool}
    facts = {
        "n_labelled": len(pool),
        "labels_missing": [label for label in data.task.labels if label not in seen] if pool else [],
        "tokens_computed": planned.computed if planned else None,
        "tokens_naive": planned.naive if planned else None,
        "predictor": path,
    }
    store.finish_cell(cell.key, facts, {"fit_s": fit_s, "predict_s": predict_s, "peak_memory_mb": peak_memory_mb()})


N_REGRESSION = 8
"""Test items whose predictions go along with a saved predictor, so that whoever uses it can see that it still answers the same."""


def _fit(prepared: Prepared, cell: Cell, pool: Sequence[Example]) -> tuple[Any, str | None]:
    """(the predictor, None), or (None, why there is none). What the user can mend (an InputError) stops the run."""
    task = prepared.tasks[cell.task].task
    lm = prepared.lm(cell.model) if cell.model is not None else None
    try:
        return prepared.build(cell, lm).fit(pool, labels=task.labels, unlabelled=task.unlabelled), None
    except IclError:
        raise
    except Exception as error:  # one method's fault must not take the others with it
        why = f"fitting failed: {_reason(error)}"
        note(f"{cell}: {why}")
        return None, why


def _predict(predictor: Any, queries: Sequence[Example], cell: Cell) -> list[Prediction]:
    """A unit at once; if that raises, item by item, and those that raise again are unscored with the reason."""
    try:
        return _checked(predictor.predict(queries), queries)
    except Exception as error:
        if isinstance(error, IclError) and not isinstance(error, InputError):
            raise
        note(f"{cell}: {_reason(error)}; trying its {len(queries)} items one by one")
    answers = []
    for query in queries:
        try:
            answers += _checked(predictor.predict([query]), [query])
        except Exception as error:
            answers += _unscored([query], _reason(error))
    return answers


def _checked(answers: Sequence[Prediction], queries: Sequence[Example]) -> list[Prediction]:
    """Raises ValueError unless there is one prediction per query, in order."""
    if [answer.uid for answer in answers] != [query.uid for query in queries]:
        raise ValueError(f"{len(answers)} predictions for {len(queries)} queries, or in another order")
    return list(answers)


def _unscored(queries: Sequence[Example], why: str) -> list[Prediction]:
    return [Prediction(query.uid, None, why=why) for query in queries]


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _planned(predictor: Any, queries: Sequence[Example]) -> TokenCounts | None:
    """Tokens of a unit from a cold start; None for a method that has no plan."""
    if not hasattr(predictor, "plan"):
        return None
    try:
        counts: TokenCounts = predictor.plan(queries)
    except Exception:  # what cannot be planned cannot be predicted either, and that is where it is reported
        return None
    return counts


def _save(predictor: Any, folder: Path, cell: Cell) -> None:
    if hasattr(predictor, "name"):
        predictor.name = cell.method
    folder.parent.mkdir(parents=True, exist_ok=True)
    predictor.save(folder)


def peak_memory_mb() -> float | None:
    """Largest resident size of this process so far, in MiB; None where the platform does not say."""
    try:
        import resource
    except ImportError:
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(size / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def plan_cells(prepared: Prepared) -> Iterator[tuple[Cell, TokenCounts | None]]:
    """Each cell with the tokens it will take, without a single forward pass of the language model on its items.

    Prompts are built (the encoder embeds the rows, cached for the run itself); methods without a language model cost no tokens.
    """
    for cell in prepared.cells:
        total: TokenCounts | None = None
        if cell.model is not None:
            data = prepared.tasks[cell.task]
            method = prepared.build(cell, prepared.lm(cell.model))
            predictor = method.fit(prepared.pool(cell), labels=data.task.labels, unlabelled=data.task.unlabelled)
            parts = [_planned(predictor, data.test[part.start : part.stop]) for part in units(len(data.test), cell)]
            known = [part for part in parts if part is not None]
            total = sum(known, TokenCounts(0, 0)) if len(known) == len(parts) else None
        yield cell, total
