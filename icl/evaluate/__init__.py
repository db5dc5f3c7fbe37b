"""Evaluation: the suite file, the one run loop and its store, metrics and intervals. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .check import load_suite
    from .jsonschema import suite_schema
    from .loading import LoadedSuite, list_suites
    from .schema import Suite
    from .scoring import Metric, score
    from .store import RunStore

_WHERE = {
    "LoadedSuite": ".loading",
    "Metric": ".scoring",
    "RunStore": ".store",
    "Suite": ".schema",
    "list_suites": ".loading",
    "load_suite": ".check",
    "score": ".scoring",
    "suite_schema": ".jsonschema",
}
__all__ = ["LoadedSuite", "Metric", "RunStore", "Suite", "list_suites", "load_suite", "score", "suite_schema"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'icl.evaluate' has no attribute '{name}'")
    value = getattr(import_module(_WHERE[name], __name__), name)
    globals()[name] = value
    return value
