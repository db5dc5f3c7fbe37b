"""From what a user wrote (`knn`, `[{knn: {n: 64}}, mmr, balanced]`, a function, an index) to one function that finds demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError, Problem
from ..plugins import Asking, Context, Plugin, ScoreMany, find, parse_spec, settings_of
from ..protocols import Order, Retriever, Selector
from ..values import Example, Hit
from .filters import Filter, FilteredIndex, FilteredPool
from .guard import without_duplicates
from .index import DemoIndex
from .pools import LivePool
from .stages import Branch, Stage, Stages, checked


def build_retriever(
    retriever: Any,
    pool: Sequence[Example],
    *,
    index: Callable[[], DemoIndex],
    labels: Sequence[str],
    seed: int,
    folders: Sequence[Path] = (),
    count_tokens: Callable[[str], int] | None = None,
    score_many: ScoreMany | Asking | None = None,
) -> Stages:
    """One function (queries, k) -> hits, best first; its method `trace` also tells what each stage did.

    retriever: the name of a selector, a mapping from one name to its options, a list of such stages (the first finds candidates,
    as many as its option `n` says, each further one narrows them, the last leaves k), a function (queries, k) -> hits, or a
    DemoIndex (searched as it is at the moment of the call: rows added later are found). In a list a function stands for a stage and
    takes (queries, k, candidates). Filters that come first take rows out before anything is searched.
    pool: may be live too; selectors notice when rows are added or removed. index: called when a selector first needs it.
    score_many: for stages that ask the language model, see `plugins.Context`; with an `Asking` they also keep what they learned.

    A query that is a row of a task never gets its own row, nor one with the same normalised text; a query that a user typed
    (`values.as_query`) may get an exact match. Raises InputError for unknown names and options.
    """
    if isinstance(retriever, DemoIndex):
        live = retriever
        pool, index, retriever = LivePool(live), lambda: live, "knn"
    elif callable(retriever):
        stage = Stage(_name(retriever), without_duplicates(_as_selector(retriever)))
        return Stages(pool, (), lambda filters: Branch(pool, [stage]))
    written = list(retriever) if isinstance(retriever, list | tuple) else [retriever]
    if not written:
        raise InputError(Problem("a retriever needs at least one stage", "Write for example 'knn'.", field="retriever"))
    context = _asking(
        Context(pool=pool, index=LazyIndex(index), labels=tuple(labels), seed=seed, count_tokens=count_tokens, folders=tuple(folders)),
        score_many,
    )
    counted = None if context.score_many is None else _Counted(context.score_many)
    context = replace(context, score_many=counted)
    places = [None if len(written) == 1 else f"retriever.{i}" for i in range(len(written))]
    stages = [_stage(value, context, place) for value, place in zip(written, places, strict=True)]
    n_filters = next((i for i, stage in enumerate(stages[:-1]) if stage.filter is None), len(stages) - 1)

    def branch(filters: Sequence[tuple[Filter, Hashable]]) -> Branch:
        """The stages behind the first filters, over what those leave of the pool and the index."""
        rest = stages[n_filters:]
        rows = pool
        if filters:
            rows = FilteredPool(pool, filters)
            narrowed = replace(context, pool=rows, index=FilteredIndex(context.index, filters))
            rest = [_stage(value, narrowed, place) for value, place in zip(written[n_filters:], places[n_filters:], strict=True)]
        # Later stages only choose among what the first one left, so guarding the first is enough.
        return Branch(rows, [replace(rest[0], select=without_duplicates(rest[0].select)), *rest[1:]])

    return Stages(pool, stages[:n_filters], branch, (lambda: 0) if counted is None else lambda: counted.n)


def build_order(
    order: Any,
    *,
    labels: Sequence[str],
    seed: int,
    folders: Sequence[Path] = (),
    pool: Sequence[Example] = (),
    score_many: ScoreMany | Asking | None = None,
) -> CheckedOrder:
    """An order by name, mapping, or function (query, hits best first) -> hits in prompt order; each result is checked to be a permutation.

    pool, score_many: for orders that are fitted on the pool's own rows through the language model.
    """
    if callable(order):
        return CheckedOrder(_name(order), order)
    spec = parse_spec(order, "order", "order")
    plugin = find("order", spec.name, folders, "order")
    context = _asking(Context(pool=pool, labels=tuple(labels), seed=seed, folders=tuple(folders)), score_many)
    return CheckedOrder(spec.name, _built(plugin, settings_of(plugin, spec.settings, "order"), context, "order"))


class CheckedOrder:
    """(query, hits best first) -> hits in prompt order, of one query or, with `many`, of several at once."""

    def __init__(self, name: str, arrange: Order) -> None:
        self._name, self._arrange = name, arrange

    def __call__(self, query: Example, hits: list[Hit]) -> list[Hit]:
        return self.many([query], [hits])[0]

    def many(self, queries: Sequence[Example], found: Sequence[list[Hit]]) -> list[list[Hit]]:
        """The orders of several queries; those that ask the model then ask once for all."""
        given = [list(hits) for hits in found]
        together = getattr(self._arrange, "many", None)
        if together is not None:
            arranged = [list(hits) for hits in together(queries, given)]
        else:
            arranged = [list(self._arrange(query, hits)) for query, hits in zip(queries, given, strict=True)]
        for ordered, hits in zip(arranged, found, strict=True):
            if len(ordered) != len(hits) or {hit.uid for hit in ordered} != {hit.uid for hit in hits}:
                raise InputError(
                    Problem(f"the order '{self._name}' did not give back the hits it was given", "An order only rearranges.", field="order")
                )
        return arranged


def _asking(context: Context, model: ScoreMany | Asking | None) -> Context:
    """The context with the language model, if there is one."""
    if isinstance(model, Asking):
        return replace(context, score_many=model.score_many, learned=model.learned, train_encoder=model.train_encoder)
    return replace(context, score_many=model)


def _stage(value: Any, context: Context, where: str | None) -> Stage:
    where = where or "retriever"
    if callable(value):
        return Stage(
            _name(value), checked(_name(value), value), filter=value if isinstance(value, Filter) else None, passes_all=_all(value)
        )
    spec = parse_spec(value, "selector", where)
    plugin = find("selector", spec.name, context.folders, where)
    settings = settings_of(plugin, spec.settings, where)
    select = _built(plugin, settings, context, where)
    n = getattr(settings, "n", None)
    return Stage(spec.name, checked(spec.name, select), n, select if isinstance(select, Filter) else None, _all(select))


def _built(plugin: Plugin, settings: Any, context: Context, where: str) -> Any:
    """The component of a file. Raises InputError if it needs a language model and there is none."""
    module = plugin.load()
    if getattr(module, "NEEDS_MODEL", False) and context.score_many is None:
        raise InputError(
            Problem(
                f"the {plugin.kind} '{plugin.name}' asks a language model, and there is none here",
                "Use it in a method that has a model, or take another one.",
                field=where,
            )
        )
    return module.build(settings, context)


def _all(select: Any) -> bool:
    return bool(getattr(select, "passes_all", False))


def _as_selector(retriever: Retriever) -> Selector:
    return checked(_name(retriever), lambda queries, k, candidates: retriever(queries, k))


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


class _Counted:
    """Counts the prompts that stages have scored."""

    def __init__(self, score_many: ScoreMany) -> None:
        self._score_many, self.n = score_many, 0

    def __call__(self, pairs: Sequence[tuple[Example, Sequence[Example]]]) -> Any:
        self.n += len(pairs)
        return self._score_many(pairs)


class LazyIndex:
    """Stands for a DemoIndex, which is built when something is first asked of it."""

    def __init__(self, make: Callable[[], DemoIndex]) -> None:
        self._make = make

    @cached_property
    def _index(self) -> DemoIndex:
        return self._make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def __len__(self) -> int:
        return len(self._index)
