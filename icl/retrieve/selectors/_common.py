"""What the selectors share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ..pools import FromPool

__all__ = ["FromPool", "StageSettings"]


class StageSettings(BaseModel):
    """Options of every selector."""

    model_config = ConfigDict(extra="forbid")
    n: int | None = Field(
        default=None,
        ge=1,
        description="How many candidates it leaves where another stage follows; the last stage leaves as many as there are shots.",
    )
