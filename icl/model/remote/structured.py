"""A server's own structured output (`response_format` with a JSON schema): whether it acts on it, and how records are asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...endpoint.meter import Tokens, estimated_tokens
from ...endpoint.wire import GivenUp, Job
from .dialect import CHAT, COMPLETIONS, Dialect
from .probe import Ask, Capabilities
from .shapes import choices, text_of

FIELD = "response_format"
_ODD_KEY, _ODD = "zq_7", "vx-31"
ODD_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {_ODD_KEY: {"type": "string", "enum": [_ODD]}},
    "required": [_ODD_KEY],
    "additionalProperties": False,
}
"""One record follows it, which no model writes by chance."""
_PROMPT = "The cat sat on the mat and looked at the moon."
_ROOM = 64
_REFUSED = (400, 422)


def fields_for(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What asks for a record. `strict` where the schema is one that providers can be strict about: otherwise some refuse it."""
    strict = {"strict": True} if _all_required(schema) else {}
    return {FIELD: {"type": "json_schema", "json_schema": {"name": "record", "schema": dict(schema), **strict}}}


def _all_required(schema: Any) -> bool:
    """Whether every object in it requires all its fields and allows no others."""
    if isinstance(schema, list):
        return all(map(_all_required, schema))
    if not isinstance(schema, Mapping):
        return True
    if "properties" in schema or schema.get("type") == "object":
        named = schema.get("properties", {})
        if (
            not isinstance(named, Mapping)
            or set(named) != set(schema.get("required", ()))
            or schema.get("additionalProperties") is not False
        ):
            return False
        return all(map(_all_required, named.values())) and all(_all_required(v) for k, v in schema.items() if k != "properties")
    return all(map(_all_required, schema.values()))


def why_not(ask: Ask, dialect: Dialect, found: Capabilities) -> dict[str, str | None]:
    """Endpoint -> why it does not hold to a schema; None: it does. Believed only if the one record that is right comes back."""
    paths = [path for path, there in ((COMPLETIONS, found.completions), (CHAT, found.chat)) if there]
    results = ask([_job(dialect, path) for path in paths])
    return {path: _verdict(result) for path, result in zip(paths, results, strict=True)}


def _job(dialect: Dialect, path: str) -> Job:
    more = {"temperature": 0, **fields_for(ODD_SCHEMA)}
    if path == CHAT:
        body = dialect.chat([{"role": "user", "content": _PROMPT}], _ROOM, **more)
    else:
        body = dialect.completion(_PROMPT, _ROOM, **more)
    return Job(path, body, lambda data: text_of(choices(data, 1)[0]), Tokens(estimated_tokens(_PROMPT), _ROOM), same=3)


def _verdict(result: Any) -> str | None:
    if isinstance(result, GivenUp):
        return f"it refuses {FIELD}: {result.why}" if is_refusal(result) else f"asking for it with {FIELD} failed: {result.why}"
    try:
        right = json.loads(result) == {_ODD_KEY: _ODD}
    except ValueError:
        right = False
    return None if right else f"it takes {FIELD} and does not act on it"


def is_refusal(given_up: GivenUp) -> bool:
    """Whether the request as such was refused, as a schema that the provider does not know its way with is."""
    return given_up.status in _REFUSED


def one_line(text: str) -> str:
    """A record on one line, since providers may spread it over many; what is no JSON stays as it is."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError:
        return text
