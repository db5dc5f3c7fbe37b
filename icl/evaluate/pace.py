"""Which cells of a comparison are done, and when it ends: draw by draw, within the time there is, or until the answer is settled."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, Problem
from ..progress import note
from ..values import Example, Prediction
from .cells import Budget, Cell
from .intervals import statistic
from .scoring import item_values
from .sequential import LEVEL, look
from .store import RunStore
from .verdicts import keep, recall

if TYPE_CHECKING:
    from .prepare import Prepared

LATE = 1.1
"""A cell of the first draw is begun as long as it is expected to end within this many times the time."""
TIME, SETTLED = "time", "settled"


@dataclass
class Pace:
    """A `loop.Schedule`.

    The first draw of the labels comes first: the largest label budget, then smaller ones, cheap methods first. Another draw is begun only
    if all of it is expected to fit; draws beyond the plan fill the time that is left. What is expected is the estimate, times what earlier cells of the same method took by theirs.
    """

    seconds: Mapping[tuple[str, int | None], float]
    """(method, label budget) -> seconds expected for a cell."""
    limit: float
    """Seconds that all may take, from `started` on."""
    started: float
    """By `time.perf_counter`."""
    first: int = 0
    """The seed of the first draw."""
    planned: int | None = None
    """Draws that belong to the plan; None: all."""
    reserve: float = 0.0
    """Share of the limit that a draw beyond the plan leaves free."""
    until: Looks | None = None
    """If given: end after the draw with which the answer is settled."""
    left_out: frozenset[str] | None = None
    """Cells that an earlier session, which came to its end, left out: nothing is added."""
    why: str | None = None
    """How it ended before everything was done: `time` or `settled`."""
    expected: dict[str, list[float]] = field(default_factory=dict)
    """Method -> [seconds expected, seconds taken] of the cells done."""
    counted: list[Cell] = field(default_factory=list)
    """Of the cells that were to be done: those of the plan, and of draws beyond it that were begun."""

    def __call__(self, todo: Sequence[Cell], store: RunStore) -> Iterator[Cell]:
        if self.left_out is not None:
            yield from (cell for cell in todo if cell.key not in self.left_out)
            return
        done = store.finished()
        before = sum(clock["fit_s"] + clock["predict_s"] for _, clock in done.values())
        begun_draws = {Cell(*json.loads(key)).seed for key in done}
        missed: set[str] = set()
        self.counted += [cell for cell in todo if not self.is_beyond(cell)]
        for seed in sorted({self._draw(cell) for cell in todo}):
            cells = sorted((cell for cell in todo if self._draw(cell) == seed), key=self._rank)
            if seed != self.first and seed not in begun_draws:
                if self.until is not None and self.until.settled(store):
                    self.why = SETTLED
                    return
                beyond = self.is_beyond(cells[0])
                if self._used(before) + sum(map(self._expect, cells)) > self.limit * (1 - self.reserve if beyond else 1):
                    self.why = self.why if beyond else TIME
                    return
                self.counted += cells if beyond else []
            for cell in cells:
                expected = self._expect(cell)
                if cell.method in missed and seed != self.first:
                    continue
                if self._used(before) + expected > self.limit * LATE:
                    note(f"{cell}: left out, since it is expected to take {expected:.0f} s more")
                    missed.add(cell.method)
                    self.why = self.why if self.is_beyond(cell) else TIME
                    continue
                begun = time.perf_counter()
                yield cell
                self._learn(cell, time.perf_counter() - begun)

    def is_beyond(self, cell: Cell) -> bool:
        """Whether a cell belongs to a draw that was not planned."""
        return self.planned is not None and self._draw(cell) >= self.first + self.planned

    def _draw(self, cell: Cell) -> int:
        """What needs no labels belongs to the first draw."""
        return self.first if cell.seed is None else cell.seed

    def _rank(self, cell: Cell) -> tuple[float, float]:
        """A method that needs no labels competes at the largest label budget too."""
        return -(cell.budget if isinstance(cell.budget, int) else math.inf), self._expect(cell)

    def _used(self, before: float) -> float:
        return before + time.perf_counter() - self.started

    def _expect(self, cell: Cell) -> float:
        budget = cell.budget if isinstance(cell.budget, int) else None
        return self.seconds.get((cell.method, budget), 0.0) * self._factor(cell.method)

    def _factor(self, method: str) -> float:
        """How much longer than expected cells took: of this method, else of all."""
        expected, taken = self.expected.get(method) or [sum(parts) for parts in zip(*self.expected.values(), strict=True)] or (0.0, 0.0)
        return taken / expected if expected > 0 and taken > 1.0 else 1.0

    def _learn(self, cell: Cell, taken: float) -> None:
        budget = cell.budget if isinstance(cell.budget, int) else None
        seen = self.expected.setdefault(cell.method, [0.0, 0.0])
        seen[0] += self.seconds.get((cell.method, budget), 0.0)
        seen[1] += taken


@dataclass(frozen=True)
class Looks:
    """Looks at the methods after each draw, at the largest label budget."""

    metric: Any
    examples: Sequence[Example]
    budget: Budget
    draws: int
    """That are planned."""
    margin: float
    task: str | None = None
    """None: the run has but one."""

    def settled(self, store: RunStore) -> bool:
        """Whether every method is told apart from the best one, or known to differ from it by no more than the margin. The chance to be
        wrong is 5 % over all looks and all pairs of methods."""
        sign = 1.0 if getattr(self.metric, "higher_is_better", True) else -1.0
        recall([self.metric], store)  # what an earlier session found out at a cost
        cells, n_draws = self._cells(store), self.n_draws(store)
        values = {name: sign * self._values(store, keys) for name, keys in cells.items()}
        keep([self.metric], store)
        for name, keys in cells.items():
            if Cell(*json.loads(keys[0])).seed is None:  # it learns nothing, so one run stands for all
                values[name] = np.repeat(values[name], n_draws, axis=0)
        return settled(values, self.draws, self.margin)

    def n_draws(self, store: RunStore) -> int:
        """Draws of the labels that are done."""
        return max(map(len, self._cells(store).values()), default=0)

    def has_draws(self, store: RunStore) -> bool:
        """Whether any method learns from labels; the others run once, whatever is planned."""
        cells = (Cell(*json.loads(key)) for key in store.finished())
        return any(cell.seed is not None for cell in cells if self.task in (cell.task, None))

    def _cells(self, store: RunStore) -> dict[tuple[str | None, str], list[str]]:
        """(model, method) -> its finished cells at the largest label budget, in order of seeds."""
        found: dict[tuple[str | None, str], list[tuple[int, str]]] = {}
        for key in store.finished():
            cell = Cell(*json.loads(key))
            if cell.budget in (self.budget, None) and self.task in (cell.task, None):
                found.setdefault((cell.model, cell.method), []).append((cell.seed or 0, key))
        return {name: [key for _, key in sorted(cells)] for name, cells in found.items()}

    def _values(self, store: RunStore, cells: Sequence[str]) -> NDArray[np.float64]:
        return np.stack([worth_of_items(self.metric, store.predictions(key), self.examples) for key in cells])


def worth_of_items(metric: Any, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
    """(n,) what each item is worth, so that the mean is the metric's figure; nan where it could not be scored.

    Of a metric that is no mean over items these are the jackknife's pseudo-values, n · figure - (n - 1) · figure without the item
    (Tukey 1958, doi:10.1214/aoms/1177706647): their mean is the figure less its bias, their spread its standard error.
    """
    values = item_values(metric, predictions, examples)
    at = np.flatnonzero(~np.isnan(values))
    if not hasattr(metric, "aggregate") or len(at) < 2:
        return values
    figure, n = statistic(metric, values, predictions, examples), len(at)
    whole = float(figure(at[None])[0])
    for part in np.array_split(np.arange(n), 1 + n * n // 4_000_000):  # 32 MB of positions at once
        without = np.stack([np.delete(at, k) for k in part])
        values[at[part]] = n * whole - (n - 1) * figure(without)
    return np.where(np.isfinite(values), values, np.nan)


def settled(values: Mapping[Any, NDArray[np.float64]], draws: int, margin: float) -> bool:
    """values: per method (n_runs, n_items), higher is better, in order of draws. draws: that the plan has. At least two must be there.

    A method that missed later draws, for want of time, is compared on those it has, and with one alone nothing is settled.
    """
    n_runs = max(map(len, values.values()), default=0)
    if min(map(len, values.values()), default=0) < 2:
        return False
    if len(values) < 2:
        return True
    worst = min((float(np.nanmin(v)) for v in values.values() if not np.isnan(v).all()), default=0.0)
    best = max(
        (name for name, v in values.items() if len(v) == n_runs),
        key=lambda name: float(np.where(np.isnan(values[name]), worst, values[name]).mean()),
    )
    level = LEVEL / len(list(combinations(values, 2)))
    return all(
        look(values[best][: len(other)] - other, [(n + 1) / draws for n in range(len(other))], margin, adding="runs", level=level).verdict
        in ("ours", "theirs", "level")
        for name, other in values.items()
        if name != best
    )


@dataclass(frozen=True)
class UntilSettled:
    """A `loop.Schedule` for any suite: all cells of a draw, then those of the next, of the tasks that are not settled yet."""

    looks: Mapping[str, Looks]
    """Task -> how it is looked at."""
    first: int = 0
    """The seed of the first draw."""

    @classmethod
    def of(cls, prepared: Prepared, margin: float) -> UntilSettled:
        """Every task by its first metric that ranks methods. margin: a difference that does not matter."""
        suite = prepared.loaded.suite
        looks = {}
        for name, data in prepared.tasks.items():
            metric = next((each for each in data.metrics.values() if getattr(each, "ranked", True)), None)
            if metric is None:
                fix = "Judge by another metric too, or run without --until-decided."
                raise InputError(Problem(f"no metric of task '{name}' says which method is better", fix, field="until_decided"))
            looks[name] = Looks(metric, data.test, suite.budgets[-1], suite.n_draws, margin, name)
        return cls(looks, prepared.seed)

    def ended(self, store: RunStore) -> list[dict[str, Any]]:
        """The tasks that got fewer draws than planned."""
        done = {name: looks.n_draws(store) for name, looks in self.looks.items()}
        return [
            {"task": name, "draws": done[name], "planned": looks.draws, "margin": looks.margin}
            for name, looks in self.looks.items()
            if done[name] < looks.draws and looks.has_draws(store)
        ]

    def __call__(self, todo: Sequence[Cell], store: RunStore) -> Iterator[Cell]:
        cells = [Cell(*json.loads(key)) for key in store.finished()]
        begun = {(cell.task, cell.seed) for cell in cells}  # by an earlier session: such a draw is finished before the next look
        closed: set[str] = set()
        for seed in range(self.first, self.first + max(looks.draws for looks in self.looks.values())):
            now = [cell for cell in todo if (self.first if cell.seed is None else cell.seed) == seed]
            at_look = {cell.task for cell in now if seed > self.first and (cell.task, seed) not in begun}
            closed |= {task for task in at_look - closed if self.looks[task].settled(store)}
            yield from (cell for cell in now if cell.task not in closed)
