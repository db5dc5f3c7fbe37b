"""Generators that depend on what they are for, never on order, batch or process."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def seed_for(seed: int, *parts: str | int) -> int:
    """A 64-bit seed for one purpose: the same for the same seed and parts, everywhere (not salted like `hash()`)."""
    text = ":".join(str(p) for p in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def rng_for(seed: int, *parts: str | int) -> random.Random:
    """The generator of one item, such as `rng_for(seed, "random", query.uid)`."""
    return random.Random(seed_for(seed, *parts))


def numpy_rng_for(seed: int, *parts: str | int) -> np.random.Generator:
    """As `rng_for`, for arrays."""
    import numpy as np

    return np.random.default_rng(seed_for(seed, *parts))
