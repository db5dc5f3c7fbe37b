"""Settings found by trying them: a search over a small space, judged on rows of the pool alone.

The settings as they are given are the first trial, and the best trial wins, so what is found is never worse on its own validation rows.
Trials are proposed by optuna's tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"); where
a trial is judged on several folds, one that is worse than the median of the others is dropped after the second. What has been tried is kept
in `work`: a trial depends on the seed and on those before it alone, so a search that was interrupted goes on as if nothing had happened.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import IclError, InputError, MissingExtraError
from ..files import read_text, write_text
from ..progress import note
from ..seeds import seed_for
from ..values import digest
from .record import Diverged, Training

if TYPE_CHECKING:
    from collections.abc import Iterator

FEWEST_BEFORE_MODEL = 5
"""Trials that are drawn at random before the others are a guide; and before one is dropped."""
FILE = "search.json"


@dataclass(frozen=True, slots=True)
class Between:
    """A number, on a logarithmic scale."""

    given: float
    low: float
    high: float


Space: TypeAlias = "Mapping[str, Between | Sequence[Any]]"
"""Setting -> what it may be; of a list the first is the value given."""
Attempt: TypeAlias = Callable[[Mapping[str, Any], int, str], Training]
"""(changed settings, part, a name for its working files) -> a training judged on that part after every epoch."""


def around(value: float, factor: float) -> Between:
    """From a part of the value to a multiple of it."""
    return Between(value, value / factor, value * factor)


def one_of(given: Any, *others: Any) -> tuple[Any, ...]:
    """The value given, and others."""
    return tuple(dict.fromkeys((given, *others)))


@dataclass(frozen=True)
class Found:
    """The outcome of a search."""

    changes: Mapping[str, Any]
    """Settings of the best trial, all of the space."""
    record: Mapping[str, Any]
    """JSON data: `n_trials`, `n_dropped`, `n_failed`, `n_steps`, `n_tokens`, `operations`, `seconds`, `given` and `best` (each `settings`, `score`,
    `loss`), `trials`."""

    def counted(self, training: Mapping[str, Any]) -> dict[str, Any]:
        """The record of the training that was made with what was found, with the search and what it cost.

        Steps and tokens stay those of the training itself, which its curve is of; `search` has those of the trials."""
        spent = {name: training[name] + self.record[name] for name in ("operations", "seconds")}
        return {**training, **spent, "search": dict(self.record)}


def need_optuna() -> None:
    """Raises MissingExtraError without optuna. Nothing is imported."""
    if find_spec("optuna") is None:
        raise MissingExtraError("optuna", "search", "a search for settings")


def search(
    space: Space, attempt: Attempt, *, n_parts: int, trials: int, seed: int, work: Path | None = None, key: Any = None, what: str = "Search"
) -> Found:
    """Try settings, `trials` times, and say which did best.

    n_parts: parts of the pool that each trial is judged on, one training each: folds, or one. The score is the accuracy, or minus the loss
    where there is none, its mean over the parts: of the epoch that is kept where there is one part, of the last one with folds, because the
    training on all rows that follows has none to choose an epoch by. The first of equals wins, the lowest loss among those of equal score.
    work: where to keep what has been tried. key: JSON data that changes with the rows and whatever else changes a training.

    A trial whose training diverges has failed and counts as one. Raises MissingExtraError without optuna.
    """
    need_optuna()
    import optuna

    memory = _Memory(None if work is None else work / FILE, digest([key, seed, n_parts, _plain(space)]))
    tried: list[dict[str, Any]] = []
    with _quiet(optuna):
        study = optuna.create_study(
            direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=FEWEST_BEFORE_MODEL, n_warmup_steps=1)
        )
        study.enqueue_trial({name: values.given if isinstance(values, Between) else 0 for name, values in space.items()})
        for n in range(trials):
            # A sampler of its own, so that what is proposed does not depend on how much of the search this process has seen.
            sampler_seed = seed_for(seed, "search", n) % 2**32
            study.sampler = optuna.samplers.TPESampler(seed=sampler_seed, n_startup_trials=FEWEST_BEFORE_MODEL)
            trial = study.ask(_distributions(optuna, space))
            changes = {
                name: value if isinstance(space[name], Between) else space[name][value]  # type: ignore[index]
                for name, value in trial.params.items()
            }
            state, points = _judged(trial, changes, n, attempt, n_parts, memory)
            complete = state == "complete"
            if complete:
                study.tell(trial, _mean(points, "score"))
            else:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED if state == "dropped" else optuna.trial.TrialState.FAIL)
            mean = {name: round(_mean(points, name), 6) if complete else None for name in ("score", "loss")}
            tried.append({"settings": changes, **mean, "state": state})
            best = _best(tried)
            said = f"{mean['score']:.4f}" if complete else state
            note(f"{what}: trial {n + 1} of {trials}: {said}; best so far {tried[best]['score']:.4f}, of trial {best + 1}")
    return Found(tried[_best(tried)]["settings"], _record(tried, memory.points))


def _judged(
    trial: Any, changes: Mapping[str, Any], n: int, attempt: Attempt, n_parts: int, memory: _Memory
) -> tuple[str, list[dict[str, Any]]]:
    """A trial on one part after the other: how it ended (complete, failed, dropped), and what was found on each part. n: its place."""
    points: list[dict[str, Any]] = []
    for part in range(n_parts):
        point = memory.get(n, part)
        if point is None:
            name = f"trial-{n + 1}" + (f"-{part + 1}" if n_parts > 1 else "")
            point = memory.put(n, part, _point(attempt, changes, part, name, last=n_parts > 1, first=n == 0))
        points.append(point)
        if point["score"] is None:
            if n == 0:
                raise IclError("the settings as they are given diverge: their validation loss is no number; lower learning_rate")
            return "failed", points
        trial.report(_mean(points, "score"), part)
        if n > 0 and part + 1 < n_parts and trial.should_prune():
            return "dropped", points
    return "complete", points


def _record(tried: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of a search that is over, as `Found.record`."""
    best = _best(tried)
    return {
        "n_trials": len(tried),
        "n_dropped": sum(each["state"] == "dropped" for each in tried),
        "n_failed": sum(each["state"] == "failed" for each in tried),
        "n_steps": sum(point["n_steps"] for point in points),
        "n_tokens": sum(point["n_tokens"] for point in points),
        "operations": sum(point["operations"] for point in points),
        "seconds": round(sum(point["seconds"] for point in points), 3),
        "given": {name: tried[0][name] for name in ("settings", "score", "loss")},
        "best": {"trial": best + 1, **{name: tried[best][name] for name in ("settings", "score", "loss")}},
        "trials": list(tried),
    }


def _best(tried: Sequence[Mapping[str, Any]]) -> int:
    """The first of the best."""
    places = [i for i, each in enumerate(tried) if each["state"] == "complete"]
    return max(places, key=lambda i: (tried[i]["score"], -tried[i]["loss"], -i))


def _mean(points: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(sum(point[name] for point in points) / len(points))


def _point(attempt: Attempt, changes: Mapping[str, Any], part: int, name: str, *, last: bool, first: bool) -> dict[str, Any]:
    """One training as JSON data; its score is None if it diverged, which the settings as they were given must not."""
    started = time.monotonic()
    try:
        training = attempt(changes, part, name)
    except InputError:
        raise
    except IclError as error:
        if first:
            raise
        spent = error.spent if isinstance(error, Diverged) else None
        return {"score": None, "loss": None, **_cost(spent, started)}
    at = training.curve[-1 if last or training.best_epoch is None else training.best_epoch - 1]
    loss = float(at["validation_loss"])
    found = {"score": float(at.get("accuracy", -loss)), "loss": loss} if math.isfinite(loss) else {"score": None, "loss": None}
    return {**found, **_cost(training, started)}


def _cost(training: Training | None, started: float) -> dict[str, Any]:
    """What a training has cost, as far as it came; None: it did not begin."""
    seconds = time.monotonic() - started
    if training is None:
        return {"n_steps": 0, "n_tokens": 0, "operations": 0.0, "seconds": seconds}
    cost = {name: getattr(training, name) for name in ("n_steps", "n_tokens", "operations")}
    # Sessions before this one are in the training's own seconds; what it takes to prepare it is not.
    return {**cost, "seconds": max(seconds, training.seconds)}


class _Memory:
    """What has been tried, on disk as it comes."""

    def __init__(self, file: Path | None, key: str) -> None:
        self._file, self._key = file, key
        self._known: dict[str, dict[str, Any]] = {}
        if file is not None and file.is_file():
            found = json.loads(read_text(file))
            self._known = found["tried"] if found["key"] == key else {}

    def get(self, trial: int, part: int) -> dict[str, Any] | None:
        return self._known.get(f"{trial}/{part}")

    def put(self, trial: int, part: int, point: dict[str, Any]) -> dict[str, Any]:
        self._known[f"{trial}/{part}"] = point
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._file, json.dumps({"key": self._key, "tried": self._known}))
        return point

    @property
    def points(self) -> list[dict[str, Any]]:
        return list(self._known.values())


def _distributions(optuna: Any, space: Space) -> dict[str, Any]:
    """Of a list the positions are proposed: optuna asks for plain values."""
    d = optuna.distributions
    return {
        name: d.FloatDistribution(values.low, values.high, log=True)
        if isinstance(values, Between)
        else d.CategoricalDistribution(range(len(values)))
        for name, values in space.items()
    }


def _plain(space: Space) -> dict[str, Any]:
    return {name: [v.given, v.low, v.high] if isinstance(v, Between) else list(v) for name, v in space.items()}


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """It announces every study on stderr."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
