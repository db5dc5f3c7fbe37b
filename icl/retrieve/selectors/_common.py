"""What the selectors share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ...values import Example

T = TypeVar("T")


class StageSettings(BaseModel):
    """Options of every selector."""

    model_config = ConfigDict(extra="forbid")
    n: int | None = Field(default=None, ge=1)
    """How many candidates it leaves where another stage follows; the last stage leaves as many as there are shots."""


class FromPool(Generic[T]):
    """Something computed from the pool, once, and again after rows were added or removed: a pool may be live."""

    def __init__(self, pool: Sequence[Example], compute: Callable[[Sequence[Example]], T]) -> None:
        self._pool, self._compute = pool, compute
        self._uids: tuple[str, ...] | None = None
        self._value: T

    def __call__(self) -> T:
        uids = tuple(example.uid for example in self._pool)
        if uids != self._uids:
            self._value, self._uids = self._compute(self._pool), uids
        return self._value
