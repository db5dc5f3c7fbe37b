"""A query's own row, and copies of it, are never among its demonstrations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..protocols import Selector
from ..values import RAW_QUERY, Example, Hit, embedded_text, normalised_text


class Copies:
    """Tells the rows that are a query's own: the row itself, and rows with the same normalised text.

    A query that a user typed (`values.as_query`) has none: it may get an exact match.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def __call__(self, query: Example, example: Example) -> bool:
        if query.uid.startswith(RAW_QUERY):
            return False
        return example.uid == query.uid or self._comparable(example) == self._comparable(query)

    def others(self, query: Example, hits: list[Hit]) -> list[Hit]:
        """The hits that are not the query's own."""
        if query.uid.startswith(RAW_QUERY):
            return hits
        own = self._comparable(query)
        return [hit for hit in hits if hit.uid != query.uid and self._comparable(hit.example) != own]

    def counter(self, rows: Sequence[Example]) -> Callable[[Sequence[Example]], list[int]]:
        """Tells of queries how many of these rows are their own."""
        alike = Counter(self._comparable(row) for row in rows)
        uids = {row.uid for row in rows}

        def counts(queries: Sequence[Example]) -> list[int]:
            # The row of the query itself has the query's text, unless it was read differently.
            return [
                0 if query.uid.startswith(RAW_QUERY) else alike[own] if alike[own := self._comparable(query)] else int(query.uid in uids)
                for query in queries
            ]

        return counts

    def _comparable(self, example: Example) -> str:
        if example.uid not in self._texts:
            text = embedded_text(example.fields)
            self._texts[example.uid] = normalised_text(text) or text  # nothing but signs is not nothing
        return self._texts[example.uid]


def without_duplicates(select: Selector) -> Selector:
    """The selector, less the query's own row and its duplicates (the same normalised text). Queries a user typed pass as they are.

    Where something was left out, more is asked for, until there are k hits or no more rows. How much more depends on that query
    alone, so that results do not depend on the batch.
    """
    copies = Copies()

    def guarded(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        result: list[list[Hit]] = [[] for _ in queries]
        wanted = {k: list(range(len(queries)))}
        while wanted:
            again: dict[int, list[int]] = {}
            for ask, places in wanted.items():
                found = select([queries[i] for i in places], ask, None if candidates is None else [candidates[i] for i in places])
                for i, hits in zip(places, found, strict=True):
                    left = copies.others(queries[i], hits)
                    # What stands behind a row that is left out has moved up, for this query alone.
                    result[i] = left[:k] if len(left) == len(hits) else [replace(hit, shared=False) for hit in left[:k]]
                    if len(left) < k and len(hits) >= ask:
                        again.setdefault(k + 2 * (len(hits) - len(left)), []).append(i)
            wanted = again
        return result

    return guarded
