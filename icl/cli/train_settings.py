"""Settings of a training from options of the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import InputError, Problem, suggest
from .run import overrides

M = TypeVar("M", bound=BaseModel)


def method_settings(method: str, named: Mapping[str, Any], given: Sequence[str] | None) -> Any:
    """The settings of a method, as `settings_from` says."""
    from ..plugins import find, settings_of

    values = {**named, **(changed := overrides(given or ()))}
    try:
        return settings_of(find("method", method), values, "--set")
    except InputError as error:
        flags = set(named) - set(changed)
        raise InputError(
            [replace(p, field=_place(str(p.field).removeprefix("--set").lstrip("."), flags)) for p in error.problems]
        ) from None


def _place(path: str, flags: Collection[str]) -> str:
    """Where on the command line a setting was given. flags: settings whose values are those of options of their own."""
    name, _, inner = path.partition(".")
    return f"--{name.replace('_', '-')}" if name in flags and not inner else f"--set {path}".rstrip()


def settings_from(model: type[M], named: Mapping[str, Any], given: Sequence[str] | None) -> M:
    """named: values of options of their own; given: KEY=VALUE of --set, which win. Raises InputError with all problems."""
    from ..plugins import joined

    values = {**named, **(changed := overrides(given or ()))}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError([_problem(model, item, set(named) - set(changed)) for item in joined(model, error.errors())]) from None


def _problem(model: type[BaseModel], item: Any, flags: Collection[str]) -> Problem:
    name = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return Problem(f"there is no setting '{name}'", suggest(name, model.model_fields), field="--set")
    return Problem(str(item["msg"]), f"Got {item.get('input')!r}.", field=_place(name, flags))
