"""Search structures for large indexes: a graph (HNSW) or lists (IVF) over the vectors, with the recall measured on those very vectors."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import InputError, Problem, suggest
from ..seeds import numpy_rng_for
from .nearest import NOISE, faiss, inner, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["auto", "exact", "hnsw", "ivf"]
EXACT_UP_TO = 200_000
"""Rows up to which `auto` is exact: there a search of all rows takes some ten milliseconds on one core."""
RECALL = 0.95
"""What the effort of a search is raised for, if need be."""
RECALL_AT = 8
SAMPLED = 256
"""Rows that the recall is measured with."""
LINKS = 32
MOST_EFFORT = 1024
FEW = 20_000
"""Rows that are searched exactly where only they may be found."""


def kind_for(kind: str, n: int) -> str:
    """`exact`, `hnsw` or `ivf`. Raises InputError for what is none of the kinds."""
    if kind not in get_args(Kind):
        raise InputError(Problem(f"there is no kind of index named {kind!r}", suggest(str(kind), get_args(Kind)), field="index"))
    if kind == "auto":
        return "exact" if n <= EXACT_UP_TO else "ivf"
    return kind if n else "exact"


@dataclass(frozen=True)
class Approximate:
    """A search structure over the rows of an index as they were when it was made. It never changes."""

    kind: str
    n: int
    """Rows it covers: the ids `row_ids`, in that order."""
    row_ids: NDArray[np.int64]
    effort: int
    """HNSW: nodes looked at (efSearch). IVF: lists looked into (nprobe)."""
    recall: float | None
    """Share of the 8 nearest rows that it finds, measured with rows of the index as queries; None: too few rows to measure."""
    made: Any = None
    """The FAISS index; None: in `path`."""
    path: Path | None = None

    @cached_property
    def _searched(self) -> Any:
        """The FAISS index, mapped from its file with the first search."""
        with _LOADING:
            if self.made is not None:
                return self.made
            found = faiss().read_index(str(self.path), faiss().IO_FLAG_MMAP_IFC)
            if found.ntotal != self.n:
                raise InputError(
                    Problem(f"the search structure covers {found.ntotal} rows, not {self.n}", "Build the index again.", str(self.path))
                )
            return found

    def rough(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """(m, k) places of near rows in `row_ids`, in no settled order, -1 where there are fewer. allowed: (n,) which may be found.

        Neither structure looks at other queries than its own, so results do not depend on the batch.
        """
        import numpy as np

        parameters = self._parameters
        if allowed is not None:
            parameters = self._with_effort(sel=faiss().IDSelectorBitmap(np.packbits(allowed, bitorder="little")))
        found: NDArray[np.int64] = self._searched.search(np.ascontiguousarray(queries), k, params=parameters)[1]
        return found

    @cached_property
    def _parameters(self) -> Any:
        return self._with_effort()

    def _with_effort(self, **selector: Any) -> Any:
        if self.kind == "hnsw":
            return faiss().SearchParametersHNSW(efSearch=self.effort, **selector)
        return faiss().SearchParametersIVF(nprobe=self.effort, **selector)

    def extended(self, vectors: NDArray[np.float32], row_ids: NDArray[np.int64]) -> Approximate:
        """One that covers more rows: `vectors` and `row_ids` begin with those that it covers. The recall is measured again."""
        # A mapped index cannot grow: it is read whole.
        grown = faiss().read_index(str(self.path)) if self.made is None else faiss().clone_index(self.made)
        grown.add(vectors[self.n :])
        return _tuned(Approximate(self.kind, len(row_ids), row_ids, self.effort, None, grown), vectors)

    def write(self, path: Path) -> None:
        """As a FAISS file."""
        faiss().write_index(self._searched, str(path))


_LOADING = threading.Lock()


def approximate(vectors: NDArray[np.float32], row_ids: NDArray[np.int64], kind: str, seed: int = 0) -> Approximate:
    """Build a search structure of `kind` (hnsw or ivf) over unit vectors (n, d), with the least effort that reaches the recall `RECALL`
    (or the most effort there is).

    HNSW is built by several threads at once, so its graph is not quite the same each time; IVF is.
    """
    n, d = vectors.shape
    # IVF: a graph over the centres too. Unlike the plain search of few or of many queries, its result does not depend on their number.
    form = f"HNSW{LINKS},Flat" if kind == "hnsw" else f"IVF{lists_for(n)}_HNSW{LINKS},Flat"
    made = faiss().index_factory(d, form, faiss().METRIC_INNER_PRODUCT)
    if kind == "ivf":
        made.cp.seed, made.cp.min_points_per_centroid, made.cp.max_points_per_centroid = seed + 1, 1, 64
        made.train(vectors)
    made.add(vectors)
    return _tuned(Approximate(kind, n, row_ids, 16, None, made), vectors)


def lists_for(n: int) -> int:
    """A power of two near 4·√n, and few enough that each list gets rows to be trained on."""
    lists = 1
    while lists * lists < 8 * n and 32 * lists < n:
        lists *= 2
    return lists


def _tuned(structure: Approximate, vectors: NDArray[np.float32]) -> Approximate:
    """With twice the effort, and again, until the recall is reached."""
    if len(vectors) <= RECALL_AT + 1:
        return structure
    truth = _truth(vectors)
    while True:
        structure = replace(structure, recall=_recall(structure, vectors, truth))
        assert structure.recall is not None
        if structure.recall >= RECALL or structure.effort >= min(MOST_EFFORT, structure.n):
            return structure
        structure = replace(structure, effort=2 * structure.effort)


def measured(structure: Approximate, vectors: NDArray[np.float32]) -> float | None:
    """The recall of a structure at its own effort, measured now."""
    return _recall(structure, vectors, _truth(vectors)) if len(vectors) > RECALL_AT + 1 else None


def _sample(n: int) -> NDArray[np.int64]:
    import numpy as np

    return np.sort(numpy_rng_for(0, "recall", n).choice(n, min(SAMPLED, n), replace=False))


def _truth(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n_sampled,) cosine of each sampled row's 8th nearest other row, exactly."""
    import numpy as np

    chosen = _sample(len(vectors))
    positions, scores = nearest(vectors[chosen], vectors, RECALL_AT + 1)
    return np.array([near[at != row][RECALL_AT - 1] for at, near, row in zip(positions, scores, chosen, strict=True)])


def _recall(structure: Approximate, vectors: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Share of the rows as near as the 8th nearest that are found: of equally near ones it does not matter which."""
    import numpy as np

    chosen = _sample(len(vectors))
    found = structure.rough(vectors[chosen], RECALL_AT + 1)
    scores = inner(vectors, np.repeat(chosen, RECALL_AT + 1), vectors, np.maximum(found, 0).ravel()).reshape(found.shape)
    good = (found >= 0) & (found != chosen[:, None]) & (scores >= truth[:, None] - NOISE)
    return round(float(np.minimum(good.sum(axis=1), RECALL_AT).mean() / RECALL_AT), 4)


@dataclass(frozen=True)
class Covered:
    """What a structure covers of the rows as they are now."""

    structure: Approximate
    here: NDArray[np.bool_] | None
    """Which of its rows are still there; None: all, at the same positions."""
    position: NDArray[np.int64] | None
    """Where they stand now."""
    new: NDArray[np.int64]
    """Positions of rows that it does not cover."""

    @classmethod
    def of(cls, structure: Approximate, ids: NDArray[np.int64]) -> Covered:
        """ids: of the rows as they are now, ascending."""
        import numpy as np

        n = structure.n
        if np.array_equal(ids[:n], structure.row_ids):
            return cls(structure, None, None, np.arange(n, len(ids)))
        position = np.minimum(np.searchsorted(ids, structure.row_ids), max(len(ids) - 1, 0))
        here = ids[position] == structure.row_ids if len(ids) else np.zeros(n, dtype=bool)
        return cls(structure, here, position, np.arange(int(np.searchsorted(ids, structure.row_ids[-1], side="right")), len(ids)))

    @property
    def is_complete(self) -> bool:
        """It covers all rows, and only these."""
        return self.here is None and not len(self.new)


def search_rows(
    covered: Covered, queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
    """As `nearest`, by the structure: positions and scores of near rows, best first, rows of equal score by position.

    Rows that the structure does not cover yet are searched exactly, rows that are gone are not found. Where it finds fewer rows than
    there are, and where few rows may be found, the search is exact.
    """
    import numpy as np

    if among is not None and len(among) <= max(FEW, k):
        return nearest(queries, vectors, k, among)
    allowed, new = covered.here, covered.new
    if among is not None:
        inside = np.zeros(len(vectors), dtype=bool)
        inside[among] = True
        own = inside[: covered.structure.n] if covered.position is None else inside[covered.position]
        allowed = own if allowed is None else own & allowed
        new = new[inside[new]]
    n_at_hand = covered.structure.n if allowed is None else int(allowed.sum())
    found = covered.structure.rough(queries, min(covered.structure.n, k), allowed)
    # FAISS puts what it lacks last.
    short = np.flatnonzero((found >= 0).sum(axis=1) < min(k, n_at_hand)).tolist() if (found[:, -1] < 0).any() else []
    if covered.position is not None:
        found = np.where(found >= 0, covered.position[found], -1)
    positions, scores = _ranked(queries, vectors, found, new, k)
    for i in short:
        (positions[i],), (scores[i],) = nearest(queries[i : i + 1], vectors, k, among)
    return positions, scores


def _ranked(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], found: NDArray[np.int64], new: NDArray[np.int64], k: int
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
    """Scores by `inner`, of what was found and of the nearest of the new rows; -1 stands for nothing."""
    import numpy as np

    if len(new):
        tail = nearest(queries, vectors, k, new)[0]
        found = np.concatenate([found, np.stack(tail)], axis=1)
    m, width = found.shape
    found = np.sort(found, axis=1)
    nothing = found < 0
    some_lack = bool(nothing.any())
    rows = np.where(nothing, 0, found) if some_lack else found
    exact = inner(queries, np.arange(m).repeat(width), vectors, rows.ravel()).reshape(m, width)
    if some_lack:
        exact[nothing] = -np.inf
    order = (-exact).argsort(axis=1, kind="stable")[:, :k]
    at = np.arange(m)[:, None]
    best, scores = found[at, order], exact[at, order]
    if not some_lack:
        return list(best), list(scores)
    kept = [row >= 0 for row in best]
    return [row[keep] for row, keep in zip(best, kept, strict=True)], [row[keep] for row, keep in zip(scores, kept, strict=True)]


def up_to_date(structure: Approximate | None, vectors: NDArray[np.float32], ids: NDArray[np.int64]) -> Approximate | None:
    """The structure that covers just these rows: itself, extended by new rows, or built anew if rows are gone."""
    if structure is None or not len(ids):
        return None
    covered = Covered.of(structure, ids)
    if covered.is_complete:
        return structure
    return structure.extended(vectors, ids) if covered.here is None else approximate(vectors, ids, structure.kind)
