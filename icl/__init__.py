"""icl: prompt or fine-tune? Few-shot prompts from your labelled examples, judged beside trained rivals, and the winner shipped.

Names load on first use, so that `import icl` and the command line stay instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_WHERE = {
    "Task": "icl.data",
    "load_model": "icl.model",
    "DemoIndex": "icl.retrieve",
    "Template": "icl.prompt",
    "FewShot": "icl.methods.few_shot",
    "score": "icl.evaluate",
    "crossover": "icl.evaluate.crossover",
    "run": "icl.suite",
    "compare": "icl.audit",
    "decide": "icl.decision",
    "leave_out": "icl.audit",
    "label_errors": "icl.evaluate.label_errors",
    "suggest": "icl.evaluate.suggest",
    "load": "icl.ship",
    "Example": "icl.values",
    "Hit": "icl.values",
    "Demonstration": "icl.values",
    "Prompt": "icl.values",
    "LabelScores": "icl.values",
    "Prediction": "icl.values",
    "Why": "icl.methods",
    "IclError": "icl.errors",
    "InputError": "icl.errors",
}
__all__ = sorted([*_WHERE, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'icl' has no attribute '{name}'")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
