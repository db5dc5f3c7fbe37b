"""Keys of the cache of scores and answers: digests of everything that could change a digit."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Part: TypeAlias = "bool | int | float | str | bytes | NDArray[np.integer[Any]] | Sequence[Part] | None"
_TOO_LARGE = "an integer of a key does not fit into 32 bits"


def batch_key(*parts: Part) -> bytes:
    """32 bytes that stand for a planned batch of scores.

    parts: everything that could change a digit of it, in an order of the caller's own: the model's fingerprint, `conditions(device)`, token
    ids, positions, what is read, the keys of batches it builds on. Every part goes in with its type and length, so that no two lists of
    parts look alike; integers in a list, a tuple or an array of any width are the same. Raises TypeError for another type of part,
    OverflowError for a sequence with an integer beyond 32 bits.
    """
    return _key(b"icl scores 1", parts)


def text_key(
    fingerprint: Part,
    dtype: str,
    prompts: Sequence[Sequence[int]],
    *,
    n: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    constraint: Part = None,
) -> bytes:
    """32 bytes that stand for the texts of a group of prompts that are written together.

    fingerprint: of the model, with `conditions(device)`. prompts: the token ids of all prompts of the group, in order. constraint: what
    restricts the texts (a regular expression, a schema, the allowed choices). Without sampling the seed is left out of the key.
    """
    drawn = (n, float(temperature), seed if temperature else None)
    return _key(b"icl texts 1", (fingerprint, dtype, list(prompts), drawn, max_new_tokens, list(stop), constraint))


def _key(purpose: bytes, parts: Sequence[Part]) -> bytes:
    total = hashlib.blake2b(digest_size=32, person=purpose)
    for part in parts:
        _feed(total.update, part)
    return total.digest()


def _feed(update: Callable[[Any], None], part: Part) -> None:
    if isinstance(part, np.ndarray):
        _feed_integers(update, part.shape, _narrow(part))
    elif isinstance(part, str):
        _feed_bytes(update, b"s", part.encode("utf-8", "surrogatepass"))
    elif isinstance(part, bytes):
        _feed_bytes(update, b"y", part)
    elif part is None or isinstance(part, bool | int):
        _feed_bytes(update, b"p", repr(part).encode())
    elif isinstance(part, float):
        _feed_bytes(update, b"f", part.hex().encode())
    elif isinstance(part, list | tuple):
        if all(type(first) is int for first in part[:1]) and (raw := _packed(part)) is not None:
            _feed_integers(update, (len(part),), raw)
            return
        update(b"l" + _eight(len(part)))
        for inner in part:
            _feed(update, inner)
    else:
        raise TypeError(f"a key cannot be made of {type(part).__name__}")


def _feed_bytes(update: Callable[[Any], None], kind: bytes, raw: bytes) -> None:
    update(kind + _eight(len(raw)) + raw)


def _feed_integers(update: Callable[[Any], None], shape: Sequence[int], raw: Any) -> None:
    update(b"a" + _eight(len(shape)) + b"".join(map(_eight, shape)))
    update(raw)


def _packed(values: Sequence[Any]) -> bytes | None:
    """The integers as 32 bits each, None if there is something else among them. `struct` is twice as fast here as numpy."""
    try:
        return struct.pack(f"<{len(values)}i", *values)
    except struct.error:
        if all(isinstance(value, int) for value in values):
            raise OverflowError(_TOO_LARGE) from None
        return None


def _narrow(values: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    if values.dtype.kind not in "iu":
        raise TypeError(f"a key is made of whole numbers, not of an array of {values.dtype}")
    if values.size and not np.can_cast(values.dtype, np.int32):
        bounds = np.iinfo(np.int32)
        if values.min() < bounds.min or values.max() > bounds.max:
            raise OverflowError(_TOO_LARGE)
    return np.ascontiguousarray(values, dtype="<i4")


def _eight(n: int) -> bytes:
    return n.to_bytes(8, "little")
