"""What the selectors share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from ...values import Example, Hit
from ..pools import FromPool

__all__ = ["FromPool", "StageSettings", "shared_hits"]


class StageSettings(BaseModel):
    """Options of every selector."""

    model_config = ConfigDict(extra="forbid")
    n: int | None = Field(
        default=None,
        ge=1,
        description="How many candidates it leaves where another stage follows; the last stage leaves as many as there are shots.",
    )


def shared_hits(rows: Sequence[Example], k: int, leave_out: Callable[[Example], bool]) -> list[Hit]:
    """The first k rows that stay, with score 0: marked as shared where they are the first k for every query, since none is left out."""
    kept: list[Example] = []
    all_there = True
    for row in rows:
        if len(kept) == k:
            break
        if leave_out(row):
            all_there = False
        else:
            kept.append(row)
    return [Hit(row.uid, 0.0, row, all_there) for row in kept]
