"""Share of the records that are right as a whole: every field, and no field too many."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ...values import Example
from ._answers import PerAnswer, references_of
from ._records import record_of, share

__all__ = ["KINDS", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tolerance: float = Field(0.0, ge=0, description="How far a number may be off, as a share of the right one.")


def build(settings: Settings, context: Context) -> PerAnswer:
    """1 where an item's record is that of a reference, else 0. An answer that is no JSON object is not scored."""

    def value(answer: str, example: Example) -> float:
        ours = record_of(answer)
        records = [record for reference in references_of(example) if (record := record_of(reference)) is not None]
        if ours is None or not records:
            return float("nan")
        return float(any(all(part == 1 for part in share(ours, record, settings.tolerance).values()) for record in records))

    return PerAnswer(value)
