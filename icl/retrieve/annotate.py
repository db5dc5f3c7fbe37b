"""What to label, within a label budget: rows that stand for many others and are unlike each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..errors import InputError, Problem
from ..protocols import Encoder
from ..values import Example, embedded_text
from .encoders import load_encoder
from .nearest import nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Confidence: TypeAlias = "Callable[[Sequence[Example], Sequence[Example]], Sequence[float]]"
"""(rows labelled so far, the other rows) -> how sure the model is of its answer for each of the others, given those as demonstrations."""
NEIGHBOURS = 150
RHO = 10.0


def vote_k(
    rows: Sequence[Example],
    budget: int,
    *,
    labelled: Sequence[Example] = (),
    confidence: Confidence | None = None,
    encoder: str | Encoder = "minilm",
    neighbours: int = NEIGHBOURS,
    rho: float = RHO,
) -> list[Example]:
    """The `budget` rows to label, in the order they are chosen. Labels of `rows` are not looked at.

    Without `confidence`: the first stage alone ("fast vote-k"), the whole budget by votes of the neighbour graph. With it: a tenth
    of the budget by votes; then the others are sorted by confidence, most sure first, and cut into `budget` buckets, of which the
    tenth that the model is surest of is left out and each other one gives its row with the most votes. labelled: rows that have a
    label already; they stand in the graph as if they had been chosen first, so that rows like them have fewer votes.

    Su et al. 2022, https://arxiv.org/abs/2209.01975, sec. 2.2. The authors' code hands the whole pool to the retrieval afterwards;
    label what is returned, and nothing else, and use that as the pool.
    """
    if budget < 0:
        raise InputError(Problem(f"the label budget is {budget}", "Give at least 0.", field="budget"))
    rows, known = list(rows), list(labelled)
    if budget >= len(rows):
        return rows
    import numpy as np

    every, n = [*known, *rows], len(known)
    vectors = np.ascontiguousarray(load_encoder(encoder).encode([embedded_text(row.fields) for row in every]), dtype=np.float32)
    voting = Votes(vectors, neighbours, rho)
    for row in range(n):
        voting.take(row)
    if confidence is None:
        return [every[i] for i in voting.best(n + budget)[n:]]
    first = voting.best(n + max(1, budget // 10) if budget else n)
    others = np.setdiff1d(np.arange(len(every)), first)
    sure = np.asarray(confidence([every[i] for i in first], [every[i] for i in others]), dtype=np.float64)
    if sure.shape != others.shape or not np.isfinite(sure).all():
        raise InputError(Problem("confidence gave something else than one number per row", "Return as many numbers as there are rows."))
    ranked = others[np.argsort(-sure, kind="stable")]
    for bucket in np.array_split(ranked, budget)[len(first) - n :]:
        voting.take_best_of(bucket)
    return [every[i] for i in voting.taken[n:]]


class Votes:
    """Votes of the neighbour graph: a row votes for the rows nearest to it, for less the more of those are taken already."""

    def __init__(self, vectors: NDArray[np.float32], neighbours: int = NEIGHBOURS, rho: float = RHO) -> None:
        import numpy as np

        n = len(vectors)
        k = min(neighbours, n - 1) if n else 0
        self._rho = rho
        self._near = np.zeros((n, k), dtype=np.int64)
        """Row v's neighbours, without v itself."""
        if k:
            for v, found in enumerate(nearest(vectors, vectors, k + 1)[0]):
                self._near[v] = found[found != v][:k]
        self._voters = np.argsort(self._near.ravel(), kind="stable") // max(k, 1)
        self._starts = np.searchsorted(np.sort(self._near.ravel()), np.arange(n + 1))
        self._weight = np.ones(n)
        self._scores = np.diff(self._starts).astype(np.float64)
        self.taken: list[int] = []
        self.votes: list[float] = []
        """What each taken row had when it was taken."""

    def best(self, n: int) -> list[int]:
        """The first n rows by votes; more are taken if need be. Ties by position."""
        import numpy as np

        while len(self.taken) < min(n, len(self._weight)):
            self.take_best_of(np.arange(len(self._weight)))
        return self.taken[:n]

    def take_best_of(self, rows: NDArray[np.int64]) -> None:
        """Take the row with the most votes of those given that are not taken yet."""
        import numpy as np

        scores = self._scores[rows]
        scores[np.isin(rows, self.taken)] = -np.inf
        if len(rows) and scores.max() > -np.inf:
            self.take(int(rows[int(np.argmax(np.round(scores, 9)))]))

    def take(self, row: int) -> None:
        """Take this row: it stops voting, and who voted for it counts 1 / rho of before."""
        import numpy as np

        self.taken.append(row)
        self.votes.append(float(self._scores[row]))
        voters = self._voters[self._starts[row] : self._starts[row + 1]]
        changes = np.append(self._weight[voters] * (1 / self._rho - 1), -self._weight[row])
        changed = np.append(voters, row)
        self._weight[changed] += changes
        np.add.at(self._scores, self._near[changed].ravel(), np.repeat(changes, self._near.shape[1]))
