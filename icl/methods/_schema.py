"""Records as answers: the JSON schema that what a model writes is held to."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..errors import InputError, MissingExtraError, Problem
from ..files import read_text
from ..protocols import LanguageModel


def schema_of(value: Any) -> dict[str, Any] | None:
    """A schema from a dict, a pydantic class, or the path of a JSON file. Raises InputError."""
    if value is None:
        return None
    if isinstance(value, type) and issubclass(value, BaseModel):
        return value.model_json_schema()
    if isinstance(value, str | Path):
        try:
            value = json.loads(read_text(Path(value), what="schema"))
        except ValueError as error:
            raise InputError(Problem(f"not JSON: {error}", "Give a file with one JSON schema.", str(value), field="answer")) from None
    if not isinstance(value, Mapping) or value.get("type") != "object":
        raise InputError(
            Problem("the schema of a record describes an object", 'Give one with "type": "object", or a pydantic class.', field="answer")
        )
    return dict(value)


def constrains(lm: LanguageModel) -> bool:
    """Whether a model can be held to a schema while it writes. Raises MissingExtraError if only the package for it is missing."""
    if "constraint" not in inspect.signature(lm.generate).parameters:
        return False
    if find_spec("llguidance") is None:
        raise MissingExtraError("llguidance", "constrain", "records that follow a JSON schema")
    return True
