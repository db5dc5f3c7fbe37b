"""Settings of a training from options of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import InputError, Problem, suggest
from .run import overrides

M = TypeVar("M", bound=BaseModel)


def settings_from(model: type[M], named: Mapping[str, Any], given: Sequence[str] | None) -> M:
    """named: values of options of their own; given: KEY=VALUE of --set, which win. Raises InputError with all problems."""
    values = {**named, **overrides(given or ())}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError([_problem(model, item) for item in error.errors()]) from None


def _problem(model: type[BaseModel], item: Any) -> Problem:
    name = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return Problem(f"there is no setting '{name}'", suggest(name, model.model_fields), field="--set")
    return Problem(str(item["msg"]), f"Got {item.get('input')!r}.", field=f"--set {name}")
