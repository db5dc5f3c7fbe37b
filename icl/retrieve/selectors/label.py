"""Takes out rows by their label."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ...errors import InputError, Problem, suggest
from ...plugins import Context
from ...protocols import Selector
from ...values import Example
from ..filters import Filter
from ._common import StageSettings


class Settings(StageSettings):
    only: list[str] | None = Field(None, description="Labels that stay; default: all.")
    never: list[str] = Field([], description="Labels that are taken out.")


def build(settings: Settings, context: Context) -> Selector:
    """Raises InputError for a label that the task does not have."""
    unknown = [label for label in [*(settings.only or ()), *settings.never] if context.labels and label not in context.labels]
    if unknown:
        raise InputError([Problem(f"there is no label '{label}'", suggest(label, context.labels), field="label") for label in unknown])

    def why(example: Example, key: Any) -> str | None:
        target = str(example.target)
        if (settings.only is not None and target not in settings.only) or target in settings.never:
            return f"label {target}"
        return None

    return Filter(context.pool, why)
