"""From a checked suite to everything a run needs before its first prediction: tasks without leaks, encoders, metrics, manifest.

What is wrong with the data is found here, before any work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem, suggest
from ..plugins import Context, build, find, needs_model
from ..progress import note
from ..protocols import Encoder, LanguageModel, MethodContext
from ..seeds import seed_for
from ..values import Example, Spec, digest
from .cells import Cell, cells, chance_of, needs
from .check import kind_problems, metrics_for
from .crossed import levels_of
from .derive import with_derived
from .digests import base_digests, plugin_digests, saved_digests, specs
from .loading import LoadedSuite, MethodEntry, all_methods, answer_schema, problem_at, stage_encoders
from .manifest import manifest
from .schema import ModelEntry, TaskEntry
from .work import cost_of, measured

if TYPE_CHECKING:
    from ..data import Leaks, Task


@dataclass(frozen=True)
class TaskData:
    """A task as it is judged."""

    entry: TaskEntry
    task: Task
    """After the leak guard."""
    test: tuple[Example, ...]
    """The items judged, in the order of the file: all test items, or `limit` of them."""
    leaks: Leaks
    metrics: Mapping[str, Any]
    """Metric name -> the metric."""
    templates: Mapping[str, str]
    """Template -> its digest."""


@dataclass
class Prepared:
    """A run before its first cell."""

    loaded: LoadedSuite
    tasks: dict[str, TaskData]
    seed: int
    limit: int | None
    encoders: dict[str, Encoder] = field(default_factory=dict)
    cache: bool = False
    """Whether language models look up and keep what they computed on disk."""
    work: Path | None = None
    """Where methods keep the checkpoints of their training, each cell in a folder of its own."""
    models: Mapping[str, LanguageModel] = field(default_factory=dict)
    """Language models that are loaded already, by the suite's names for them."""
    left_out: frozenset[str] = frozenset()
    """Keys of cells that are not to be done."""
    _lm: tuple[str, LanguageModel] | None = None
    _remote: dict[str, LanguageModel] = field(default_factory=dict)

    @property
    def cells(self) -> list[Cell]:
        every = cells(self.loaded, [data.entry for data in self.tasks.values()], self.seed)
        return [cell for cell in every if cell.key not in self.left_out]

    def method(self, cell: Cell) -> MethodEntry:
        return next(entry for entry in self.loaded.methods if entry.name == cell.method)

    def model_entry(self, key: str) -> ModelEntry:
        return next(entry for entry in self.loaded.suite.model_entries if entry.key == key)

    def lm(self, key: str) -> LanguageModel:
        """The language model of that name. One on this machine is kept at a time, since cells go model by model; endpoints are all kept."""
        from ..model import load_model

        if key in self.models:
            return self.models[key]
        entry = self.model_entry(key)
        if entry.remote:
            if key not in self._remote:
                tokenizer = {"tokenizer": self.loaded.beside(entry.tokenizer)} if entry.tokenizer else {}
                self._remote[key] = load_model(entry.model, **{**entry.options(), **tokenizer})
            return self._remote[key]
        if self._lm is None or self._lm[0] != key:
            self._lm = None
            self._lm = key, load_model(self.loaded.beside(entry.model), cache=self.cache, **entry.options())
        return self._lm[1]

    @property
    def paid_encoder(self) -> Any:
        """The suite's encoder if it is behind an address (`EndpointEncoder`), so that its tokens and money are counted; else None."""
        encoder = self.encoders.get(self.loaded.suite.encoder)
        return encoder if encoder is not None and hasattr(encoder, "usage") else None

    def left_of(self, max_cost: float) -> float:
        """What is left of a limit after all that the endpoints have cost since they were loaded."""
        endpoints = [each for each in (*self.models.values(), *self._remote.values(), self.paid_encoder) if each is not None]
        return max(0.0, max_cost - sum(cost_of(measured(each)) for each in endpoints))

    def levels(self, cell: Cell) -> dict[str, int] | None:
        """Which value each source of chance has in a cell; None where one seed varies them all, or the method needs no labels."""
        sizes = self.loaded.suite.seed_sizes
        return None if sizes is None or cell.seed is None else levels_of(cell.seed - self.seed, sizes)

    def seeds(self, cell: Cell) -> tuple[int, int | None]:
        """(the seed of a method, that of the order of its demonstrations where it is another one)."""
        levels = self.levels(cell)
        if levels is None:
            return cell.seed if cell.seed is not None and self.loaded.suite.seed_sizes is None else self.seed, None
        shows = "demonstrations" in chance_of(self.method(cell), self.loaded.plugins)
        return self.seed + levels["demonstrations" if shows else "train"], self.seed + levels["order"] if shows else None

    def context(self, cell: Cell, lm: LanguageModel | None) -> MethodContext:
        """What the method of a cell is built with."""
        data = self.tasks[cell.task]
        seed, order_seed = self.seeds(cell)
        return MethodContext(
            kind=data.task.kind,
            inputs=data.task.inputs,
            labels=data.task.labels,
            seed=seed,
            order_seed=order_seed,
            lm=lm,
            encoder=self.encoders.get(self.loaded.suite.encoder, self.loaded.suite.encoder),
            template=self.loaded.template_path(data.entry.template),
            words=data.entry.words,
            template_folders=self.loaded.templates,
            format=self.model_entry(cell.model).format if cell.model is not None else "auto",
            plugin_folders=self.loaded.plugins,
            answer=answer_schema(self.loaded, data.entry),
            work=self.work / digest(cell.key) if self.work is not None else None,
        )

    def build(self, cell: Cell, lm: LanguageModel | None) -> Any:
        """The method of a cell."""
        return build(
            "method", self.loaded.resolved(self.method(cell).spec), self.context(cell, lm), self.loaded.plugins, f"methods.{cell.method}"
        )

    def pool(self, cell: Cell) -> list[Example]:
        """The labelled examples a cell may learn from; none for a method that needs none."""
        from ..data import draw

        task = self.tasks[cell.task].task
        levels = self.levels(cell)
        seed = (cell.seed or 0) if levels is None else self.seed + levels["draw"]
        return [] if cell.budget is None else draw(task.train, cell.budget, labels=task.labels, seed=seed)

    def manifest(self) -> dict[str, Any]:
        """Digests of everything that could change a result. Models and encoders are loaded for it where they are used."""
        models = {}
        for key in dict.fromkeys(cell.model for cell in self.cells if cell.model is not None):
            lm = self.lm(key)
            facts = {"fingerprint": lm.fingerprint, "dtype": lm.dtype, "device": lm.device, "window": lm.window}
            models[key] = {**facts, "estimator": lm.estimator, **_examined(lm)}
        if len(models) > 1:  # the first one runs first
            self._lm = None
        tasks = {
            name: {
                "data": data.task.digest,
                "kind": data.task.kind,
                "items": digest([example.uid for example in data.test]),
                "n_items": len(data.test),
                "templates": dict(data.templates),
                **({"answer": digest(schema)} if (schema := answer_schema(self.loaded, data.entry)) is not None else {}),
            }
            for name, data in self.tasks.items()
        }
        bases = base_digests(self.loaded)
        return manifest(
            uses_torch=bool(bases)
            or any(not self.model_entry(key).remote for key in models)
            or any("://" not in name for name in self.encoders),
            name=self.loaded.name,
            suite=self.loaded.digest,
            description=self.loaded.suite.description,
            plugins=plugin_digests(self.loaded),
            saved=saved_digests(self.loaded),
            seed=self.seed,
            limit=self.limit,
            tasks=tasks,
            models=models,
            encoders={name: encoder.fingerprint for name, encoder in self.encoders.items()},
            **({"bases": bases} if bases else {}),
        )


def _examined(lm: LanguageModel) -> dict[str, str]:
    """For a model on this machine: how it scores, and the power of ten that bounds how far that was from one plain sequence at a time."""
    found = getattr(lm, "examined", None)
    if found is None:
        return {}
    bound = f"1e{math.ceil(math.log10(found.deviation))}" if found.deviation else "0"
    approximation = getattr(lm, "approximation", None)
    return {"path": found.path, "deviation_nats": bound, **({"approximation": approximation} if approximation else {})}


def prepare(
    loaded: LoadedSuite,
    *,
    seed: int = 0,
    limit: int | None = None,
    data_root: str | Path | None = None,
    cache: bool = False,
    models: Mapping[str, LanguageModel] | None = None,
) -> Prepared:
    """Load the tasks, remove leaks, and check what only the data can tell. Raises InputError with every problem.

    seed: the first seed. limit: test items per task, chosen by a hash of their content, so that the order of the file does not matter.
    data_root: where local copies of hub data sets lie, for tasks that do not say. cache: as in `load_model`. models: as in `Prepared`.
    """
    problems: list[Problem] = []
    tasks: dict[str, TaskData] = {}
    for n, entry in enumerate(loaded.suite.tasks):
        try:
            tasks[entry.name] = _task(loaded, entry, n, limit, data_root)
        except InputError as error:
            problems += [_located(loaded, problem, n) for problem in error.problems]
    if problems:
        raise InputError(dict.fromkeys(problems))
    encoders = _encoders(loaded)
    return Prepared(loaded, tasks, seed, limit, encoders, cache, models=models or {})


def _read(loaded: LoadedSuite, entry: TaskEntry, data_root: str | Path | None) -> Task:
    """The task of an entry; an entry of a dict may hold one that is loaded already."""
    from ..data import Task

    if isinstance(entry.train, Task):
        return entry.train

    def resolved(source: Any) -> Any:
        return loaded.folder / source if isinstance(source, str | Path) and not str(source).startswith("hf:") else source

    root = loaded.folder / entry.data_root if entry.data_root is not None else data_root
    sources = {split: resolved(source) for split, source in entry.sources().items()}
    return Task.load(
        **(with_derived(sources, entry.derive, root) if entry.derive else sources),
        **{
            key: getattr(entry, key)
            for key in ("kind", "input", "label", "choices", "references", "rationale", "id", "holdout", "seed", "unseen", "groups")
        },
        name=entry.name,
        labels=tuple(entry.labels) if entry.labels is not None else None,
        data_root=root,
    )


def _task(loaded: LoadedSuite, entry: TaskEntry, n: int, limit: int | None, data_root: str | Path | None) -> TaskData:
    from ..data import leak_guard

    whole = _read(loaded, entry, data_root)
    task, leaks = leak_guard(whole)
    for warning in whole.warnings:
        note(f"{entry.name}: {warning}")
    problems = kind_problems(loaded, entry, task.kind)
    if answer_schema(loaded, entry) is not None and task.kind != "answer":
        problems.append(
            loaded.problem(f"'answer' describes records, and the task is of kind '{task.kind}'", "Take it out.", "tasks", n, "answer")
        )
    digests: dict[str, str] = {}
    for name, path in _templates_used(loaded, entry, n):
        try:
            digests[name] = _bound(loaded, entry, task, name)
        except InputError as error:
            problems += [p if p.file else problem_at(loaded.doc, p.message, p.fix, path) for p in error.problems]
    problems += _budget_problems(loaded, entry, len(task.train))
    problems += _abstain_problems(loaded, entry, task)
    if not task.test:
        problems.append(loaded.problem(f"task '{entry.name}' has no test items", "Give a test file with labelled rows.", "tasks", n))
    if problems:
        raise InputError(problems)
    context = Context(labels=task.labels, seed=entry.seed)
    metrics = {spec.name: build("metric", spec, context, loaded.plugins) for spec in metrics_for(loaded, task.kind)}
    return TaskData(entry, task, limited(task.test, limit or entry.limit), leaks, metrics, digests)


def limited(test: Sequence[Example], limit: int | None) -> tuple[Example, ...]:
    """At most `limit` items: those whose uids have the smallest hashes, in their own order."""
    if limit is None or limit >= len(test):
        return tuple(test)
    chosen = {example.uid for example in sorted(test, key=lambda e: (seed_for(0, "limit", e.uid), e.uid))[:limit]}
    return tuple(example for example in test if example.uid in chosen)


def _templates_used(loaded: LoadedSuite, entry: TaskEntry, n: int) -> list[tuple[str, tuple[str | int, ...]]]:
    """(template, place in the suite) of the templates that methods read for a task; none if no method prompts."""
    uses: list[tuple[str, tuple[str | int, ...]]] = []
    for method in loaded.methods:
        if not method.does(entry.name):
            continue
        for path, spec in all_methods(method.spec, loaded.plugins):
            if _prompts(spec, loaded.plugins):
                own = spec.settings.get("template")
                whole: tuple[str | int, ...] = ("methods", method.position, *path, "template")
                uses.append((own, whole) if isinstance(own, str) else (entry.template, ("tasks", n, "template")))
    return list(dict(uses).items())


def _prompts(spec: Spec, plugins: Sequence[Path]) -> bool:
    """Whether a method reads the task's template; one that trains a model of its own needs none of the suite."""
    settings = getattr(find("method", spec.name, plugins).load(), "Settings", None)
    return needs_model(spec, plugins) or (settings is not None and "template" in settings.model_fields)


def _bound(loaded: LoadedSuite, entry: TaskEntry, task: Task, name: str) -> str:
    """Check a template against the task as loaded; returns its digest."""
    from ..prompt import Template, bind

    template = Template.load(loaded.template_path(name), loaded.templates)
    bind(template, kind=task.kind, inputs=task.inputs, labels=task.labels, words=entry.words)
    return template.digest


def _budget_problems(loaded: LoadedSuite, entry: TaskEntry, n_train: int) -> list[Problem]:
    if not any(needs(method, "LABELS", loaded.plugins) for method in loaded.methods):
        return []
    return [
        loaded.problem(
            f"a label budget of {budget} is more than the {n_train} rows that task '{entry.name}' has to learn from",
            "Use a smaller one, or 'all'.",
            "budgets",
            position,
        )
        for position, budget in enumerate(loaded.doc.value.get("budgets", ()))
        if isinstance(budget, int) and budget > n_train
    ]


def _abstain_problems(loaded: LoadedSuite, entry: TaskEntry, task: Task) -> list[Problem]:
    """What a method answers instead of a withheld answer that is no label of the task: no item could ever be right."""
    found = []
    for method in loaded.methods:
        rule = method.spec.settings.get("abstain")
        label = rule.get("label") if isinstance(rule, Mapping) else None
        if label is not None and method.does(entry.name) and task.kind == "classify" and label not in task.labels:
            path = ("methods", method.position, method.spec.name, "abstain", "label")
            found.append(loaded.problem(f"task '{entry.name}' has no label '{label}'", suggest(str(label), task.labels), *path))
    return found


def _located(loaded: LoadedSuite, problem: Problem, n: int) -> Problem:
    """A problem of `Task.load` that names only a key of the task, with its place in the suite."""
    if problem.file is not None or problem.field is None:
        return problem
    path: tuple[str | int, ...] = ("tasks", n, problem.field)
    return problem if path not in loaded.doc.lines else loaded.problem(problem.message, problem.fix, *path)


def _encoders(loaded: LoadedSuite) -> dict[str, Encoder]:
    """The encoders of the suite's methods by name: of a method with an option `encoder`, that one, or the suite's."""
    from ..retrieve import load_encoder

    names: list[str] = []
    for _, spec in specs(loaded):
        settings = getattr(find("method", spec.name, loaded.plugins).load(), "Settings", None)
        if settings is not None and "encoder" in settings.model_fields:
            names.append(spec.settings.get("encoder") or loaded.suite.encoder)
            names += stage_encoders(spec.settings.get("retriever"))
    price = {loaded.suite.encoder: loaded.suite.encoder_price}
    return {name: load_encoder(loaded.beside(name), price=price.get(name)) for name in dict.fromkeys(names)}
