"""Records as answers: the JSON schema that what a model writes is held to."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel

from ..errors import InputError, MissingExtraError, Problem
from ..files import read_text
from ..protocols import LanguageModel

_VALUES = frozenset({"const", "default", "enum", "examples"})
"""Keys of a schema that hold data, in which a `$ref` is none."""


def schema_of(value: Any) -> dict[str, Any] | None:
    """A schema from a dict, a pydantic class, or the path of a JSON file. Raises InputError, also for a `$ref` that leads nowhere: a model
    that is held to the schema would fail on every item."""
    if value is None:
        return None
    file = str(value) if isinstance(value, str | Path) else None
    if isinstance(value, type) and issubclass(value, BaseModel):
        value = value.model_json_schema()
    if isinstance(value, str | Path):
        try:
            value = json.loads(read_text(Path(value), what="schema"))
        except ValueError as error:
            raise InputError(Problem(f"not JSON: {error}", "Give a file with one JSON schema.", str(value), field="answer")) from None
    if not isinstance(value, Mapping) or _root(value).get("type") != "object":
        raise InputError(
            Problem("the schema of a record describes an object", 'Give one with "type": "object", or a pydantic class.', field="answer")
        )
    fix = "A '$ref' names a place in this same file, such as #/$defs/Name: define it there, or copy what another file defines."
    if wrong := [ref for ref in dict.fromkeys(_references(value)) if _led_to(ref, value) is None]:
        raise InputError([Problem(f"'$ref': {ref!r} leads nowhere", fix, file, field="answer") for ref in wrong])
    return dict(value)


def _root(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a schema describes: itself, or what it refers to as a whole, as that of a pydantic class that holds itself does."""
    reference = schema.get("$ref")
    found = _led_to(reference, schema) if isinstance(reference, str) and "type" not in schema else schema
    return found if isinstance(found, Mapping) else {}


def _references(schema: Any) -> Iterator[Any]:
    """Every `$ref` of a schema."""
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key == "$ref" and not isinstance(value, Mapping):  # else a field of that name
                yield value if isinstance(value, str) else json.dumps(value)
            elif key not in _VALUES:
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _led_to(reference: str, schema: Mapping[str, Any]) -> Mapping[str, Any] | bool | None:
    """The part of the schema that `#`, or a JSON pointer (RFC 6901), leads to; None if there is none. Other files and addresses are not read."""
    if not reference.startswith("#") or (reference != "#" and not reference.startswith("#/")):
        return None
    at: Any = schema
    for part in unquote(reference).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(at, Mapping) and name in at:
            at = at[name]
        elif isinstance(at, list) and name.isdecimal() and int(name) < len(at):
            at = at[int(name)]
        else:
            return None
    return at if isinstance(at, Mapping | bool) else None


def constrains(lm: LanguageModel) -> bool:
    """Whether a model can be held to a schema while it writes. Raises MissingExtraError if only the package for it is missing."""
    if "constraint" not in inspect.signature(lm.generate).parameters:
        return False
    if find_spec("llguidance") is None:
        raise MissingExtraError("llguidance", "constrain", "records that follow a JSON schema")
    return True
