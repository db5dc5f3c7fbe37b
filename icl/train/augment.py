"""More rows from few: texts with words dropped, swapped, or replaced by their nearest neighbours.

Wei and Zou 2019, https://arxiv.org/abs/1901.11196 (EDA). Departures: neighbours come from the base's own embedding of word pieces instead
of WordNet, and only words of the pool are put in; each epoch shows each row anew.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEAREST = 5
"""Words that one is replaced by, drawn evenly."""
CLOSE = 0.4
"""Smallest cosine of a neighbour."""
OFTEN = 0.05
"""Share of the texts: words that more have are not replaced."""
_WORD = re.compile(r"\w+(?:['’]\w+)?")


class Paraphrase(BaseModel):
    """Texts in other words, from a language model: each text of the pool once."""

    model_config = ConfigDict(extra="forbid")
    model: str = Field(min_length=1, description="The language model: smollm2, a folder, a hub id or an address.")
    n: int = Field(2, ge=1, le=16, description="Paraphrases of each text; an epoch shows the text itself or one of them.")
    temperature: float = Field(0.7, gt=0, description="At which they are drawn.")
    template: str = Field("rewrite", description="The prompt: a template with one input field, answered in words.")
    max_new_tokens: int = Field(64, ge=1, description="Longest paraphrase.")


class Augment(BaseModel):
    """Shares of a text's words; 0 leaves them alone. And what a language model makes of it."""

    model_config = ConfigDict(extra="forbid")
    drop: float = Field(0.0, ge=0, lt=1, description="Left out.")
    swap: float = Field(0.0, ge=0, lt=1, description="Exchanged with the next word.")
    synonyms: float = Field(0.0, ge=0, lt=1, description="Replaced by a word of the pool that is near to it in the base's embedding.")
    paraphrase: Paraphrase | None = Field(None, description="Whole texts in other words, by a language model.")


def changed(text: str, how: Augment, rng: random.Random, synonyms: Mapping[str, Sequence[str]]) -> str:
    """The text with some of its words changed; what stands between words stays, and one word at least is left."""
    spans = list(_WORD.finditer(text))
    words: list[str | None] = [span.group() for span in spans]
    for i, word in enumerate(words):
        near = synonyms.get(str(word).lower(), ())
        if near and rng.random() < how.synonyms:
            words[i] = rng.choice(near)
    for i in range(len(words) - 1):
        if rng.random() < how.swap:
            words[i], words[i + 1] = words[i + 1], words[i]
    dropped = [rng.random() < how.drop for _ in words]
    if words and all(dropped):
        dropped[rng.randrange(len(words))] = False
    words = [None if gone else word for word, gone in zip(words, dropped, strict=True)]
    parts, at = [], 0
    for span, word in zip(spans, words, strict=True):
        between = text[at : span.start()]
        parts += [between, word] if word is not None else [between.rstrip() if between[-1:].isspace() and at else between]
        at = span.end()
    return "".join(part for part in [*parts, text[at:]] if part is not None)


def nearest_words(texts: Sequence[str], vectors_of: Callable[[Sequence[str]], NDArray[np.float32]]) -> dict[str, list[str]]:
    """Word in lower case -> at most `NEAREST` other words of these texts, nearest first, by the cosine of their vectors.

    vectors_of: words -> (n, d). Words of digits and of fewer than three letters have no neighbours and are none. Nor, as in the paper, are
    function words, which carry the grammar (who, what, not) and are near to one another: English ones, and in any language words that
    more than a twentieth of the texts have, and more than two.
    """
    import numpy as np

    per_text = [{w for m in _WORD.finditer(text) if len(w := m.group().lower()) > 2 and not w.isdigit()} for text in texts]
    n_texts = Counter(word for words in per_text for word in words)
    often = max(2.0, len(texts) * OFTEN)
    words = sorted(w for w, n in n_texts.items() if n <= often and w not in _function_words())
    if len(words) < 2:
        return {}
    vectors = vectors_of(words)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    found: dict[str, list[str]] = {}
    for start in range(0, len(words), 1024):
        cosines = vectors[start : start + 1024] @ vectors.T
        for i, row in enumerate(cosines, start):
            row[i] = -1.0
            best = np.argsort(-row, kind="stable")[:NEAREST]
            if near := [words[j] for j in best if row[j] >= CLOSE]:
                found[words[i]] = near
    return found


@lru_cache(maxsize=1)
def _function_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def word_vectors(tokenizer: Any, model: Any) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Words -> the mean of the input embeddings of their pieces, less the mean over all words (else everything is near to everything)."""

    def vectors(words: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        table = model.get_input_embeddings().weight.detach().float().cpu().numpy()
        pieces = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        made = np.stack([table[ids].mean(axis=0) if ids else np.zeros(table.shape[1]) for ids in pieces])
        centred: NDArray[np.float32] = (made - made.mean(axis=0)).astype(np.float32)
        return centred

    return vectors
