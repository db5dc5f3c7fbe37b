"""For each query the set of demonstrations that leaves the model least unsure of its answer (minimum description length)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from ...plugins import Context, ScoreMany
from ...protocols import Selector
from ...seeds import rng_for
from ...values import Example, Hit
from ._sets import SetSettings, nearest_candidates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEEDS_MODEL = True


class Settings(SetSettings):
    candidates: int = Field(30, ge=1, description="As a first stage: how many of the nearest rows the sets are drawn from.")
    sets: int = Field(10, ge=1, description="Sets of demonstrations that are scored for each query; the nearest rows are one of them.")


def build(settings: Settings, context: Context) -> Selector:
    """Of the k best candidates and of `sets` - 1 random sets of k candidates, the one with the least expected code length of the
    answer, -Σ p log₂ p over the labels' probabilities given the set.

    Wu et al. 2023, https://arxiv.org/abs/2212.10375, eq. 5 to 7. Departures: the paper draws orders along with the sets; here a set
    is scored with its best candidate next to the query, and what comes after is the order's matter. Costs `sets` prompts a query.
    """
    assert context.score_many is not None
    score_many = context.score_many
    candidates_of = nearest_candidates(context, settings.candidates)

    def select(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        found = candidates_of(queries, k, candidates)
        drawn = [_drawn(query, hits, k, settings.sets, context.seed) for query, hits in zip(queries, found, strict=True)]
        return best_sets(queries, drawn, score_many)

    return select


def _drawn(query: Example, hits: list[Hit], k: int, n_sets: int, seed: int) -> list[list[Hit]]:
    """At most n_sets different sets of k hits, each in order of rank, the best ones first."""
    sets = {tuple(range(min(k, len(hits))))}
    result = [hits[:k]]
    generator = rng_for(seed, "mdl", query.uid)
    for _ in range(n_sets - 1):
        places = tuple(sorted(generator.sample(range(len(hits)), min(k, len(hits)))))
        if places not in sets:
            sets.add(places)
            result.append([hits[i] for i in places])
    return result


def best_sets(queries: Sequence[Example], drawn: Sequence[Sequence[list[Hit]]], score_many: ScoreMany) -> list[list[Hit]]:
    """Per query the set of least code length; where nothing can be scored, or there is nothing to choose, the first."""
    pairs = [
        (query, [hit.example for hit in reversed(hits)])
        for query, sets in zip(queries, drawn, strict=True)
        if len(sets) > 1
        for hits in sets
    ]
    lengths = iter([code_length(scores) for scores in score_many(pairs)] if pairs else [])
    result = []
    for sets in drawn:
        own = [next(lengths) for _ in sets] if len(sets) > 1 else [0.0]
        result.append(sets[min(range(len(sets)), key=lambda i: (round(own[i], 6), i))])
    return result


def code_length(scores: NDArray[np.float64] | None) -> float:
    """Bits that the answer is expected to take: the entropy of the labels' probabilities. Infinite where they are not known."""
    import numpy as np

    if scores is None or not np.isfinite(scores).any():
        return float("inf")
    shares = np.exp(scores - np.max(scores))
    shares = shares[shares > 0] / shares.sum()
    return float(-(shares * np.log2(shares)).sum())
