"""Models behind an OpenAI-compatible address. Names load on first use: nothing here is needed for a model on this machine."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "RemoteModel": "icl.model.remote.client",
    "RemoteOptions": "icl.model.remote.options",
    "Answer": "icl.model.remote.values",
    "Failed": "icl.model.remote.values",
    "Usage": "icl.model.remote.values",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'icl.model.remote' has no attribute '{name}'")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
