"""Answers by the labels of the pool rows whose label probabilities are nearest (Xu et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ._common import LEAST, log_probabilities, usable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEEDS_TARGETS = True
FLOOR = 1e-3
"""Weight of a label without a vote: it may still be right."""
NEARER = 1e-4
"""What a vote gains over the next one: the nearest anchor decides between labels with equally many."""


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    k: int = Field(3, ge=1, le=1000, description="Anchors that vote.")


class KnnPrompting:
    """A majority vote of the k anchors x' with the smallest KL divergence of p(. | x) from p(. | x').

    Xu et al. 2023, https://arxiv.org/abs/2303.13824, sec. 3. Departures: distributions over the labels, not over the whole vocabulary; the
    anchors are the rows that calibrations are fitted on, each with demonstrations that do not hold it; of labels with equally many votes
    the one with the nearest anchor wins.
    """

    def __init__(self, k: int = 3) -> None:
        self.k = k

    def fit(self, scores: NDArray[np.float64], targets: Sequence[int]) -> dict[str, Any]:
        """scores: (n, n_labels) log-likelihoods in nats. targets: (n,) positions of the right labels."""
        import numpy as np

        rows = usable(scores)
        anchors = np.maximum(log_probabilities(scores[rows]), LEAST)
        return {"anchors": anchors.tolist(), "targets": np.asarray(targets)[rows].tolist()}

    def apply(self, state: Mapping[str, Any], scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, n_labels) -> (n, n_labels) log-probabilities: the shares of the votes."""
        import numpy as np

        anchors, targets = np.array(state["anchors"]), np.array(state["targets"])
        shares = np.maximum(log_probabilities(scores), LEAST)
        p = np.exp(shares)
        divergence = (p * shares).sum(axis=1)[:, None] - p @ anchors.T
        k = min(self.k, len(anchors))
        # Rounded, so that anchors alike to the last digits come in their own order, whatever the batch.
        nearest = np.argsort(np.round(divergence, 9), axis=1, kind="stable")[:, :k]
        votes = np.full(shares.shape, FLOOR)
        for place in range(k):
            votes[np.arange(len(votes)), targets[nearest[:, place]]] += 1 + NEARER * (k - place) / k
        votes[np.isnan(shares).any(axis=1)] = np.nan
        return log_probabilities(np.log(votes))


def build(settings: Settings, context: Context) -> KnnPrompting:
    return KnnPrompting(settings.k)
