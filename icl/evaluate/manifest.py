"""The manifest of a run: digests of everything that could change a digit of its results. Times, paths and the host are not in it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .. import __version__
from ..errors import Problem
from ..model.conditions import instructions, settings

SCHEMA = 1
PACKAGES = (
    "torch", "transformers", "tokenizers", "sentence-transformers", "faiss-cpu", "bm25s", "numpy", "scipy", "scikit-learn", "jinja2", "peft",
)  # fmt: skip


def machine(uses_torch: bool) -> dict[str, Any]:
    """Instruction set, thread count and kernel settings.

    uses_torch: whether the run does. Without it the thread count changes nothing and is left out, whatever else the process has loaded.
    """
    threads = None
    if uses_torch:
        import torch

        threads = torch.get_num_threads()
    return {"architecture": platform.machine(), "instructions": list(instructions()), "threads": threads, "settings": settings()}


def packages() -> dict[str, str | None]:
    """Versions of the packages that compute something."""
    return {"python": ".".join(map(str, sys.version_info[:2])), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def manifest(*, uses_torch: bool, **parts: Any) -> dict[str, Any]:
    """The parts given (suite, tasks, templates, models, encoders, seed, limit) with versions and machine."""
    return {"schema": SCHEMA, "icl": __version__, **parts, "packages": packages(), "machine": machine(uses_torch)}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Problem]:
    """One Problem for every value that differs, by its dotted name."""
    before, after = dict(_flat(old)), dict(_flat(new))
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    return [Problem(f"the run was started with {before.get(name)!r}, now it is {after.get(name)!r}", field=name) for name in names]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, list(value) if isinstance(value, tuple) else value
