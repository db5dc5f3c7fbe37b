"""Where a figure's uncertainty comes from: items, label draw, demonstration draw, order, training, and what they have together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

ITEM = "item"
REST = "rest"


@dataclass(frozen=True)
class Split:
    """The variance of one value, split; and of the mean over all of them."""

    sizes: Mapping[str, int]
    """How many values every factor took."""
    components: Mapping[tuple[str, ...], float]
    """Variance owed to a factor (`("draw",)`), to two of them together beyond each alone, and to the `("rest",)`; none below 0."""
    clipped: tuple[tuple[str, ...], ...]
    """Components whose estimate was negative and is shown as 0: there is little of it, or too few values to tell."""

    @property
    def of_mean(self) -> dict[tuple[str, ...], float]:
        """What each contributes to the variance of the mean: its component divided by how many values it took."""
        return {names: value / self._count(names) for names, value in self.components.items()}

    @property
    def error(self) -> float:
        """Standard error of the mean for other items, draws and seeds."""
        return math.sqrt(sum(self.of_mean.values()))

    def share(self, factor: str) -> float:
        """Share of the mean's variance owed to a factor, alone and with others; these shares add up to more than 1."""
        whole = sum(self.of_mean.values())
        return sum(value for names, value in self.of_mean.items() if factor in names) / whole if whole else 0.0

    def narrower(self, factor: str, more: int = 1) -> float:
        """By which share `more` values of a factor would narrow the interval of the mean, at an unchanged quantile; 0 to 1."""
        assert factor in self.sizes, f"{factor} is none of {', '.join(self.sizes)}"
        size = self.sizes[factor]
        parts = self.of_mean
        whole = sum(parts.values())
        if not whole:
            return 0.0
        left = sum(value * (size / (size + more) if factor in names or names == (REST,) else 1.0) for names, value in parts.items())
        return 1 - math.sqrt(left / whole)

    def _count(self, names: tuple[str, ...]) -> int:
        return math.prod(self.sizes.values()) if names == (REST,) else math.prod(self.sizes[name] for name in names)


def split_variance(values: NDArray[np.float64], factors: Sequence[str]) -> Split:
    """Random-effects analysis of variance of a crossed design, one value in every cell.

    values: one axis per factor, in their order; the last is usually `item`. Items that are nan anywhere must be left out before.
    factors: such as ("draw", "demonstrations", "order", "train", "item"). A factor with one value has no variance and is left out.

    Effects of single factors and of pairs are told apart, everything beyond is the rest (with two factors their pair is). The mean squares
    are set equal to what they are on average: Searle, Casella and McCulloch 1992, Variance Components, sec. 4.3-4.4 (the ANOVA estimator,
    unbiased). Negative estimates are clipped at 0 and named.
    """
    assert values.ndim == len(factors), f"{values.ndim} axes for {len(factors)} factors"
    assert len(set(factors)) == len(factors), f"a factor occurs twice: {', '.join(factors)}"
    assert not np.isnan(values).any(), "leave out items that could not be scored somewhere"
    sizes = dict(zip(factors, values.shape, strict=True))
    varied = [name for name in factors if sizes[name] > 1]
    cells = values.reshape([sizes[name] for name in varied])
    order = min(2, len(varied) - 1)
    terms = [pair for size in range(1, order + 1) for pair in combinations(varied, size)]
    squares, freedom = {}, {}
    for names in terms:
        axes = tuple(n for n, name in enumerate(varied) if name not in names)
        # The effect of a set of factors is the mean over the others less the effects of its parts (inclusion and exclusion).
        means = cells.mean(axis=axes, keepdims=True)
        effect = means - cells.mean()
        for part in (part for part in terms if set(part) < set(names)):
            others = tuple(n for n, name in enumerate(varied) if name not in part)
            effect = effect - (cells.mean(axis=others, keepdims=True) - cells.mean())
        squares[names] = float((effect**2).sum()) * cells.size / effect.size
        freedom[names] = math.prod(sizes[name] - 1 for name in names)
    rest_freedom = cells.size - 1 - sum(freedom.values())
    rest = (float(((cells - cells.mean()) ** 2).sum()) - sum(squares.values())) / rest_freedom if rest_freedom > 0 else 0.0
    found: dict[tuple[str, ...], float] = {}
    for names in reversed(terms):
        # A mean square holds the rest and, times how often it was repeated, each component that the factors are part of.
        above = sum(_repeats(cells.size, sizes, wider) * found[wider] for wider in found if set(names) < set(wider))
        found[names] = (squares[names] / freedom[names] - rest - above) / _repeats(cells.size, sizes, names)
    ordered = {names: found[names] for names in terms} | ({(REST,): rest} if rest_freedom > 0 else {})
    return Split(
        MappingProxyType(sizes),
        MappingProxyType({names: max(0.0, value) for names, value in ordered.items()}),
        tuple(names for names, value in ordered.items() if value < -1e-15),
    )


def _repeats(size: int, sizes: Mapping[str, int], names: tuple[str, ...]) -> float:
    return size / math.prod(sizes[name] for name in names)
