"""Rows in: files, dataframes and hub data sets become a Task; label budgets, the leak guard and the data report.

Names load on first use: `validate` on a suite asks for none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .budget import draw
    from .leaks import Leaks, duplicate_groups, leak_guard
    from .rows import read_rows
    from .summary import DataReport, report
    from .task import Rejected, Task

_WHERE = {
    "Task": ".task",
    "Rejected": ".task",
    "draw": ".budget",
    "Leaks": ".leaks",
    "leak_guard": ".leaks",
    "duplicate_groups": ".leaks",
    "DataReport": ".summary",
    "report": ".summary",
    "read_rows": ".rows",
}
__all__ = ["DataReport", "Leaks", "Rejected", "Task", "draw", "duplicate_groups", "leak_guard", "read_rows", "report"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'icl.data' has no attribute '{name}'")
    value = getattr(import_module(_WHERE[name], __name__), name)
    globals()[name] = value
    return value
