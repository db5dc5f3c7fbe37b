"""From what a user wrote (`knn`, `[{knn: {n: 64}}, balanced]`, a function, an index) to one function that finds demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from ..errors import InputError, Problem
from ..plugins import Context, find, parse_spec, settings_of
from ..protocols import Order, Retriever, Selector
from ..values import RAW_QUERY, Example, Hit, embedded_text, normalised_text
from .index import DemoIndex


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of a retriever."""

    name: str
    select: Selector
    n: int | None = None
    """Hits it leaves when another stage follows."""


def build_retriever(
    retriever: Any,
    pool: Sequence[Example],
    *,
    index: Callable[[], DemoIndex],
    labels: Sequence[str],
    seed: int,
    folders: Sequence[Path] = (),
    count_tokens: Callable[[str], int] | None = None,
) -> Retriever:
    """One function (queries, k) -> hits, best first.

    retriever: the name of a selector, a mapping from one name to its options, a list of such stages (the first finds candidates,
    as many as its option `n` says, each further one narrows them, the last leaves k), a function (queries, k) -> hits, or a
    DemoIndex (searched as it is at the moment of the call: rows added later are found). In a list a function stands for a stage and
    takes (queries, k, candidates).
    pool: may be live too; selectors notice when rows are added or removed. index: called when a selector first needs it.

    A query that is a row of a task never gets its own row, nor one with the same normalised text; a query that a user typed
    (`values.as_query`) may get an exact match. Raises InputError for unknown names and options.
    """
    if isinstance(retriever, DemoIndex):
        live = retriever
        pool, index, retriever = _LivePool(live), lambda: live, "knn"
    elif callable(retriever):
        stage = Stage(_name(retriever), without_duplicates(_as_selector(retriever)))
        return lambda queries, k: _run([stage], queries, k)
    written = list(retriever) if isinstance(retriever, list | tuple) else [retriever]
    if not written:
        raise InputError(Problem("a retriever needs at least one stage", "Write for example 'knn'.", field="retriever"))
    context = Context(pool=pool, index=LazyIndex(index), labels=tuple(labels), seed=seed, count_tokens=count_tokens)
    stages = [_stage(value, context, folders, None if len(written) == 1 else f"retriever.{i}") for i, value in enumerate(written)]
    # Later stages only choose among what the first one left, so guarding the first is enough.
    stages[0] = Stage(stages[0].name, without_duplicates(stages[0].select), stages[0].n)
    return lambda queries, k: _run(stages, queries, k)


def build_order(order: Any, *, labels: Sequence[str], seed: int, folders: Sequence[Path] = ()) -> Order:
    """An order by name, mapping, or function (query, hits best first) -> hits in prompt order; each result is checked to be a permutation."""
    if callable(order):
        name, arrange = _name(order), order
    else:
        spec = parse_spec(order, "order", "order")
        plugin = find("order", spec.name, folders, "order")
        name = spec.name
        arrange = plugin.load().build(settings_of(plugin, spec.settings, "order"), Context(labels=tuple(labels), seed=seed))

    def checked(query: Example, hits: list[Hit]) -> list[Hit]:
        ordered = list(arrange(query, list(hits)))
        if len(ordered) != len(hits) or {hit.uid for hit in ordered} != {hit.uid for hit in hits}:
            raise InputError(
                Problem(f"the order '{name}' did not give back the hits it was given", "An order only rearranges.", field="order")
            )
        return ordered

    return checked


def without_duplicates(select: Selector) -> Selector:
    """The selector, less the query's own row and its duplicates (the same normalised text). Queries a user typed pass as they are.

    Where something was left out, more is asked for, until there are k hits or no more rows. How much more depends on that query
    alone, so that results do not depend on the batch.
    """
    texts: dict[str, str] = {}

    def comparable(example: Example) -> str:
        if example.uid not in texts:
            text = embedded_text(example.fields)
            texts[example.uid] = normalised_text(text) or text  # nothing but signs is not nothing
        return texts[example.uid]

    def other(query: Example, hits: list[Hit]) -> list[Hit]:
        if query.uid.startswith(RAW_QUERY):
            return hits
        own = comparable(query)
        return [hit for hit in hits if hit.uid != query.uid and comparable(hit.example) != own]

    def guarded(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        result: list[list[Hit]] = [[] for _ in queries]
        wanted = {k: list(range(len(queries)))}
        while wanted:
            again: dict[int, list[int]] = {}
            for ask, places in wanted.items():
                found = select([queries[i] for i in places], ask, None if candidates is None else [candidates[i] for i in places])
                for i, hits in zip(places, found, strict=True):
                    left = other(queries[i], hits)
                    result[i] = left[:k]
                    if len(left) < k and len(hits) >= ask:
                        again.setdefault(k + 2 * (len(hits) - len(left)), []).append(i)
            wanted = again
        return result

    return guarded


def _stage(value: Any, context: Context, folders: Sequence[Path], where: str | None) -> Stage:
    where = where or "retriever"
    if callable(value):
        return Stage(_name(value), _checked(_name(value), value))
    spec = parse_spec(value, "selector", where)
    plugin = find("selector", spec.name, folders, where)
    settings = settings_of(plugin, spec.settings, where)
    return Stage(spec.name, _checked(spec.name, plugin.load().build(settings, context)), getattr(settings, "n", None))


def _run(stages: Sequence[Stage], queries: Sequence[Example], k: int) -> list[list[Hit]]:
    if k < 0:
        raise InputError(Problem(f"{k} demonstrations cannot be had", "Ask for 0 or more.", field="shots"))
    if k == 0 or not len(queries):
        return [[] for _ in queries]
    hits: list[list[Hit]] | None = None
    for i, stage in enumerate(stages):
        last = i == len(stages) - 1
        hits = stage.select(queries, k if last else max(k, stage.n or max(64, 4 * k)), hits)
    assert hits is not None
    return hits


def _checked(name: str, select: Callable[..., Any]) -> Selector:
    """The selector, its results checked: what somebody dropped into a folder is not trusted to keep the contract."""

    def checked(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        found = [list(hits) for hits in select(queries, k, candidates)]
        wrong = None
        if len(found) != len(queries):
            wrong = f"gave {len(found)} lists of hits for {len(queries)} queries"
        for i, hits in enumerate(found):
            uids = {hit.uid for hit in hits if isinstance(hit, Hit)}
            if len(uids) < len(hits):
                wrong = "gave something that is no Hit, or the same row twice"
            elif len(hits) > k:
                wrong = f"gave {len(hits)} hits where at most {k} were asked for"
            elif candidates is not None and not uids <= {hit.uid for hit in candidates[i]}:
                wrong = "gave a row that is not among its candidates"
        if wrong:
            raise InputError(Problem(f"the selector '{name}' {wrong}", "Mend it: at most k distinct hits per query.", field="retriever"))
        return found

    return checked


def _as_selector(retriever: Callable[[Sequence[Example], int], list[list[Hit]]]) -> Selector:
    return _checked(_name(retriever), lambda queries, k, candidates: retriever(queries, k))


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


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


class _LivePool(Sequence[Example]):
    """The rows of an index as they are at the moment."""

    def __init__(self, index: DemoIndex) -> None:
        self._live = index

    def __len__(self) -> int:
        return len(self._live)

    @overload
    def __getitem__(self, i: int) -> Example: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Example]: ...
    def __getitem__(self, i: int | slice) -> Example | Sequence[Example]:
        return self._live.examples[i]
