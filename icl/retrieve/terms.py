"""How well a row covers the words of a query: exactly, weighted by BM25, or by the vectors of words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..protocols import Encoder
from ..values import Example, embedded_text
from .pools import FromPool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

K1, B = 1.5, 0.75
# Words; in scripts that put no spaces between them (Thai to Khmer, kana, Han) each character.
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORDS = re.compile(rf"[{_SPACELESS}]|[^\W_{_SPACELESS}]+")


def words(text: str) -> list[str]:
    """Case-folded words without punctuation."""
    return _WORDS.findall(unicodedata.normalize("NFKC", text).casefold())


class _Numbered:
    """Words as numbers, and per row the numbers of its different words."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self._rows: dict[str, tuple[NDArray[np.int64], NDArray[np.int64], int]] = {}

    def add(self, some: Sequence[str]) -> list[int]:
        """The numbers of words."""
        return [self.number.setdefault(word, len(self.number)) for word in some]

    def of(self, example: Example) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """(numbers of its different words, how often each stands in it, how many words it has)."""
        import numpy as np

        if example.uid not in self._rows:
            counts = Counter(words(embedded_text(example.fields)))
            frequencies = np.array(list(counts.values()), dtype=np.int64)
            self._rows[example.uid] = np.array(self.add(list(counts)), dtype=np.int64), frequencies, counts.total()
        return self._rows[example.uid]


def _distinct(text: str) -> list[str]:
    return list(dict.fromkeys(words(text)))


Cover: TypeAlias = "Callable[[str, Sequence[Example]], NDArray[np.float64]]"
"""(text of a query, rows) -> (n_words of the query, n_rows): how well each row covers each of its different words."""


def term_weights(pool: Sequence[Example]) -> Callable[[Sequence[str], Sequence[Example]], Cover]:
    """Covers by the BM25 weight (Lucene's variant, k1 1.5, b 0.75) of the words that a row shares with the query; 0 for the others.

    Returns a function of all queries' texts and all rows that are going to be asked for.
    """
    numbered = _Numbered()
    statistics = FromPool(pool, lambda rows: _statistics(numbered, rows))

    def ready(texts: Sequence[str], rows: Sequence[Example]) -> Cover:
        idf, mean = statistics()
        return lambda text, own: _weights(numbered, idf, mean, text, own)

    return ready


def _statistics(numbered: _Numbered, pool: Sequence[Example]) -> tuple[NDArray[np.float64], float]:
    """(idf of each word by number, mean length of a row)."""
    import numpy as np

    found = [numbered.of(example) for example in pool]
    n_rows_with = np.zeros(len(numbered.number))
    for numbers, _, _ in found:
        n_rows_with[numbers] += 1
    idf = np.log(1 + (len(found) - n_rows_with + 0.5) / (n_rows_with + 0.5))
    return np.where(n_rows_with > 0, idf, 0.0), max(1.0, sum(length for _, _, length in found) / max(1, len(found)))


def _weights(numbered: _Numbered, idf: NDArray[np.float64], mean: float, text: str, rows: Sequence[Example]) -> NDArray[np.float64]:
    import numpy as np

    numbers = [n for word in _distinct(text) if (n := numbered.number.get(word, len(idf))) < len(idf)]
    result = np.zeros((len(numbers), len(rows)))
    if not numbers or not rows:
        return result
    found = [numbered.of(example) for example in rows]
    flat, counts = np.concatenate([each for each, _, _ in found]), np.concatenate([each for _, each, _ in found])
    row_of = np.repeat(np.arange(len(rows)), [len(each) for each, _, _ in found])
    slot = np.full(len(numbered.number), -1)
    slot[numbers] = np.arange(len(numbers))
    shared = slot[flat] >= 0
    flat, frequency, row_of = flat[shared], counts[shared], row_of[shared]
    lengths = np.array([length for _, _, length in found])[row_of]
    result[slot[flat], row_of] = idf[flat] * frequency / (frequency + K1 * (1 - B + B * lengths / mean))
    return result


def word_similarities(encoder: Callable[[], Encoder]) -> Callable[[Sequence[str], Sequence[Example]], Cover]:
    """Covers by the cosine of each word of the query to the nearest word of a row, to five decimals; each word is encoded by itself.

    Returns a function of all queries' texts and all rows that are going to be asked for: their words are encoded in one batch.
    """
    import numpy as np

    numbered = _Numbered()
    known: list[NDArray[np.float32]] = []

    def ready(texts: Sequence[str], rows: Sequence[Example]) -> Cover:
        for text in texts:
            numbered.add(_distinct(text))
        for row in rows:
            numbered.of(row)
        new = list(numbered.number)[sum(len(part) for part in known) :]
        if new:
            known[:] = [np.concatenate([*known, np.ascontiguousarray(encoder().encode(new), dtype=np.float32)])]
        return lambda text, own: _cosines(numbered, known[0], text, own)

    return ready


def _cosines(numbered: _Numbered, vectors: NDArray[np.float32], text: str, rows: Sequence[Example]) -> NDArray[np.float64]:
    import numpy as np

    numbers = numbered.add(_distinct(text))
    found = [numbered.of(example)[0] for example in rows]
    result = np.zeros((len(numbers), len(rows)))
    full = [i for i, each in enumerate(found) if len(each)]
    if not numbers or not full:
        return result
    different, inverse = np.unique(np.concatenate([found[i] for i in full]), return_inverse=True)
    # Rounded, since float32 sums depend on where a row stands in the product.
    cosines = np.round((vectors[different] @ vectors[numbers].T).astype(np.float64), 5)
    starts = np.concatenate([[0], np.cumsum([len(found[i]) for i in full])[:-1]])
    result[:, full] = np.maximum.reduceat(cosines[inverse], starts, axis=0).T
    return result
