"""A calibration of label scores: fitted on scores of the pool's own rows, then frozen in the predictor and saved with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import InputError, Problem
from ..plugins import Context, find, parse_spec, settings_of
from ..seeds import rng_for
from ..values import Example, Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import BaseModel

    from ..plugins import Plugin
    from ._predictor import FewShotPredictor
    from .few_shot import FewShot

Frozen: TypeAlias = Mapping[str, Any]
"""The state that a calibration's `fit` returned: plain JSON data."""
MOST_ROWS = 128
"""Pool rows scored for fitting; a row's own copy is never among its demonstrations, so the scores are leave-one-out."""


@dataclass(frozen=True)
class Calibrator:
    plugin: Plugin
    settings: BaseModel

    def fit(self, predictor: FewShotPredictor) -> Frozen:
        """Score at most 128 rows of the pool, drawn with the seed, and fit on them. Raises InputError if there are none."""
        if not predictor.pool:
            raise InputError(
                Problem("a calibration is fitted on labelled examples and there are none", "Leave it out.", field="calibration")
            )
        state: Frozen = self._component(predictor).fit(predictor.log_scores(self.rows(predictor)))
        return state

    def rows(self, predictor: FewShotPredictor) -> list[Example]:
        pool = list(predictor.pool)
        if len(pool) <= MOST_ROWS:
            return pool
        chosen = rng_for(predictor.method.seed, "calibration").sample(range(len(pool)), MOST_ROWS)
        return [pool[i] for i in sorted(chosen)]

    def apply(self, predictor: FewShotPredictor, state: Frozen, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, n_labels) log-scores -> (n, n_labels) log-probabilities."""
        result: NDArray[np.float64] = self._component(predictor).apply(state, scores)
        return result

    def _component(self, predictor: FewShotPredictor) -> Any:
        context = Context(pool=predictor.pool, labels=predictor.labels, seed=predictor.method.seed, score=predictor.score_with)
        return self.plugin.load().build(self.settings, context)


def calibrator(method: FewShot, kind: Kind) -> Calibrator | None:
    """The method's calibration, found and its settings checked. Raises InputError if there is no such one, or the kind has no labels."""
    if method.calibration is None:
        return None
    spec = parse_spec(method.calibration, "calibration", "calibration")
    plugin = find("calibration", spec.name, method.plugins, where="calibration")
    if kind != "classify":
        raise InputError(
            Problem(f"a calibration needs one set of labels; this task is of the kind '{kind}'", "Leave it out.", field="calibration")
        )
    return Calibrator(plugin, settings_of(plugin, spec.settings, "calibration"))
