"""Fitting, planning and predicting where the fault of one method, or of one item, must not take the others with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import CostLimitError, IclError, InputError
from ..progress import note
from ..protocols import LanguageModel
from ..values import Example, Prediction, TokenCounts
from .cells import Cell
from .prepare import Prepared

FIT_FAILED = "fitting failed:"
"""How the reason begins where a method could not be fitted."""


def fit(prepared: Prepared, cell: Cell, pool: Sequence[Example], lm: LanguageModel | None) -> tuple[Any, str | None]:
    """(the predictor, None), or (None, why there is none). What the user can mend (an InputError) stops the run."""
    task = prepared.tasks[cell.task].task
    try:
        return prepared.build(cell, lm).fit(pool, labels=task.labels, unlabelled=task.unlabelled), None
    except IclError:
        raise
    except Exception as error:  # one method's fault must not take the others with it
        why = f"{FIT_FAILED} {reason(error)}"
        note(f"{cell}: {why}")
        return None, why


def estimator(predictor: Any) -> str | None:
    """How the answers were found; None without a language model."""
    try:
        return getattr(predictor, "estimator", None)
    except IclError:  # a saved predictor that only writes prompts: its items say so
        return None


def predict(predictor: Any, queries: Sequence[Example], cell: Cell) -> list[Prediction]:
    """A unit at once; if that raises, item by item, and those that raise again are unscored with the reason."""
    try:
        return _checked(predictor.predict(queries), queries)
    except Exception as error:
        if isinstance(error, IclError) and not isinstance(error, InputError):
            raise
        note(f"{cell}: {reason(error)}; trying its {len(queries)} items one by one")
    answers: list[Prediction] = []
    for query in queries:
        try:
            answers += _checked(predictor.predict([query]), [query])
        except CostLimitError as error:
            rest = (None,) * (len(queries) - len(answers))
            raise CostLimitError(str(error), [*answers, *rest]) from None
        except Exception as error:
            answers += unscored([query], reason(error))
    return answers


def _checked(answers: Sequence[Prediction], queries: Sequence[Example]) -> list[Prediction]:
    """Raises ValueError unless there is one prediction per query, in order."""
    if [answer.uid for answer in answers] != [query.uid for query in queries]:
        raise ValueError(f"{len(answers)} predictions for {len(queries)} queries, or in another order")
    return list(answers)


def unscored(queries: Sequence[Example], why: str) -> list[Prediction]:
    return [Prediction(query.uid, None, why=why) for query in queries]


def reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def plan(predictor: Any, queries: Sequence[Example]) -> TokenCounts | None:
    """Tokens of a unit from a cold start; None for a method that has no plan."""
    if not hasattr(predictor, "plan"):
        return None
    try:
        counts: TokenCounts = predictor.plan(queries)
    except CostLimitError:
        raise
    except Exception:  # what cannot be planned cannot be predicted either, and that is where it is reported
        return None
    return counts
