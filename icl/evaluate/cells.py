"""The cells of a run: every combination of model, task, method, label budget and seed that is to be judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ..files import safe_name
from ..plugins import find, needs_model
from ..values import canonical_json
from .crossed import indices
from .loading import LoadedSuite, MethodEntry
from .schema import ModelEntry, TaskEntry

Budget: TypeAlias = "int | Literal['all'] | None"


@dataclass(frozen=True, slots=True)
class Cell:
    """One fit and its predictions."""

    model: str | None
    """None: the method does not use the language model."""
    task: str
    method: str
    budget: Budget
    """None: the method needs no labels, so it runs once."""
    seed: int | None
    """None where the budget is."""

    @property
    def key(self) -> str:
        return canonical_json([self.model, self.task, self.method, self.budget, self.seed])

    @property
    def group(self) -> tuple[str | None, str, str, Budget]:
        """What the seeds of one figure have in common."""
        return self.model, self.task, self.method, self.budget

    def as_dict(self) -> dict[str, str | int | None]:
        return {"model": self.model, "task": self.task, "method": self.method, "budget": self.budget, "seed": self.seed}

    def __str__(self) -> str:
        parts = [self.task, self.method, self.model, None if self.budget is None else f"{self.budget} labels"]
        seed = None if self.seed is None else f"seed {self.seed}"
        return " · ".join(part for part in (*parts, seed) if part)


def needs(entry: MethodEntry, what: Literal["MODEL", "LABELS"], plugins: Sequence[Path]) -> bool:
    """Whether a method uses the language model, or labels. A file that does not say needs labels and no model."""
    if what == "MODEL":
        return needs_model(entry.spec, plugins)
    return bool(getattr(find("method", entry.spec.name, plugins).load(), "NEEDS_LABELS", True))


def cells(loaded: LoadedSuite, tasks: Sequence[TaskEntry] | None = None, seed: int = 0) -> Iterator[Cell]:
    """All cells, those without a language model first, then model by model, so that each model is loaded once.

    seed: the first seed; the others follow it. Where seeds are crossed a method has a run for each combination of those that play a part in
    it (`crossed.levels_of` says which is which). A method that needs no labels runs once per task (and model), one that uses no language
    model once and not per model.
    """
    models: tuple[ModelEntry | None, ...] = (None, *loaded.suite.model_entries)
    for model in models:
        for task in tasks if tasks is not None else loaded.suite.tasks:
            for entry in loaded.methods:
                if not entry.does(task.name) or needs(entry, "MODEL", loaded.plugins) is (model is None):
                    continue
                key = model.key if model else None
                if not needs(entry, "LABELS", loaded.plugins):
                    yield Cell(key, task.name, entry.name, None, None)
                    continue
                seeds = [seed + index for index in _runs(loaded, entry)]
                for budget in loaded.suite.budgets:
                    for s in seeds:
                        yield Cell(key, task.name, entry.name, budget, s)


def _runs(loaded: LoadedSuite, entry: MethodEntry) -> Iterator[int]:
    """Numbers of a method's runs."""
    if isinstance(loaded.suite.seeds, int):
        yield from range(loaded.suite.seeds)
        return
    yield from indices(loaded.suite.seeds.sizes, chance_of(entry, loaded.plugins))


def chance_of(entry: MethodEntry, plugins: Sequence[Path]) -> frozenset[str]:
    """Sources of chance that play a part in a method: `CHANCE` in its file, else the draw of the labels and the training."""
    found: frozenset[str] = getattr(find("method", entry.spec.name, plugins).load(), "CHANCE", frozenset({"train"}))
    return found | {"draw"}


def predictor_path(loaded: LoadedSuite, cell: Cell, seed: int) -> str | None:
    """Where the predictor of a cell is kept, relative to the run folder: that of the largest budget and first seed, else None.

    `predictors/METHOD`, with a folder for the task and one for the model where there are several.
    """
    if cell.budget is not None and (cell.budget != loaded.suite.budgets[-1] or cell.seed != seed):
        return None
    parts = ["predictors"]
    if len(loaded.suite.tasks) > 1:
        parts.append(safe_name(cell.task))
    if cell.model is not None and len(loaded.suite.models) > 1:
        parts.append(safe_name(cell.model))
    return "/".join([*parts, safe_name(cell.method)])
