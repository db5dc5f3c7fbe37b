"""Takes out rows by the value of an input field, or keeps those that share it with the query."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from pydantic import Field

from ...errors import InputError, Problem, suggest
from ...plugins import Context
from ...protocols import Selector
from ...values import Example, field_text
from ..filters import Filter
from ._common import StageSettings


class Settings(StageSettings):
    name: str = Field(description="The input field that is looked at.")
    one_of: list[str | int | float] | None = Field(None, description="Values that stay; default: all.")
    none_of: list[str | int | float] = Field([], description="Values that are taken out.")
    same_as_query: bool = Field(False, description="Only rows whose value is that of the query stay.")


def build(settings: Settings, context: Context) -> Selector:
    """Values are compared as text. Raises InputError if the rows have no such field."""
    name = settings.name
    only = None if settings.one_of is None else {str(value) for value in settings.one_of}
    never = {str(value) for value in settings.none_of}
    if len(context.pool) and name not in context.pool[0].fields:
        raise InputError(Problem(f"the rows have no field '{name}'", suggest(name, list(context.pool[0].fields)), field="field.name"))

    def value_of(example: Example) -> str | None:
        return field_text(example.fields[name]) if name in example.fields else None

    def key(query: Example) -> Hashable:
        return value_of(query) if settings.same_as_query else None

    def why(example: Example, key: Any) -> str | None:
        value = value_of(example)
        if settings.same_as_query and value != key:
            return f"another {name} than the query"
        return f"{name} {value}" if (only is not None and value not in only) or value in never else None

    return Filter(context.pool, why, key)
