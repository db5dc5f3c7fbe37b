"""Share of the answers that are JSON as they stand (RFC 8259), without a word around it."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ...values import Example
from ._answers import PerAnswer

__all__ = ["KINDS", "Settings", "build"]

KINDS = frozenset({"answer"})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[str] = Field(default_factory=list, description="Keys that it must have: then it must be an object.")


def build(settings: Settings, context: Context) -> PerAnswer:
    """1 if the answer parses and has the keys, else 0."""

    def value(answer: str, example: Example) -> float:
        try:
            found = json.loads(answer, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return 0.0
        return float(not settings.keys or (isinstance(found, dict) and set(settings.keys) <= set(found)))

    return PerAnswer(value)


def _refuse(constant: str) -> None:
    """Python reads NaN and Infinity, which JSON does not have."""
    raise ValueError(constant)
