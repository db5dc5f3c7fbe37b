"""Share of the records that are right as a whole: every field, and no field too many."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ._answers import PerAnswer
from ._records import per_record

__all__ = ["KINDS", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tolerance: float = Field(0.0, ge=0, description="How far a number may be off, as a share of the right one.")


def build(settings: Settings, context: Context) -> PerAnswer:
    """1 where an item's record is that of a reference, else 0. An answer that is no JSON object is not scored."""
    return per_record(lambda shares: float(all(share == 1 for share in shares.values())), tolerance=settings.tolerance)
