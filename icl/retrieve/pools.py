"""Pools that change while they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ..values import Example

if TYPE_CHECKING:
    from .index import DemoIndex

T = TypeVar("T")


class FromPool(Generic[T]):
    """Something computed from the pool, once, and again after rows were added or removed: a pool may be live."""

    def __init__(self, pool: Sequence[Example], compute: Callable[[Sequence[Example]], T]) -> None:
        self._pool, self._compute = pool, compute
        self._seen: Any = None
        self._value: T

    def __call__(self) -> T:
        seen = self._pool.version if isinstance(self._pool, LivePool) else tuple(example.uid for example in self._pool)
        if self._seen is None or (seen is not self._seen and seen != self._seen):
            self._value, self._seen = self._compute(self._pool), seen
        return self._value


class LivePool(Sequence[Example]):
    """The rows of an index as they are at the moment."""

    def __init__(self, index: DemoIndex) -> None:
        self._live = index

    @property
    def version(self) -> Sequence[Example]:
        """Another object after any change."""
        return self._live.examples

    def __len__(self) -> int:
        return len(self._live)

    @overload
    def __getitem__(self, i: int) -> Example: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Example]: ...
    def __getitem__(self, i: int | slice) -> Example | Sequence[Example]:
        return self._live.examples[i]
