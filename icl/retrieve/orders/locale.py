"""The order under which the model is least overconfident on rows of the pool (LocalE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...plugins import Context
from ...protocols import Order
from ._probing import ProbeSettings, entropy, probing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEEDS_MODEL = True


class Settings(ProbeSettings):
    pass


def build(settings: Settings, context: Context) -> Order:
    """Of the permutations tried, the one with the largest mean entropy of the labels' probabilities; ties to the most similar last.

    Lu et al. 2022, https://arxiv.org/abs/2104.08786, eq. 6. The probes are rows of the pool, their labels unseen, rather than texts that
    the model wrote. Costs `permutations` times `probes` prompts for each different set of demonstrations.
    """
    return probing("locale", settings, context, local_entropy)


def local_entropy(shares: NDArray[np.float64]) -> float:
    """Mean over the probes of the entropy in nats. shares: (n_probes, n_labels)."""
    return float(entropy(shares).mean())
