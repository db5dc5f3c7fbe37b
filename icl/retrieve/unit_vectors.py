"""Vectors from an encoder, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import InputError, Problem
from ..protocols import Encoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOLERANCE = 1e-3
"""How far a length may be from 1, and a row's cosine to its vector encoded again."""


def encoded(encoder: Encoder, texts: Sequence[str], dimensions: int | None = None) -> NDArray[np.float32]:
    """(n, d) float32, checked: anything that is not a finite unit vector would be found by nothing, or by everything."""
    import numpy as np

    vectors = np.ascontiguousarray(encoder.encode(texts), dtype=np.float32)
    d = encoder.dimensions if dimensions is None else dimensions
    if vectors.shape != (len(texts), d):
        raise InputError(
            Problem(f"the encoder '{encoder.name}' gave an array {vectors.shape}, expected {(len(texts), d)}", "Mend the encoder.")
        )
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))  # norm() would copy all of them
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < TOLERANCE))  # the negation also catches nan
    if len(wrong):
        raise InputError(
            Problem(
                f"the encoder '{encoder.name}' gave {len(wrong)} vectors that are not finite or not of length 1, "
                f"the first for the text {texts[wrong[0]][:60]!r}",
                "An encoder must return rows of length 1.",
            )
        )
    return vectors
