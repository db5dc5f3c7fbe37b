"""The command line. Thin: each command parses, calls one function, prints. `icl --help` imports nothing heavy."""

from __future__ import annotations

from .app import main

__all__ = ["main"]
