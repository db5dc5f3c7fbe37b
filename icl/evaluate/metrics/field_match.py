"""Share of a record's fields that are right: text and numbers as they are, lists by what they share; invented fields count as wrong."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ._answers import PerAnswer
from ._records import per_record

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
    return per_record(
        lambda shares: sum(shares.values()) / len(shares) if shares else 1.0, fields=settings.fields, tolerance=settings.tolerance
    )
