"""Finding demonstrations: encoders, the index on disk, selectors, orders. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "load_encoder": "encoders",
    "SentenceEncoder": "encoders",
    "EndpointEncoder": "endpoint",
    "same_encoder": "encoders",
    "DemoIndex": "index",
    "build_retriever": "retriever",
    "build_order": "retriever",
    "Retrieved": "stages",
    "Step": "stages",
    "Filter": "filters",
    "vote_k": "annotate",
    "without_duplicates": "guard",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'icl.retrieve' has no attribute '{name}'")
    value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
