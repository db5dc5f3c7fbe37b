"""Label budgets: nested draws from the pool."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from ..errors import InputError, Problem
from ..seeds import rng_for, seed_for
from ..values import Example


def draw(pool: Sequence[Example], budget: int | Literal["all"], *, labels: Sequence[str] = (), seed: int = 0) -> list[Example]:
    """The first `budget` rows of one seeded order of the pool, so that a smaller budget is the beginning of a larger one.

    labels: the label set of a classify task. The order then takes one row of each label in turn (labels shuffled by the seed; a
    label that has no row left is passed over), which spreads any budget as evenly as the pool allows. Without labels (choose,
    answer) the order is plain. A label's rows follow the hash of (seed, uid): the order of the file does not matter.
    A budget larger than the pool gives the whole pool: compare `len` of the result. Raises InputError for a budget below 1.
    """
    if budget == "all":
        budget = len(pool)
    elif isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise InputError(
            Problem(f"a label budget is a number from 1 or 'all', got {budget!r}", "For example 16, 64, all.", field="budgets")
        )
    ordered = sorted(pool, key=lambda example: (seed_for(seed, "draw", example.uid), example.uid))
    if not labels:
        return ordered[:budget]
    by_label: dict[str | None, list[Example]] = {}
    for example in ordered:
        by_label.setdefault(example.target, []).append(example)
    turn = _label_order(by_label, labels, rng_for(seed, "draw", "labels"))
    chosen: list[Example] = []
    depth = 0
    while len(chosen) < min(budget, len(pool)):
        chosen += [by_label[label][depth] for label in turn if depth < len(by_label[label])]
        depth += 1
    return chosen[:budget]


def _label_order(by_label: dict[str | None, list[Example]], labels: Sequence[str], rng: random.Random) -> list[str | None]:
    known: list[str | None] = [*sorted(set(labels))]  # sorted: the shuffle must not depend on which row came first
    rng.shuffle(known)
    # Rows whose target is not in the label set come last, so that no row of the pool is ever lost.
    others = sorted((label for label in by_label if label not in known), key=str)
    return [label for label in [*known, *others] if label in by_label]
