"""Share of a record's fields that are right: text and numbers as they are, lists by what they share; invented fields count as wrong."""

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

    fields: list[str] = Field(
        default_factory=list, description="Fields that are looked at; default: all that the record or the answer has."
    )
    tolerance: float = Field(0.0, ge=0, description="How far a number may be off, as a share of the right one.")


def build(settings: Settings, context: Context) -> PerAnswer:
    """The best over an item's references. An answer that is no JSON object is not scored."""

    def value(answer: str, example: Example) -> float:
        ours = record_of(answer)
        records = [record for reference in references_of(example) if (record := record_of(reference)) is not None]
        if ours is None or not records:
            return float("nan")
        found = [_mean(share(_only(ours, settings), _only(record, settings), settings.tolerance)) for record in records]
        return max(found)

    return PerAnswer(value)


def _only(record: dict[str, object], settings: Settings) -> dict[str, object]:
    return {name: value for name, value in record.items() if not settings.fields or name in settings.fields}


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / len(shares) if shares else 1.0
