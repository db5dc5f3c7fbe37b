"""Reports: what a run found, for people."""

from .comparison import comparison_table
from .console import plan_table, table
from .figures import figures
from .notebook import run_html
from .page_answer import Answer
from .runs import Source as Shown

__all__ = ["Answer", "Shown", "comparison_table", "figures", "plan_table", "run_html", "table"]
