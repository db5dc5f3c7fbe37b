"""Reports: what a run found, for people."""

from .comparison import comparison_table
from .console import plan_table, table
from .figures import figures

__all__ = ["comparison_table", "figures", "plan_table", "table"]
