"""A few-shot predictor that has the model write rationales for its pool before its first prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError, Problem
from ..prompt import BoundTemplate
from ..values import Example, Prediction, Prompt, TokenCounts
from ._bootstrap import Asked, BootstrapSettings, asked, bootstrap_of, bootstrapped
from ._common import queries_of
from ._labels import unscored
from ._predictor import FewShotPredictor
from ._rationale import uses_rationales
from .few_shot import FewShot


class BootstrappingPredictor(FewShotPredictor):
    """As a FewShotPredictor. What it asks the model for is counted in its first plan, and asked when something is first predicted, shown or
    saved; then it is an ordinary one, with the rows that have a rationale as its pool."""

    def __init__(self, method: FewShot, bound: BoundTemplate, pool: Sequence[Example], fit: Mapping[str, Any]) -> None:
        """fit: what else `FewShot.fit` was given. Raises InputError for what can be known to be wrong before anything is asked."""
        settings = bootstrap_of(method.bootstrap)
        assert settings is not None
        self._todo: tuple[Asked, BootstrapSettings] | None = asked(method, settings, pool, fit), settings
        self._is_planned = False
        self._why: str | None = None
        super().__init__(replace(method, bootstrap=None), bound, pool)

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        """As any; all queries are unscored, with the reason, if no rationale led to a right answer."""
        self._complete()
        if self._why is not None:
            return [unscored(query, self._why) for query in queries_of(queries, self.inputs)]
        return super().predict(queries)

    @property
    def unusable(self) -> str | None:
        """Why there is nothing to show or to save: no rationale led to a right answer."""
        self._complete()
        return self._why

    def prompts(self, queries: Sequence[Any]) -> list[Prompt]:
        self._complete()
        self._raise_if_none()
        return super().prompts(queries)

    def save(self, folder: Path | str) -> None:
        self._complete()
        self._raise_if_none()
        super().save(folder)

    def plan(self, queries: Sequence[Any]) -> TokenCounts:
        """Also counts, once, what the rationales cost at most."""
        counts = super().plan(queries)
        if self._todo is None or self._is_planned:
            return counts
        self._is_planned = True
        asking, settings = self._todo
        times = 1 + bool(settings.tries)
        n_input = times * sum(p.n_tokens or 0 for p in asking.asker._pack(asking.rows) if isinstance(p, Prompt))
        n_written = (1 + settings.tries) * len(asking.rows) * self.method.max_new_tokens
        return counts + TokenCounts(n_input + n_written, n_input + n_written, n_written)

    def _complete(self) -> None:
        if self._todo is None:
            return
        asking, settings = self._todo
        kept = bootstrapped(asking, settings, self._pool, self.name)
        if not kept:
            self._why = f"none of the rationales written for {len(asking.rows)} labelled examples led to the right answer"
        self._todo = None
        self._pool = kept
        self._index = self._retriever = self._order = self._last = self._rehearsal = None
        self._shows_rationales = self.method.shots > 0 and uses_rationales(self.bound, kept)

    def _raise_if_none(self) -> None:
        if self._why is not None:
            fix = "Give a few examples a rationale of your own, allow more tries, or leave 'bootstrap' out."
            raise InputError(Problem(self._why, fix, field="bootstrap"))
