"""A calibration of label scores: fitted on scores of the pool's own rows, then frozen in the predictor and saved with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import CostLimitError, IclError, InputError, Problem
from ..plugins import Context, find, parse_spec, settings_of
from ..prompt import Unfit
from ..readout import probabilities
from ..seeds import rng_for
from ..values import Example, Kind
from ._abstain import Abstaining, abstaining, evidence_of, folds
from ._labels import log_scores
from ._written import Lost

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import BaseModel

    from ..plugins import Plugin
    from ._abstain import Evidence
    from ._predictor import FewShotPredictor
    from .few_shot import FewShot

Scored: TypeAlias = "tuple[Sequence[int], NDArray[np.float64]]"
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
        if not hasattr(component, "queries"):
            return self._fitted(component, *labelled_scores(predictor))
        state: Frozen = component.fit(scored(predictor, component.queries())[1])
        return state

    def _fitted(self, component: Any, targets: Sequence[int], scores: NDArray[np.float64]) -> Frozen:
        state: Frozen = component.fit(scores, list(targets)) if self._needs_targets else component.fit(scores)
        return state

    def learns_from_pool(self, predictor: FewShotPredictor) -> bool:
        """Whether it is fitted on rows of the pool, once."""
        return not self.is_transductive and not hasattr(self._component(predictor), "queries")

    def crossed(self, predictor: FewShotPredictor) -> tuple[Sequence[int], NDArray[np.float64]]:
        """(targets of the pool's rows, (n, n_labels) their log-probabilities), each calibrated by what the rows of other parts give."""
        import numpy as np

        component = self._component(predictor)
        targets, scores = labelled_scores(predictor)
        part, values = folds(targets), np.empty_like(scores)
        for fold in range(int(part.max()) + 1):
            held = part == fold
            state = self._fitted(component, np.asarray(targets)[~held].tolist(), scores[~held])
            values[held] = component.apply(state, scores[held])
        return targets, values

    def _rows(self, predictor: FewShotPredictor) -> list[Example]:
        """What is scored to fit on: the calibration's own `queries()`, or at most 128 rows of the pool, drawn with the seed."""
        if self.is_transductive:
            return []
        component = self._component(predictor)
        return list(component.queries()) if hasattr(component, "queries") else pool_rows(predictor)

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


def pool_rows(predictor: FewShotPredictor) -> list[Example]:
    """At most 128 rows of the pool, drawn with the seed. Raises InputError if there are none."""
    size = len(predictor.pool)
    if not size:
        what, fix, field = ("a calibration", "Leave it out.", "calibration")
        if predictor.calibration is None:
            what, fix, field = ("a threshold for abstaining", "Give a number.", "abstain")
        raise InputError(Problem(f"{what} is fitted on labelled examples and there are none", fix, field=field))
    if size <= MOST_ROWS:
        return list(predictor.pool)
    chosen = rng_for(predictor.method.seed, "calibration").sample(range(size), MOST_ROWS)
    return [predictor.pool[i] for i in sorted(chosen)]


def labelled_scores(predictor: FewShotPredictor) -> Scored:
    """(positions of their labels, (n, n_labels) log-scores) of those of `pool_rows` that could be scored. They are scored once."""
    if predictor.pool_scores is None:
        rows = pool_rows(predictor)
        positions, scores = scored(predictor, rows)
        predictor.pool_scores = [predictor.labels.index(str(rows[i].target)) for i in positions], scores
    return predictor.pool_scores


def abstaining_of(predictor: FewShotPredictor, frozen: float | None = None) -> Abstaining | None:
    """What the method's option `abstain` asks for. Raises InputError where answers have no probabilities."""
    option = predictor.method.abstain
    if option is not None and predictor.kind == "answer" and predictor.method.samples == 1:
        fix = "Set samples: 8, whose vote says how sure the answer is, or leave it out."
        raise InputError(Problem("a single answer in words has no probability to abstain by", fix, field="abstain"))
    return abstaining(option, lambda: _leave_one_out(predictor), frozen)


def _leave_one_out(predictor: FewShotPredictor) -> Evidence:
    """Of `pool_rows`, none of which is among its own demonstrations or what its calibration is fitted on."""
    import numpy as np

    calibration = predictor.calibration
    if calibration is None or not calibration.learns_from_pool(predictor):
        rows = pool_rows(predictor)
        return evidence_of(predictor.answers(rows, predictor._pack(rows)), rows)
    targets, values = calibration.crossed(predictor)
    usable = np.isfinite(values).any(axis=1) & ~np.isnan(values).any(axis=1)
    shares = probabilities(values[usable])
    return shares.max(axis=1), shares.argmax(axis=1) == np.asarray(targets)[usable]


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
    values = [log_scores(scores, candidates, predictor.method.readouts[0]) for _, (candidates, scores) in kept]
    return [i for i, _ in kept], np.stack(values)


def refuse_without_labels(value: Any, plugins: Sequence[Path] = ()) -> None:
    """Raises InputError for a calibration that learns from labelled examples, for a method that has none."""
    if value is None:
        return
    spec = parse_spec(value, "calibration", "calibration")
    plugin = find("calibration", spec.name, plugins, where="calibration")
    settings = settings_of(plugin, spec.settings, "calibration")
    component = plugin.load().build(settings, Context(inputs=("input",)))
    if hasattr(component, "queries"):
        component.queries()  # which raises, where they are made of labelled examples
    elif not getattr(settings, "transductive", False):
        message = f"'{spec.name}' is fitted on labelled examples, and this method has none"
        raise InputError(Problem(message, "Use contextual, or few_shot with shots: 0.", field="calibration"))


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
