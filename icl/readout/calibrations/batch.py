"""Divides out the mean label probabilities over many inputs (Zhou et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...plugins import Context
from ._common import LEAST, divided, log_mean, log_probabilities, usable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mean: Literal["probability", "log"] = Field("probability", description="Mean of the probabilities, or of their logarithms.")
    transductive: bool = Field(False, description="Fit on the test items themselves, as published. Cannot be exported.")


class Batch:
    """p(y | x) / mean over x of p(y | x), normalised.

    Zhou et al. 2024, https://arxiv.org/abs/2309.17249, sec. 3.3. Departure: the mean is over rows of the pool and frozen, unless
    `transductive`; with `mean: log` the mean log-probability is subtracted instead.
    """

    def __init__(self, mean: str = "probability") -> None:
        self.mean = mean

    def fit(self, scores: NDArray[np.float64]) -> dict[str, Any]:
        """scores: (n, n_labels) log-likelihoods in nats. Raises InputError if no row is a number."""
        import numpy as np

        shares = log_probabilities(scores[usable(scores)])
        prior = log_mean(shares) if self.mean == "probability" else np.maximum(shares, LEAST).mean(axis=0)
        return {"log_prior": prior.tolist()}

    def apply(self, state: Mapping[str, Any], scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, n_labels) -> (n, n_labels) log-probabilities."""
        return divided(scores, state["log_prior"])


def build(settings: Settings, context: Context) -> Batch:
    return Batch(settings.mean)
