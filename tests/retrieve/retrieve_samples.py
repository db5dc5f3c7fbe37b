"""What the tests of this room share: small examples, and encoders that need no weights."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from icl.values import Example, content_digest

TOPICS = {
    "card": "my new card has not arrived yet, where is the card that was posted",
    "refund": "please give me the money back for the broken kettle, a refund",
    "login": "the password is forgotten and the account is locked after the login",
}


def example(text: str, target: str | None = "card", occurrence: int = 0, **fields: str) -> Example:
    values = {"text": text, **fields}
    return Example(f"{content_digest(values)}-{occurrence}", values, target)


def pool_of(n: int, labels: Sequence[str] = tuple(TOPICS)) -> list[Example]:
    """n different texts, the label in turn."""
    rng = np.random.default_rng(7)
    rows = []
    for i in range(n):
        label = labels[i % len(labels)]
        words = TOPICS.get(label, label).split()
        rows.append(example(" ".join(rng.permutation(words)[:7]) + f" no {i}", label))
    return rows


class HashEncoder:
    """A bag of hashed words as a unit vector: texts with the same words are near, equal texts are equal, no weights are needed."""

    def __init__(self, dimensions: int = 32, name: str = "hash") -> None:
        self.name, self.dimensions = name, dimensions
        self.fingerprint = f"{name}-{dimensions}"
        self.encoded: Counter[str] = Counter()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded.update(texts)
        return np.stack([self._vector(t) for t in texts]) if len(texts) else np.zeros((0, self.dimensions), np.float32)

    def cut(self, texts: Sequence[str]) -> list[bool]:
        return [False for _ in texts]

    def _vector(self, text: str) -> np.ndarray:
        vector = np.full(self.dimensions, 1e-3)
        for word in text.split():
            seed = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
            vector += np.random.default_rng(seed).standard_normal(self.dimensions)
        return (vector / np.linalg.norm(vector)).astype(np.float32)
