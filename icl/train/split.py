"""Validation within the pool: a stratified share, or folds where the pool is small."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from ..seeds import rng_for

Validation: TypeAlias = Literal["auto", "none", "folds"] | Annotated[float, Field(ge=0, lt=1)]
"""`none`: train on all rows for all epochs. A share: of the rows, held out. `folds`: the number of epochs is chosen by cross-validation,
then all rows are trained on. `auto`: a tenth of the rows, at most 1,000, where there are `LARGE` rows at least, else none."""
LARGE = 1000
MOST = 1000
FOLDS = 5


def held_out(targets: Sequence[str], validation: Validation, seed: int) -> list[int]:
    """Positions of the rows that are validated on, of every label its share; none for `none` and `folds`.

    A label's last row is never held out. The same rows for the same targets, order and seed.
    """
    n = len(targets)
    if validation == "auto":
        share = min(0.1, MOST / n) if n >= LARGE else 0.0
    else:
        share = 0.0 if isinstance(validation, str) else validation
    chosen: list[int] = []
    due = 0.0
    for label, rows in _by_label(targets).items():
        due += share * len(rows)
        take = min(round(due), len(rows) - 1)  # what rounding leaves goes to the next label
        chosen += rng_for(seed, "validation", label).sample(rows, max(0, take))
        due -= max(0, take)
    return sorted(chosen)


def folds(targets: Sequence[str], seed: int, k: int = FOLDS) -> list[list[int]]:
    """At most k parts of the positions, each label spread over them as evenly as can be; as many as there are rows at most."""
    k = max(2, min(k, len(targets)))
    parts: list[list[int]] = [[] for _ in range(k)]
    n = 0
    for label, rows in _by_label(targets).items():
        for row in rng_for(seed, "folds", label).sample(rows, len(rows)):
            parts[n % k].append(row)
            n += 1
    return [sorted(part) for part in parts if part]


def cross(targets: Sequence[str], seed: int) -> list[tuple[list[int], list[int]]]:
    """(the other rows, the fold) for each of `folds` whose other rows have every label; none for fewer than two rows a fold."""
    if len(targets) < 2 * FOLDS:
        return []
    found = []
    for part in folds(targets, seed):
        out = set(part)
        rest = [i for i in range(len(targets)) if i not in out]
        if len({targets[i] for i in rest}) == len(set(targets)):
            found.append((rest, part))
    return found


def best_epoch(curves: Sequence[Sequence[Mapping[str, float]]], metric: str = "validation_loss") -> int:
    """The epoch, from 1, at which the mean of a metric over the folds is lowest; the first of equal ones."""
    n = min(len(curve) for curve in curves)
    means = [sum(curve[epoch][metric] for curve in curves) / len(curves) for epoch in range(n)]
    return means.index(min(means)) + 1


def _by_label(targets: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for position, target in enumerate(targets):
        found[target].append(position)
    return dict(sorted(found.items()))
