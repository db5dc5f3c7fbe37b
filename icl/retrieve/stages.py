"""The stages of a retriever, run one after the other, with a record of what each of them did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..errors import InputError, Problem
from ..protocols import Selector
from ..values import Example, Hit, Step
from .filters import Filter, FilteredPool
from .guard import Copies
from .pools import FromPool

OWN_ROW = "the query's own row or a copy"
NOT_CHOSEN = "not chosen"


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of a retriever."""

    name: str
    select: Selector
    """Its result is checked, see `checked`."""
    n: int | None = None
    """Hits it leaves when another stage follows; None: enough for what follows to choose among, or all if it only takes rows out."""
    filter: Filter | None = None
    passes_all: bool = False


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The demonstrations found for a query, and how."""

    hits: list[Hit]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Branch:
    """The stages behind the filters that come first, and the pool that those filters leave."""

    pool: Sequence[Example]
    stages: Sequence[Stage]

    @cached_property
    def own(self) -> Callable[[Sequence[Example]], list[int]] | None:
        """How many rows of the pool are each query's own; None for rows on disk, which are not all read for a record."""
        if not isinstance(self.pool, list | tuple | FilteredPool):
            return None
        copies = Copies()
        counted = FromPool(self.pool, copies.counter)
        return lambda queries: counted()(queries)


@dataclass
class Stages:
    """A retriever of several stages: `(queries, k) -> hits`, best first; `trace` also tells what each stage did.

    Filters that come first take rows out of the pool itself; `branch` builds the stages behind them, once for every key that the
    queries have for these filters.
    """

    pool: Sequence[Example]
    filters: Sequence[Stage]
    branch: Callable[[Sequence[tuple[Filter, Hashable]]], Branch]
    scored: Callable[[], int] = lambda: 0
    _branches: dict[tuple[Hashable, ...], Branch] = field(default_factory=dict)
    _filtered: dict[tuple[Hashable, ...], FromPool[list[Step]]] = field(default_factory=dict)

    @property
    def n_scored(self) -> int:
        """Prompts that stages gave the language model to score, so far."""
        return self.scored()

    def __call__(self, queries: Sequence[Example], k: int) -> list[list[Hit]]:
        return self._run(queries, k, None)

    def trace(self, queries: Sequence[Example], k: int) -> list[Retrieved]:
        """As a call, with one Step per stage and query.

        It costs little beside the search: what filters do to the pool is counted once, and where the rows are on disk a query's own are
        not told from those that were not chosen.
        """
        steps: list[list[Step]] = [[] for _ in queries]
        hits = self._run(queries, k, steps)
        return [Retrieved(found, tuple(done)) for found, done in zip(hits, steps, strict=True)]

    def _run(self, queries: Sequence[Example], k: int, steps: list[list[Step]] | None) -> list[list[Hit]]:
        if k < 0:
            raise InputError(Problem(f"{k} demonstrations cannot be had", "Ask for 0 or more.", field="shots"))
        if k == 0 or not len(queries):
            return [[] for _ in queries]
        groups: dict[tuple[Hashable, ...], list[int]] = {}
        for i, query in enumerate(queries):
            groups.setdefault(tuple(stage.filter.key(query) for stage in self.filters if stage.filter), []).append(i)
        result: list[list[Hit]] = [[] for _ in queries]
        for keys, places in groups.items():
            branch = self._branch(keys)
            own = None if steps is None else [steps[i] for i in places]
            if own is not None:
                self._log_filters(own, keys)
            for i, hits in zip(places, _run(branch, [queries[i] for i in places], k, own), strict=True):
                result[i] = hits
        return result

    def _branch(self, keys: tuple[Hashable, ...]) -> Branch:
        if keys not in self._branches:
            self._branches[keys] = self.branch([(s.filter, key) for s, key in zip(self.filters, keys, strict=True) if s.filter is not None])
        branch = self._branches[keys]
        if isinstance(branch.pool, FilteredPool):
            branch.pool.refresh()
        return branch

    def _log_filters(self, steps: Sequence[list[Step]], keys: tuple[Hashable, ...]) -> None:
        if not self.filters:
            return
        if keys not in self._filtered:
            self._filtered[keys] = FromPool(self.pool, lambda pool: self._filter_steps(list(pool), keys))
        done = self._filtered[keys]()
        for each in steps:
            each += done

    def _filter_steps(self, rows: list[Example], keys: tuple[Hashable, ...]) -> list[Step]:
        done = []
        for stage, key in zip(self.filters, keys, strict=True):
            assert stage.filter is not None
            why = Counter(reason for row in rows if (reason := stage.filter.why(row, key)) is not None)
            done.append(Step(stage.name, len(rows), len(rows) - why.total(), dict(why)))
            rows = [row for row in rows if stage.filter.why(row, key) is None]
        return done


def _run(branch: Branch, queries: Sequence[Example], k: int, steps: Sequence[list[Step]] | None) -> list[list[Hit]]:
    hits: list[list[Hit]] | None = None
    for i, stage in enumerate(branch.stages):
        before = hits
        n = k if i == len(branch.stages) - 1 else max(k, stage.n or _default_n(stage, k, branch.pool, before))
        hits = stage.select(queries, n, before)
        if steps is not None:
            own = branch.own(queries) if before is None and branch.own is not None else [0] * len(queries)
            for j, each in enumerate(steps):
                each.append(_step(stage, queries[j], None if before is None else before[j], hits[j], len(branch.pool), own[j]))
    assert hits is not None
    return hits


def _default_n(stage: Stage, k: int, pool: Sequence[Example], hits: list[list[Hit]] | None) -> int:
    """What only takes rows out leaves all others; a first choice leaves a few times as many as there are shots."""
    if stage.passes_all:
        return len(pool) if hits is None else max((len(each) for each in hits), default=0)
    return max(64, 4 * k)


def _step(stage: Stage, query: Example, before: list[Hit] | None, after: list[Hit], n_pool: int, n_own: int) -> Step:
    n_in = n_pool if before is None else len(before)
    dropped: Counter[str] = Counter({OWN_ROW: n_own} if n_own else {})
    if stage.filter is not None and before is not None:
        key = stage.filter.key(query)
        dropped.update(reason for hit in before if (reason := stage.filter.why(hit.example, key)) is not None)
    rest = n_in - len(after) - dropped.total()
    if rest > 0:
        dropped[NOT_CHOSEN] = rest
    first = {hit.uid for hit in (before or after)[: len(after)]}
    return Step(stage.name, n_in, len(after), dict(dropped), sum(hit.uid not in first for hit in after))


def checked(name: str, select: Callable[..., Any]) -> Selector:
    """The selector, its results checked: what somebody dropped into a folder is not trusted to keep the contract."""

    def check(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
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

    return check
