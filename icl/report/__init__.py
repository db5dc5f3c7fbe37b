"""Reports: what a run found, for people."""

from .console import plan_table, table

__all__ = ["plan_table", "table"]
