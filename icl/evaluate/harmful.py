"""The most harmful demonstrations of a pool: those that make its other rows' own labels less likely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError, Problem
from ..progress import progress
from ..seeds import rng_for
from ..values import Example

if TYPE_CHECKING:
    from ..methods import FewShotPredictor
    from ..methods._why import RowEffects

ROWS = 64
"""Rows of the pool that are asked."""
AT_ONCE = 32
"""Rows that go to the model in one call."""


@dataclass(frozen=True, slots=True)
class Harm:
    """What a demonstration does to the answers of other rows."""

    example: Example
    effect: float
    """Mean change of the log-probability of their own label by it, in nats; below 0 it harms."""
    n: int
    """Prompts that the mean is over."""
    error: float | None
    """Standard error of the mean; None for a single prompt."""
    n_broken: int
    """Answers that are right without it and wrong with it."""
    n_mended: int
    """The other way round."""


@dataclass(frozen=True, slots=True)
class Harmful:
    """The demonstrations of a pool by what they do to it."""

    rows: tuple[Harm, ...]
    """Each demonstration that was in a prompt, the most harmful first; ties in the order of the pool."""
    n_asked: int
    """Rows that were asked."""
    n_prompts: int
    """Prompts that were scored."""
    unscored: tuple[str, ...]
    """Why further rows could not be asked, one reason each."""
    n_pool: int
    """Rows of the pool; those that are not in `rows` were in no prompt."""


def harmful(predictor: FewShotPredictor, n: int = ROWS, seed: int = 0) -> Harmful:
    """Ask `n` rows of the predictor's pool (drawn with the seed; all, if there are no more), each with the demonstrations that it would get
    as a query, and leave each demonstration out in turn.

    No row is ever shown itself, or a row of the same text. A demonstration's effect is its mean over the prompts it was in: what it does
    beside the others there, not alone. With few prompts the mean is rough; `error` says how rough.
    Raises InputError for an empty pool, and as `FewShotPredictor.why`.
    """
    from ..methods._why import effects_on

    if n < 1:
        raise InputError(Problem(f"{n} rows cannot be asked", "Give at least 1.", field="rows"))
    pool = predictor.pool
    if not len(pool):
        raise InputError(Problem("there are no labelled rows to ask", "Fit the predictor on a pool.", field="pool"))
    chosen = range(len(pool)) if n >= len(pool) else sorted(rng_for(seed, "harmful").sample(range(len(pool)), n))
    found: list[RowEffects] = []
    unscored: list[str] = []
    with progress("asking", len(chosen), "rows") as advance:
        for start in range(0, len(chosen), AT_ONCE):
            rows = [pool[i] for i in chosen[start : start + AT_ONCE]]
            for each in effects_on(predictor, rows):
                if isinstance(each, str):
                    unscored.append(each)
                else:
                    found.append(each)
            advance(len(rows))
    n_prompts = sum(1 + len(each.demonstrations) for each in found)
    return Harmful(_ranked(pool, found), len(found), n_prompts, tuple(unscored), len(pool))


def _ranked(pool: Sequence[Example], found: Sequence[RowEffects]) -> tuple[Harm, ...]:
    effects: dict[str, list[float]] = {}
    examples: dict[str, Example] = {}
    broken: dict[str, int] = {}
    mended: dict[str, int] = {}
    for each in found:
        target = each.row.target
        for demonstration, left_out in each.demonstrations:
            uid = demonstration.uid
            examples[uid] = demonstration.example
            effects.setdefault(uid, []).append(left_out.effect)
            broken[uid] = broken.get(uid, 0) + (left_out.changed and left_out.answer == target)
            mended[uid] = mended.get(uid, 0) + (left_out.changed and each.answer == target)
    place = {row.uid: i for i, row in enumerate(pool) if row.uid in effects}
    harms = [_harm(examples[uid], effects[uid], broken[uid], mended[uid]) for uid in sorted(effects, key=lambda uid: place[uid])]
    return tuple(sorted(harms, key=lambda harm: harm.effect))


def _harm(row: Example, effects: Sequence[float], n_broken: int, n_mended: int) -> Harm:
    n = len(effects)
    mean = sum(effects) / n
    error = (sum((effect - mean) ** 2 for effect in effects) / (n - 1) / n) ** 0.5 if n > 1 else None
    return Harm(row, mean, n, error, n_broken, n_mended)
