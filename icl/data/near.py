"""Near-duplicates without an encoder: texts that are one another lightly edited.

Texts are compared by their shingles, the runs of 5 characters of the normalised text, which serve every language and forgive a
typo, a word put in, left out, replaced or moved. Two rows are near-duplicates if

1. they share at least half of their *rare* shingles (Jaccard). Shingles that more than 2 % of the texts have are left out: rows
   made from one template ("Take the last letters of …", "A coin is heads up. …") share most of their characters and are not the
   same item;
2. every field, and the sorted choices, is the same text or, where both sides have 60 characters or more, shares 60 % of all its
   shingles: two questions about one passage are not the same item either, and short texts differ by a word that matters.

A text of n words with one word in ten replaced keeps about 70 % of its shingles. The self-join of Bayardo et al. 2007 ("Scaling up
all pairs similarity search") would prune more; with rare shingles alone a sparse matrix product is fast enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..values import Example, field_text
from .leaks import comparable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHINGLE = 5
MIN_CHARS = 60
"""Shorter fields must be equal."""
SHARED, SHARED_RARE = 0.6, 0.5
COMMON = 0.02
"""Share of the texts above which a shingle is common (but never fewer than 10 texts, nor more than 200: the work grows with it)."""
MIN_RARE = 5
MAX_SHINGLES = 1 << 24
"""Above this many, an even sample of the shingles (the same for all texts) is compared in the first step."""
BLOCK = 1000


def near_duplicates(pool: Sequence[Example], test: Sequence[Example]) -> list[int]:
    """Positions of the pool rows that are near-duplicates of a test row, ascending. Rows equal after normalisation are not looked for."""
    return sorted({i for i, _ in near_pairs(pool, test)})


def near_pairs(left: Sequence[Example], right: Sequence[Example]) -> list[tuple[int, int]]:
    """All (position in left, position in right) of near-duplicates, sorted. Rows that are equal after normalisation are no pair."""
    parts = [_parts(example) for example in [*left, *right]]
    n_left = len(left)
    units: dict[tuple[str, ...], int] = {}
    members: list[tuple[list[int], list[int]]] = []
    for position, part in enumerate(parts):
        if max(map(len, part)) < MIN_CHARS:
            continue
        unit = units.setdefault(part, len(units))
        if unit == len(members):
            members.append(([], []))
        members[unit][position >= n_left].append(position if position < n_left else position - n_left)
    texts = list(units)
    found: set[tuple[int, int]] = set()
    for a, b in _candidates(["\n".join(part) for part in texts], [bool(m[0]) for m in members], [bool(m[1]) for m in members]):
        if len(texts[a]) == len(texts[b]) and all(_same(x, y) for x, y in zip(texts[a], texts[b], strict=True)):
            found.update((i, j) for i in members[a][0] for j in members[b][1])
    return sorted(found)


def _parts(example: Example) -> tuple[str, ...]:
    fields = [comparable(field_text(value)) for value in example.fields.values()]
    return (*fields, " ".join(sorted(comparable(choice) for choice in example.choices))) if example.choices else tuple(fields)


def _same(a: str, b: str) -> bool:
    if a == b:
        return True
    if min(len(a), len(b)) < MIN_CHARS or not SHARED <= len(a) / len(b) <= 1 / SHARED:
        return False
    left, right = ({text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)} for text in (a, b))
    return len(left & right) >= SHARED * len(left | right)


def _shingles(text: str) -> NDArray[np.uint64]:
    """Distinct hashes of a text's shingles, ascending. The hash is the same in every process."""
    import numpy as np

    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    hashes = np.zeros(len(codes) - SHINGLE + 1, np.uint64)
    for offset in range(SHINGLE):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[offset : offset + len(hashes)]
    return np.unique(hashes)


def _candidates(texts: list[str], left: list[bool], right: list[bool]) -> Iterator[tuple[int, int]]:
    """Pairs of different texts, one of each side, that share at least half of their rare shingles."""
    import numpy as np
    from scipy import sparse

    if not texts:
        return
    every = max(1, sum(map(len, texts)) // MAX_SHINGLES)
    hashes = [_shingles(text) for text in texts]
    if every > 1:
        hashes = [found[(found >> np.uint64(40)) % np.uint64(every) == 0] for found in hashes]
    rows = np.repeat(np.arange(len(texts)), [len(found) for found in hashes])
    _, columns, counts = np.unique(np.concatenate(hashes), return_inverse=True, return_counts=True)
    rare = (counts <= max(10, min(int(COMMON * len(texts)), 200)))[columns]
    shape = (len(texts), len(counts))
    matrix = sparse.csr_matrix((np.ones(int(rare.sum()), np.int32), (rows[rare], columns[rare])), shape=shape)
    n_rare = np.asarray(matrix.sum(axis=1)).ravel()
    usable = n_rare >= MIN_RARE
    lefts, rights = (np.flatnonzero(np.array(side) & usable) for side in (left, right))
    transposed = matrix[rights].T.tocsr()
    for start in range(0, len(lefts), BLOCK):
        block = lefts[start : start + BLOCK]
        shared = (matrix[block] @ transposed).tocoo()
        a, b = block[shared.row], rights[shared.col]
        close = (shared.data >= SHARED_RARE * (n_rare[a] + n_rare[b] - shared.data)) & (a != b)
        yield from zip(a[close].tolist(), b[close].tolist(), strict=True)
