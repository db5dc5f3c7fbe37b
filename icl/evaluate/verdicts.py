"""What a metric finds out at a cost: a generated program's run, a judging model's opinion.

Such a metric has an attribute `verdicts`, a dict: a digest of all that a verdict depends on -> its value. It reads there what is known and writes
there what is new. A run keeps them in its store, so that a comparison, a page or an export made of it later runs and asks nothing anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .store import RunStore


def recall(metrics: Iterable[Any], store: RunStore) -> None:
    """Tell metrics what the store knows."""
    dear = [metric for metric in metrics if hasattr(metric, "verdicts")]
    if dear:
        known = store.verdicts()
        for metric in dear:
            metric.verdicts.update(known)


def keep(metrics: Iterable[Any], store: RunStore) -> None:
    """Put into the store what metrics found out."""
    for metric in metrics:
        if getattr(metric, "verdicts", None):
            store.add_verdicts(metric.verdicts)
