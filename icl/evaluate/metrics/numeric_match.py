"""Share of the answers whose last number equals that of a reference; an answer without a number is not scored."""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ...readout import numbers_in
from ...values import Example
from ._answers import PerAnswer, references_of

__all__ = ["KINDS", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tolerance: float = Field(0.0, ge=0, description="How far the two may be apart and still be the same.")
    relative: bool = Field(False, description="Whether the tolerance is a share of the reference.")


def build(settings: Settings, context: Context) -> PerAnswer:
    """Numbers are compared as decimals, so that 18 and 18.00 are one and 0.3 is exactly three tenths."""
    tolerance = Decimal(str(settings.tolerance))

    def value(answer: str, example: Example) -> float:
        ours = _last(answer)
        theirs = [number for reference in references_of(example) if (number := _last(reference)) is not None]
        if ours is None or not theirs:
            return float("nan")
        return float(any(abs(ours - number) <= tolerance * (abs(number) if settings.relative else 1) for number in theirs))

    return PerAnswer(value)


def _last(text: str) -> Decimal | None:
    """The last number of a text; None if it has none."""
    found = numbers_in(text)
    return Decimal(found[-1]) if found else None
