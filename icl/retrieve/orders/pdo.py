"""The order under which the model's label marginal is closest to the prior (probability distribution ordering)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...plugins import Context
from ...protocols import Order
from ._probing import ProbeSettings, probing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEEDS_MODEL = True


class Settings(ProbeSettings):
    prior: Literal["pool", "uniform"] = Field("pool", description="The label marginal aimed at: the labels of the pool, or all alike.")


def build(settings: Settings, context: Context) -> Order:
    """Of the permutations tried, the one whose mean label probabilities over rows of the pool have the smallest KL divergence from the
    prior; ties to the most similar last.

    Xu et al. 2024, https://arxiv.org/abs/2402.11447, the setting with unlabelled rows and a label prior. Costs `permutations` times
    `probes` prompts for each different set of demonstrations.
    """
    target = prior(context, settings.prior)
    return probing("pdo", settings, context, lambda shares: -divergence(shares, target))


def prior(context: Context, of: str) -> NDArray[np.float64]:
    """(n_labels,) shares, add-one smoothed, so that a rare label is not nought."""
    import numpy as np

    counts = np.ones(len(context.labels))
    if of == "pool":
        seen = Counter(row.target for row in context.pool)
        counts += [seen[label] for label in context.labels]
    found: NDArray[np.float64] = counts / counts.sum()
    return found


def divergence(shares: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """KL divergence in nats of the mean of `shares` (n_probes, n_labels) from the prior."""
    import numpy as np

    marginal = shares.mean(axis=0)
    some = marginal > 0
    return float((marginal[some] * np.log(marginal[some] / target[some])).sum())
