"""What a predictor's work costs in tokens, before any of it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ..prompt import Unfit
from ..protocols import LanguageModel, offers
from ..values import Example, Prompt, TokenCounts
from ._ask import Rehearsal, asks_model
from ._calibrate import pool_rows
from ._readouts import planned_items
from ._written import requests_for

if TYPE_CHECKING:
    from ._predictor import FewShotPredictor


class PlansWriting(Protocol):
    """A model on this machine: what prompts share is read once for all texts that are written behind them."""

    def plan_generation(self, prompts: Sequence[Prompt], max_new_tokens: int = 64, n: int = 1) -> TokenCounts: ...


def plan(predictor: FewShotPredictor, queries: Sequence[Example]) -> TokenCounts:
    """See `FewShotPredictor.plan`."""
    lm = predictor._lm()
    if predictor._rehearsal is None and asks_model(predictor.method):
        predictor._rehearsal = Rehearsal(predictor)
    rehearsal = predictor._rehearsal
    counts = _work(predictor, lm, queries, (predictor._prepare if rehearsal is None else rehearsal.pack)(queries))
    for fitting in _fitted_on(predictor):
        counts += _work(predictor, lm, fitting, (predictor._pack if rehearsal is None else rehearsal.pack)(fitting))
    return counts + _work(predictor, lm, *rehearsal.asked()) if rehearsal else counts


def _fitted_on(predictor: FewShotPredictor) -> list[list[Example]]:
    """What the calibration and the threshold for abstaining are fitted on, the first time this is asked; they share the pool's rows."""
    calibration, abstaining = predictor.calibration, predictor.abstaining
    parts = [calibration.unplanned(predictor)] if calibration is not None else []
    if abstaining is not None and abstaining.is_fitted and not abstaining.planned:
        abstaining.planned = True
        if calibration is None or not calibration.learns_from_pool(predictor):
            parts.append(pool_rows(predictor))
    return [part for part in parts if part]


def _work(predictor: FewShotPredictor, lm: LanguageModel, queries: Sequence[Example], prepared: Sequence[Prompt | Unfit]) -> TokenCounts:
    work = [(q, p) for q, p in zip(queries, prepared, strict=True) if not isinstance(p, Unfit)]
    work = [(q, p) for q, p in work if predictor.kind != "choose" or q.choices]
    samples = predictor.method.samples if predictor._writes(lm) else 1
    if work and (predictor._writes(lm) or predictor._shows_rationales):
        if offers(lm, PlansWriting):
            return lm.plan_generation([p for _, p in work], predictor.method.max_new_tokens, samples)
        written = len(work) * samples * predictor.method.max_new_tokens
        total = sum(p.n_tokens or 0 for _, p in work) * requests_for(lm, samples) + written
        return TokenCounts(total, total, written)
    return planned_items(predictor, lm, [(q, p, predictor._candidates(q, p)) for q, p in work])
