"""Labels of a pool that are likely wrong: those that the pool's other rows make improbable (confident learning)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from ..errors import InputError, Problem, suggest
from ..progress import progress
from ..protocols import Encoder
from ..seeds import rng_for
from ..values import Example, embedded_text, normalised_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..methods._heads import HeadKind

FOLDS = 5
"""Parts of the pool; each is judged by what was learned from the others."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """What the rest of a pool says of a row's label."""

    example: Example
    probability: float
    """Of its own label, by a head that was fitted without the row and its copies."""
    suggested: str
    """The likeliest of the other labels."""
    suggested_probability: float
    flagged: bool
    """Whether confident learning counts the label as wrong: another label is as likely as it is on average for the rows that have it,
    and likelier than all others of which that is true."""


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """The rows of a pool, the most doubtful label first."""

    rows: tuple[Doubt, ...]
    """Ties in the order of the pool."""
    n_pool: int
    n_unlabelled: int
    """Rows without a label."""
    n_alone: int
    """Rows that are not judged since no other row has their label (copies of the same text do not count)."""
    estimate: float
    """How many of the labels that were judged are wrong, as confident learning estimates it: too many where `agreement` is low, for a
    head that is often wrong doubts right labels."""
    pairs: Mapping[tuple[str, str], int]
    """(label, the one that it likely should be) -> flagged rows, the most frequent first."""

    @property
    def agreement(self) -> float:
        """Share of the rows whose own label is the likeliest: the held-out accuracy of the head, by the labels as they are."""
        return sum(each.probability >= each.suggested_probability for each in self.rows) / len(self.rows)

    @property
    def n_flagged(self) -> int:
        return sum(self.pairs.values())


def label_errors(
    examples: Sequence[Example], *, encoder: str | Encoder = "minilm", head: HeadKind = "logistic", folds: int = FOLDS, seed: int = 0
) -> LabelErrors:
    """Rank the rows of a pool by how likely their labels are wrong.

    The rows are embedded and cut into `folds` parts, drawn with the seed, the rows of each label spread evenly over them; rows of the same
    text are in the same part. A head (`embedding_head`'s: "logistic", "kernel", or "knn") that was fitted on the other parts
    gives each row the probability of its own label, and the rows are sorted by it: the self-confidence of confident learning, which
    also says which labels it counts as wrong and how many there are (Northcutt, Jiang and Chuang 2021,
    https://arxiv.org/abs/1911.00068, sec. 3.1 and 3.2). Departure: a row in the confident joint counts for its likeliest label among
    those that pass their thresholds, as theirs; a row that passes none counts nowhere, and a label of which no row counts is taken to be right.

    What stands first is unlike the rows of its label: a wrong label, or a rare use of a right one. Look before you change it.
    Raises InputError for rows that are not classified, for fewer than two labels with two rows each, for fewer than two parts
    and for a head that is not known.
    """
    import numpy as np

    from ..methods._heads import HeadKind as Known

    if head not in get_args(Known):
        raise InputError(Problem(f"there is no head named '{head}'", suggest(head, get_args(Known)), field="head"))
    rows = _judged(examples, folds)
    counts = Counter(label for _, label in {(normalised_text(embedded_text(row.fields)), str(row.target)) for row in rows})
    kept = [row for row in rows if counts[str(row.target)] > 1]
    labels = sorted({str(row.target) for row in kept})
    if len(labels) < 2:
        raise InputError(
            Problem(
                f"{len(labels)} labels have two rows or more, so there is nothing to tell apart", "Give more labelled rows.", field="pool"
            )
        )
    targets = np.array([labels.index(str(row.target)) for row in kept])
    shares = _held_out(kept, targets, len(labels), encoder, head, folds, seed)
    found = confident(shares, targets)
    own = shares[np.arange(len(kept)), targets]
    others = shares.copy()
    others[np.arange(len(kept)), targets] = -1.0
    best = others.argmax(axis=1)
    doubts = [
        Doubt(row, float(own[i]), labels[best[i]], float(others[i, best[i]]), bool(found[i] >= 0 and found[i] != targets[i]))
        for i, row in enumerate(kept)
    ]
    pairs = Counter((labels[i], labels[j]) for i, j in zip(targets.tolist(), found.tolist(), strict=True) if j not in (-1, i))
    return LabelErrors(
        rows=tuple(doubts[i] for i in np.argsort(own, kind="stable")),
        n_pool=len(examples),
        n_unlabelled=len(examples) - len(rows),
        n_alone=len(rows) - len(kept),
        estimate=estimated(found, targets, len(labels)),
        pairs=dict(pairs.most_common()),
    )


def confident(shares: NDArray[np.float64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) the label that each row counts for in the confident joint, -1 for none.

    shares: (n, L) held-out probabilities, targets: (n,) the labels given, each of the L at least once.
    """
    import numpy as np

    n_labels = shares.shape[1]
    thresholds = np.array([shares[targets == label, label].mean() for label in range(n_labels)])
    passing = np.where(shares >= thresholds, shares, -1.0)
    return np.where(passing.max(axis=1) >= 0, passing.argmax(axis=1), -1)


def estimated(found: NDArray[np.int64], targets: NDArray[np.int64], n_labels: int) -> float:
    """How many labels are wrong: the confident joint's shares for each given label, times the number of rows that have that label."""
    wrong = 0.0
    for label in range(n_labels):
        mine = found[targets == label]
        counted = mine[mine >= 0]
        if len(counted):
            wrong += len(mine) * float((counted != label).mean())
    return wrong


def _judged(examples: Sequence[Example], folds: int) -> list[Example]:
    problems = []
    if folds < 2:
        problems.append(Problem(f"{folds} parts: nothing is left to learn from", "Give at least 2.", field="folds"))
    rows = [row for row in examples if row.target is not None]
    if not rows:
        problems.append(Problem("there are no labelled rows", "Give rows that have a label.", field="pool"))
    if any(row.choices or row.references for row in rows):
        message = "rows with choices, or with answers in words, have no label that others share"
        problems.append(Problem(message, "Give rows of a classification task.", field="pool"))
    if problems:
        raise InputError(problems)
    return rows


def _held_out(
    rows: Sequence[Example], targets: NDArray[np.int64], n_labels: int, encoder: str | Encoder, head: HeadKind, folds: int, seed: int
) -> NDArray[np.float64]:
    """(n, n_labels): each row's probabilities, from the other parts."""
    import numpy as np

    from ..methods._heads import fit_head
    from ..retrieve import load_encoder

    texts = [embedded_text(row.fields) for row in rows]
    vectors = load_encoder(encoder).encode(texts)
    part = parts([normalised_text(text) for text in texts], targets.tolist(), folds, seed)
    shares = np.zeros((len(rows), n_labels))
    n_parts = int(part.max()) + 1
    with progress("judging", n_parts, "parts of the pool") as advance:
        for fold in range(n_parts):
            held, others = part == fold, part != fold
            seen, positions = np.unique(targets[others], return_inverse=True)
            fitted = fit_head(head, vectors[others], positions.tolist(), len(seen), seed=seed)
            shares[np.ix_(held, seen)] = fitted.shares(vectors[held])
            advance()
    return shares


def parts(texts: Sequence[str], targets: Sequence[int], folds: int, seed: int) -> NDArray[np.int64]:
    """(n,) the part, from 0, of each row: each label's texts are spread evenly, in an order drawn with the seed; equal texts stay together."""
    import numpy as np

    first = {text: i for i, text in reversed(list(enumerate(texts)))}
    drawn = sorted(first)
    rng_for(seed, "label errors").shuffle(drawn)
    drawn.sort(key=lambda text: targets[first[text]])
    part_of = {text: i % min(folds, len(drawn)) for i, text in enumerate(drawn)}
    return np.array([part_of[text] for text in texts], dtype=np.int64)
