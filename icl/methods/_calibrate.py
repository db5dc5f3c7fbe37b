"""A calibration of label scores: fitted on scores of the pool's own rows, then frozen in the predictor and saved with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import CostLimitError, IclError, InputError, Problem
from ..plugins import Context, find, parse_spec, settings_of
from ..prompt import Unfit
from ..seeds import rng_for
from ..values import Example, Kind
from ._labels import log_scores
from ._written import Lost

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


@dataclass
class Calibration:
    """A predictor's calibration, fitted when it is first needed."""

    plugin: Plugin
    settings: BaseModel
    frozen: Frozen | None = None
    failed: InputError | None = None
    """Why it cannot be fitted. It is tried once: its rows would be scored in vain again."""
    planned: bool = False

    @property
    def is_transductive(self) -> bool:
        """Fitted on the very queries that are predicted together, each time anew; nothing is frozen."""
        return bool(getattr(self.settings, "transductive", False))

    @property
    def can_save(self) -> bool:
        """Whether there is, or can be, something to freeze."""
        return not self.is_transductive and self.failed is None

    def state(self, predictor: FewShotPredictor) -> Frozen:
        """The frozen state, fitted if it is not yet. Raises InputError if it cannot be fitted on what there is."""
        if self.failed is not None:
            raise self.failed
        if self.frozen is None and not self.is_transductive:
            try:
                self.frozen = self._fit(predictor)
            except InputError as error:
                self.failed = error
                raise
        return self.frozen or {}

    def saved(self, predictor: FewShotPredictor) -> Frozen:
        """The state to save. Raises InputError if the calibration is transductive."""
        if self.is_transductive:
            message = "a transductive calibration is fitted on the test items themselves, so there is nothing to save"
            raise InputError(Problem(message, "Leave 'transductive' out.", field="calibration"))
        return self.state(predictor)

    def apply(self, predictor: FewShotPredictor, values: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        """Per query (n_labels,) log-scores -> (n_labels,) log-probabilities."""
        import numpy as np

        component, scores = self._component(predictor), np.stack(list(values))
        return list(component.apply(component.fit(scores) if self.is_transductive else self.state(predictor), scores))

    def unplanned(self, predictor: FewShotPredictor) -> list[Example]:
        """What is scored for fitting, the first time this is asked; then nothing, nor if it was fitted when it was loaded."""
        if self.planned:
            return []
        rows = self._rows(predictor)
        self.planned = True
        return rows

    def _fit(self, predictor: FewShotPredictor) -> Frozen:
        """Score what the calibration is fitted on, and fit. Raises InputError if it takes rows of the pool and there are none."""
        component = self._component(predictor)
        rows = self._rows(predictor)
        positions, scores = scored(predictor, rows)
        targets = [predictor.labels.index(str(rows[i].target)) for i in positions] if self._needs_targets else None
        state: Frozen = component.fit(scores) if targets is None else component.fit(scores, targets)
        return state

    def _rows(self, predictor: FewShotPredictor) -> list[Example]:
        """What is scored to fit on: the calibration's own `queries()`, or at most 128 rows of the pool, drawn with the seed."""
        if self.is_transductive:
            return []
        component = self._component(predictor)
        if hasattr(component, "queries"):
            return list(component.queries())
        size = len(predictor.pool)
        if not size:
            raise InputError(
                Problem("a calibration is fitted on labelled examples and there are none", "Leave it out.", field="calibration")
            )
        if size <= MOST_ROWS:
            return list(predictor.pool)
        chosen = rng_for(predictor.method.seed, "calibration").sample(range(size), MOST_ROWS)
        return [predictor.pool[i] for i in sorted(chosen)]

    @property
    def _needs_targets(self) -> bool:
        return bool(getattr(self.plugin.load(), "NEEDS_TARGETS", False))

    def _component(self, predictor: FewShotPredictor) -> Any:
        context = Context(
            pool=predictor.pool,
            labels=predictor.labels,
            inputs=predictor.inputs,
            seed=predictor.method.seed,
            score=predictor.score_with,
            score_many=predictor.score_many,
        )
        return self.plugin.load().build(self.settings, context)


def scored(predictor: FewShotPredictor, queries: Sequence[Example]) -> tuple[list[int], NDArray[np.float64]]:
    """(positions of the queries that could be scored, (n, n_labels) their uncalibrated log-scores).

    A task row's own copy is not among its demonstrations. Raises IclError if no query could be scored.
    """
    import numpy as np

    packed = predictor._pack(queries)
    work = [(i, made) for i, made in enumerate(packed) if not isinstance(made, Unfit)]
    found = predictor._raw(predictor._lm(), [(queries[i], made) for i, made in work])
    if limits := [each.why for each in found if isinstance(each, Lost) and each.limit]:
        raise CostLimitError(limits[0])
    kept = [(i, each) for (i, _), each in zip(work, found, strict=True) if not isinstance(each, Lost)]
    if not kept:
        raise IclError(f"none of the {len(queries)} rows that the calibration is fitted on could be scored")
    values = [log_scores(scores, candidates, predictor.method.readout) for _, (candidates, scores) in kept]
    return [i for i, _ in kept], np.stack(values)


def calibration_of(method: FewShot, kind: Kind, frozen: Frozen | None = None) -> Calibration | None:
    """The method's calibration, found and its settings checked. Raises InputError if there is no such one, or the kind has no labels."""
    if method.calibration is None:
        return None
    spec = parse_spec(method.calibration, "calibration", "calibration")
    plugin = find("calibration", spec.name, method.plugins, where="calibration")
    if kind != "classify":
        raise InputError(
            Problem(f"a calibration needs one set of labels; this task is of the kind '{kind}'", "Leave it out.", field="calibration")
        )
    return Calibration(plugin, settings_of(plugin, spec.settings, "calibration"), frozen, planned=frozen is not None)
