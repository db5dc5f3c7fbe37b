"""What orders share that try permutations on the model: the permutations, the rows they are tried on, and what was tried before."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from ...errors import InputError, Problem
from ...plugins import Context, ScoreMany, learned_key
from ...seeds import rng_for, seed_for
from ...values import Example, Hit, embedded_text, normalised_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Judge: TypeAlias = "Callable[[NDArray[np.float64]], float]"
"""Probabilities of the labels on the probes, (n_probes, n_labels), under one permutation -> how good it is; higher is better."""


class ProbeSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    permutations: int = Field(
        24, ge=1, description="Orders that are tried for each set of demonstrations: all of them, or so many at random."
    )
    probes: int = Field(16, ge=1, description="Rows of the pool that each order is tried on; their labels are not looked at.")


@dataclass
class Probing:
    """An order. It depends on the demonstrations, their ranks and the seed, not on the query: what many queries share is tried once."""

    pool: Sequence[Example]
    settings: ProbeSettings
    seed: int
    score_many: ScoreMany
    judge: Judge
    found: list[list[list[str]]]
    """Pairs of uids best first and in the order that was found: what is known, and what is added, is in here."""
    _known: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    _order: list[Example] | None = None

    def __post_init__(self) -> None:
        self._known = {tuple(hits): tuple(order) for hits, order in self.found}

    def __call__(self, query: Example, hits: list[Hit]) -> list[Hit]:
        return self.many([query], [hits])[0]

    def many(self, queries: Sequence[Example], found: Sequence[list[Hit]]) -> list[list[Hit]]:
        """The orders of several queries; all that has to be tried is scored in one call."""
        new = {key: hits for hits in found if len(hits) > 1 and (key := _key(hits)) not in self._known}
        trials = [(key, order) for key, hits in new.items() for order in permutations(hits, self.settings.permutations, self.seed)]
        probes = {key: self._probes(hits) for key, hits in new.items()}
        pairs = [(probe, [hit.example for hit in order]) for key, order in trials for probe in probes[key]]
        scores = iter(self.score_many(pairs) if pairs else [])
        best: dict[tuple[str, ...], tuple[float, list[Hit]]] = {}
        for key, order in trials:
            value = self._value([next(scores) for _ in probes[key]])
            if key not in best or value > best[key][0]:  # of equal ones the first, which is the most similar last
                best[key] = value, order
        for key, (_, order) in best.items():
            self._known[key] = tuple(hit.uid for hit in order)
            self.found.append([list(key), list(self._known[key])])
        return [self._arranged(hits) for hits in found]

    def _arranged(self, hits: list[Hit]) -> list[Hit]:
        if len(hits) < 2:
            return list(hits)
        place = {uid: i for i, uid in enumerate(self._known[_key(hits)])}
        return sorted(hits, key=lambda hit: place[hit.uid])

    def _value(self, scores: Sequence[NDArray[np.float64] | None]) -> float:
        import numpy as np

        usable = [each for each in scores if each is not None and np.isfinite(each).any() and not np.isnan(each).any()]
        if not usable:
            return -math.inf
        raw = np.stack(usable)
        shares = np.exp(raw - raw.max(axis=1, keepdims=True))
        return round(self.judge(shares / shares.sum(axis=1, keepdims=True)), 6)

    def _probes(self, hits: Sequence[Hit]) -> list[Example]:
        """Rows of the pool other than the demonstrations and their copies: the same ones for all sets, as far as possible."""
        shown = {hit.uid for hit in hits}
        texts = {_text(hit.example) for hit in hits}
        mixed = self._mixed()
        free = (row for row in mixed if row.uid not in shown and _text(row) not in texts)
        return list(itertools.islice(free, self.settings.probes))

    def _mixed(self) -> list[Example]:
        if self._order is None:
            self._order = sorted(self.pool, key=lambda row: seed_for(self.seed, "probe", row.uid))
        return self._order


def _text(example: Example) -> str:
    text = embedded_text(example.fields)
    return normalised_text(text) or text


def _key(hits: Sequence[Hit]) -> tuple[str, ...]:
    """Ranks are part of it: the most similar last is one of the orders that are tried."""
    return tuple(hit.uid for hit in hits)


def permutations(hits: Sequence[Hit], n: int, seed: int) -> list[list[Hit]]:
    """At most n different orders: the most similar last, then all others, or random ones. The same for the same hits."""
    first, rows = list(hits)[::-1], list(hits)
    if math.factorial(len(rows)) <= n:
        others = [list(order) for order in itertools.permutations(rows)]
        return [first, *(order for order in others if order != first)]
    generator = rng_for(seed, "permutations", *_key(hits))
    tried = {tuple(hit.uid for hit in first)}
    result = [first]
    while len(result) < n:
        order = generator.sample(rows, len(rows))
        if (uids := tuple(hit.uid for hit in order)) not in tried:
            tried.add(uids)
            result.append(order)
    return result


def probing(name: str, settings: ProbeSettings, context: Context, judge: Judge) -> Probing:
    """The order `name`, which chooses by `judge`. Raises InputError where rows have no labels of one set."""
    assert context.score_many is not None
    if not context.labels:
        raise InputError(Problem("this order needs a set of labels", "Use it for tasks of the kind classify.", field="order"))
    found: list[list[list[str]]] = context.learned.once(learned_key(name, settings, context, context.pool), list)
    return Probing(context.pool, settings, context.seed, context.score_many, judge, found)


def entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nats, over the last axis."""
    import numpy as np

    safe = np.where(shares > 0, shares, 1.0)
    result: NDArray[np.float64] = -(shares * np.log(safe)).sum(axis=-1)
    return result
