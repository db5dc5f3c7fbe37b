"""What selectors and orders ask the language model: many queries, each with demonstrations of their choice, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import CostLimitError, InputError, Problem
from ..prompt import Unfit
from ..values import Example, Hit
from ._labels import log_scores
from ._written import Lost

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ._predictor import FewShotPredictor


def score_many(predictor: FewShotPredictor, pairs: Sequence[tuple[Example, Sequence[Example]]]) -> list[NDArray[np.float64] | None]:
    """Per (query, demonstrations in prompt order) the uncalibrated log-scores of the answers, (n_answers,); None: cannot be scored.

    All are given to the model in one call, which computes the beginnings that prompts share once. Raises InputError where answers
    are free text, CostLimitError where the model's `max_cost` is reached.
    """
    if predictor.kind == "answer":
        raise InputError(Problem("this retriever or order scores labels, and the answers here are free text", "Take another one."))
    packed = [predictor._pack_one(q, [Hit(e.uid, 0.0, e) for e in shown], [e.uid for e in reversed(shown)]) for q, shown in pairs]
    work = [(query, made) for (query, _), made in zip(pairs, packed, strict=True) if not isinstance(made, Unfit)]
    found = predictor._raw(predictor._lm(), work) if work else []
    if limits := [each.why for each in found if isinstance(each, Lost) and each.limit]:
        raise CostLimitError(limits[0])
    values = iter([None if isinstance(each, Lost) else log_scores(each[1], each[0], predictor.method.readout) for each in found])
    return [None if isinstance(made, Unfit) else next(values) for made in packed]
