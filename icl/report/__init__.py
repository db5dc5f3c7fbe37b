"""Reports: what a run found, for people."""

from .comparison import comparison_table
from .console import plan_table, table

__all__ = ["comparison_table", "plan_table", "table"]
