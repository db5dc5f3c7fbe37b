"""A predictor in a notebook: what it is and what it learned from, as a small table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

MOST_LABELS = 20
"""Labels that are named; of more, how many there are."""
_SETTINGS = ("template", "retriever", "order", "shots", "readout", "calibration", "format", "k", "weighted", "base")
_TRAINED = ("base", "kind", "epochs")
"""Of the record of a training."""


def shown(predictor: Any) -> str:
    """HTML in which everything is escaped. Nothing is loaded or computed for it."""
    rows = {"method": type(predictor).__name__.removesuffix("Predictor")}
    rows |= {"input": ", ".join(getattr(predictor, "inputs", ()))}
    rows |= {"labels": _labels(tuple(getattr(predictor, "labels", None) or ()))}
    n = _n_examples(predictor)
    rows |= {"learned from": "" if n is None else f"{n:,} examples"}
    for each in (getattr(predictor, "prompted", predictor), predictor):
        made = getattr(each, "method", each)
        rows |= {key: said for key in _SETTINGS if (said := _said(getattr(made, key, None)))}
    training = getattr(predictor, "training", None) or {}
    rows |= {key: said for key in _TRAINED if key not in rows and (said := _said(training.get(key)))}
    lines = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows.items() if value)
    return f"<table><caption>{escape(str(predictor.name))}</caption>{lines}</table>"


def _labels(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - MOST_LABELS} more" if len(labels) > MOST_LABELS else ""
    return ", ".join(map(str, labels[:MOST_LABELS])) + more


def _n_examples(predictor: Any) -> int | None:
    counts = getattr(predictor, "counts", None)
    if counts is not None:
        return int(sum(counts.values()))
    for key in ("pool", "index"):
        held = getattr(predictor, key, None)
        if held is not None:
            return len(held if key == "pool" else held.examples)
    n = (getattr(predictor, "training", None) or {}).get("n_rows")
    return int(n) if n is not None else None


def _said(value: Any) -> str:
    if value is None or callable(value):
        return ""
    named = getattr(value, "name", value)
    return str(named) if isinstance(named, str | int | float) else ", ".join(map(str, named)) if isinstance(named, list | tuple) else ""
