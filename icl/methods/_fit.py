"""What the fits of trained methods have in common: which rows judge, how many epochs, folds, and a search for settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..progress import note
from ..train.search import Found, Space, search
from ..train.split import best_epoch, cross, held_out
from ..values import Example

if TYPE_CHECKING:
    from ..train.record import Training

FIT = "fit"
"""The training whose model is kept, beside those of the folds."""


@dataclass
class Fit(ABC):
    """One fit of a method: its rows, and the trainings it takes."""

    method: Any
    """With `settings` (TrainingSettings, and `validation` and `search`), `seed` and `work`."""
    pool: list[Example]

    BOUNDS: ClassVar[tuple[int, int, int]]
    """(steps, fewest epochs, most epochs): where nobody says how many epochs, as many as make that many steps, within these."""
    ONCE: ClassVar[tuple[str, ...]]
    """Cached properties that are the same whatever the settings; they are had before the first trial, so that none takes their time."""

    @property
    @abstractmethod
    def base_name(self) -> str:
        """Of the model that is trained, for people."""

    @property
    @abstractmethod
    def _judges(self) -> Sequence[Example]:
        """Rows that judge each epoch and are none of the pool; where there are any, no others do."""

    @property
    @abstractmethod
    def _strata(self) -> list[str]:
        """What rows of the pool are held out by."""

    @abstractmethod
    def _space(self) -> Space:
        """What a search tries."""

    @abstractmethod
    def _identity(self) -> list[Any]:
        """JSON data that changes with whatever changes a training, besides the settings and the seed."""

    @abstractmethod
    def _train(self, rows: Sequence[int], validation: Sequence[int], epochs: int, name: str, *, patience: int | None = None) -> Any:
        """Train a new model on some rows of the pool: a tuple whose second is the Training. patience: None: through all epochs."""

    @property
    def epochs(self) -> int:
        """As the settings say, else by `BOUNDS`."""
        s, (steps, fewest, most) = self.method.settings, self.BOUNDS
        return int(s.epochs or min(most, max(fewest, -(-steps * s.batch_size // len(self.pool)))))

    @property
    def _held(self) -> tuple[list[int], list[int]]:
        """(rows to train on, rows of the pool that judge each epoch)."""
        validation = [] if self._judges else held_out(self._strata, self.method.settings.validation, self.method.seed)
        out = set(validation)
        return [i for i in range(len(self.pool)) if i not in out], validation

    def _folds(self, epochs: int) -> tuple[int, list[Training]]:
        """How many epochs are best for rows that a training did not see, judged on each fifth of the pool in turn, and the trainings of that.
        Where the settings ask for no folds, or rows are given to judge by, or there are too few rows: the same number, none."""
        s = self.method.settings
        if s.validation != "folds" or self._judges:
            if s.patience and not (self._judges or self._held[1]):
                note(f"patience={s.patience} stops nothing: no rows judge the epochs; validation=0.1 holds some out")
            return epochs, []
        parts = cross(self._strata, self.method.seed)
        if not parts:
            note(f"no folds: {len(self.pool)} rows are too few, so all {epochs} epochs are trained")
        records = [self._train(rest, part, epochs, f"fold-{n}")[1] for n, (rest, part) in enumerate(parts)]
        return (best_epoch([r.curve for r in records]) if records else epochs), records

    def searched(self) -> tuple[Self, Found | None]:
        """The same fit with the best of the settings that were tried, and how they were found: itself and None where rows are too few."""
        m, s = self.method, self.method.settings
        parts = [self._held] if self._judges or self._held[1] else cross(self._strata, m.seed)
        if not parts:
            note(f"no search for settings: {len(self.pool)} rows are too few to judge by")
            return self, None

        for name in self.ONCE:
            getattr(self, name)

        def attempt(changes: Mapping[str, Any], part: int, name: str) -> Training:
            job = self._with(changes)
            trained: Training = job._train(*parts[part], job.epochs, name, patience=s.patience if len(parts) == 1 else None)[1]
            return trained

        key = [*self._identity(), s.model_dump(mode="json"), [[e.uid, e.target] for e in self._judges]]
        what = f"Search, {self.base_name}"
        found = search(self._space(), attempt, n_parts=len(parts), trials=s.search or 1, seed=m.seed, work=m.work, key=key, what=what)
        return self._with(found.changes), found

    def _with(self, changes: Mapping[str, Any]) -> Self:
        """The same fit with other settings; folds are not asked for the number of epochs, since the search was."""
        s = self.method.settings
        validation = "none" if s.validation == "folds" else s.validation
        settings = s.model_copy(update={**changes, "search": None, "validation": validation})
        job = replace(self, method=replace(self.method, settings=settings))
        job.__dict__.update({name: getattr(self, name) for name in self.ONCE})
        return job
