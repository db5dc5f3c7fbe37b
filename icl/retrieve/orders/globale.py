"""The order under which the model's answers to rows of the pool are spread most evenly over the labels (GlobalE)."""

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
    """Of the permutations tried, the one with the largest entropy of the distribution of predicted labels; ties to the most similar last.

    Lu et al. 2022, https://arxiv.org/abs/2104.08786, eq. 4. The probes are rows of the pool, their labels unseen, rather than texts that
    the model wrote. Costs `permutations` times `probes` prompts for each different set of demonstrations.
    """
    return probing("globale", settings, context, global_entropy)


def global_entropy(shares: NDArray[np.float64]) -> float:
    """Entropy in nats of how often each label is the likeliest. shares: (n_probes, n_labels)."""
    import numpy as np

    counts = np.bincount(shares.argmax(axis=1), minlength=shares.shape[1])
    return float(entropy(counts / counts.sum()))
