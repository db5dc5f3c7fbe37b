"""Stages that take out rows, by what stands in them: what a filter's file builds, and an index and a pool seen through filters."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from ..values import Example, Hit
from .pools import FromPool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .approximate import Kind

Why: TypeAlias = Callable[[Example, Any], "str | None"]
"""(row, key of the query) -> why the row is left out, None if it stays."""


class Filter:
    """A selector that leaves rows out and keeps the order of the others.

    why: (row, key) -> a few words why the row is left out, None if it stays; they stand in the log of the retriever.
    key: what of a query matters; queries of one key see the same rows. None: the query does not matter.

    As a first stage it takes rows out of the pool, so that what follows (a search, a draw) never sees them.
    """

    passes_all = True
    """Unless told otherwise it leaves all that pass, however many."""

    def __init__(self, pool: Sequence[Example], why: Why, key: Callable[[Example], Hashable] | None = None) -> None:
        self._pool, self._why, self._key = pool, why, key
        self._known: dict[tuple[Hashable, str], str | None] = {}

    def key(self, query: Example) -> Hashable:
        """Queries of the same key are given the same rows."""
        return None if self._key is None else self._key(query)

    def why(self, example: Example, key: Hashable) -> str | None:
        """Why a row is left out for queries of this key; None: it stays."""
        place = key, example.uid
        if place not in self._known:
            self._known[place] = self._why(example, key)
        return self._known[place]

    def __call__(self, queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        if candidates is None:
            rows = [Hit(example.uid, 0.0, example) for example in self._pool]
            candidates = [rows] * len(queries)
        result = []
        for query, hits in zip(queries, candidates, strict=True):
            key = self.key(query)
            result.append([hit for hit in hits if hit.uid != query.uid and self.why(hit.example, key) is None][:k])
        return result


Keyed: TypeAlias = "Sequence[tuple[Filter, Hashable]]"


def passes(filters: Keyed, example: Example) -> bool:
    """Whether all filters let the row through."""
    return all(each.why(example, key) is None for each, key in filters)


class FilteredPool(Sequence[Example]):
    """A pool, which may be live, without the rows that filters take out: as it was when `refresh` was last called."""

    def __init__(self, pool: Sequence[Example], filters: Keyed) -> None:
        self._kept = FromPool(pool, lambda rows: [example for example in rows if passes(filters, example)])
        self._rows: list[Example] | None = None

    def refresh(self) -> None:
        """Look at the pool again."""
        self._rows = self._kept()

    def _now(self) -> list[Example]:
        if self._rows is None:
            self.refresh()
        assert self._rows is not None
        return self._rows

    def __len__(self) -> int:
        return len(self._now())

    def __iter__(self) -> Iterator[Example]:
        return iter(self._now())

    @overload
    def __getitem__(self, i: int) -> Example: ...
    @overload
    def __getitem__(self, i: slice) -> list[Example]: ...
    def __getitem__(self, i: int | slice) -> Example | list[Example]:
        return self._now()[i]


class FilteredIndex:
    """An index that is searched among the rows that filters let through; all else is the index's own."""

    def __init__(self, index: Any, filters: Keyed) -> None:
        self._index, self._filters = index, filters
        self._allowed: tuple[Any, NDArray[np.int64]] | None = None

    def search(self, queries: Sequence[Any], k: int) -> list[list[Hit]]:
        """As `DemoIndex.search`, among the rows that are let through."""
        found: list[list[Hit]] = self._index.search(queries, k, among=self._positions())
        return found

    def searched_by(self, kind: Kind) -> FilteredIndex:
        """Another kind of search among the same rows."""
        return FilteredIndex(self._index.searched_by(kind), self._filters)

    def _positions(self) -> NDArray[np.int64]:
        import numpy as np

        rows = self._index.examples  # another object after any change
        if self._allowed is None or self._allowed[0] is not rows:
            self._allowed = rows, np.array([i for i, example in enumerate(rows) if passes(self._filters, example)], dtype=np.int64)
        return self._allowed[1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)
