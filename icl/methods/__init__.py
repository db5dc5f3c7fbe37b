"""The competitors, one file each. A file offers `KINDS`, `NEEDS_LABELS`, `NEEDS_MODEL`, `Settings`,

    build(settings, context: MethodContext) -> Method            what a suite uses
    load(folder, state, *, lm=None, device=None) -> Predictor    the other half of its predictors' `save`

Files that start with an underscore hold what several methods share.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "FewShot": "few_shot",
    "FewShotPredictor": "_predictor",
    "model_of": "_folder",
    "write_regression": "_folder",
    "row_of": "_folder",
    "example_of": "_folder",
    "readout_problems": "few_shot",
    "refuse_without_labels": "_calibrate",
    "reread": "_labels",
    "schema_of": "_schema",
    "Why": "_why",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'icl.methods' has no attribute '{name}'")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
