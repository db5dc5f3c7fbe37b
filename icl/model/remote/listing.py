"""Is the server there, and does it serve the model?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...endpoint.address import Address
from ...endpoint.meter import Tokens
from ...endpoint.wire import Broken, GivenUp, Job, Wire
from ...errors import InputError, Problem, suggest

UNKNOWN_WINDOW = 1 << 20
"""As for models on this machine that name no limit. A server refuses what is too long, and the item says so."""
_SHOWN = 30


@dataclass(frozen=True, slots=True)
class Listed:
    """A served model."""

    model: str
    """The name by which the server knows it."""
    window: int = UNKNOWN_WINDOW


def listed(wire: Wire, address: Address) -> Listed:
    """The model of an address. Raises InputError if the server cannot be reached, refuses the key, or serves no such model."""
    (found,) = wire.send([Job("models", None, _read, Tokens(0, 0), same=3)]).results
    if isinstance(found, GivenUp):
        if found.status in (404, 405, 501) and "redirects" not in found.why and address.model:
            return Listed(address.model)  # no list of models here; the probe asks the model itself
        fix = "Check the address (it usually ends in /v1) and that the server runs."
        if found.status in (401, 403):
            fix = f"Put the key into the environment variable {wire.key.variable}, or name another with api_key_env."
            if not address.encrypted and not address.local:
                fix += " A key is never sent unencrypted to another network: use an https:// address."
        raise InputError(Problem(f"{address.base} does not list its models: {found.why}", fix, field="model"))
    entries: Mapping[str, Any] = found
    for name in (address.model, f"{address.model}:latest"):  # Ollama takes a name without its tag
        if name in entries:
            return Listed(name, _window(entries[name]))
    names = sorted(entries)
    known = suggest(address.model, names[:_SHOWN]) + (f" … ({len(names)} in all)" if len(names) > _SHOWN else "")
    what = f"{address.base} serves no model '{address.model}'" if address.model else f"the address {address.base} names no model"
    raise InputError(Problem(what, f"{known} Write {address.base}#MODEL.", field="model"))


def _read(data: Any) -> dict[str, Mapping[str, Any]]:
    entries = data.get("data") if isinstance(data, dict) else data
    if not isinstance(entries, list) or not all(isinstance(e, dict) and isinstance(e.get("id"), str) for e in entries):
        raise Broken("the answer is no list of models")
    return {entry["id"]: entry for entry in entries}


def _window(entry: Mapping[str, Any]) -> int:
    """Where servers say how much a model reads: vLLM, SGLang; OpenRouter, Together; Groq; llama.cpp."""
    meta = entry.get("meta")
    values = [entry.get(name) for name in ("max_model_len", "context_length", "context_window")]
    values += [meta.get(name) for name in ("n_ctx", "n_ctx_train")] if isinstance(meta, dict) else []
    return next((value for value in values if isinstance(value, int) and value > 0), UNKNOWN_WINDOW)
