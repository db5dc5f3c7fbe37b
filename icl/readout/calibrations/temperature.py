"""Divides the log-likelihoods by one number, so that probabilities are as high as answers are right (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...plugins import Context, NoSettings
from ._common import LEAST, log_probabilities, usable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEEDS_TARGETS = True
Settings = NoSettings
COLDEST, HOTTEST = 0.05, 100.0
"""Where all rows are answered rightly no temperature is too low; few rows must not make every answer certain."""


class Temperature:
    """Guo et al. 2017, https://arxiv.org/abs/1706.04599, sec. 4.2: the temperature of the smallest mean negative log-likelihood of the
    right labels. Answers stay as they are."""

    def fit(self, scores: NDArray[np.float64], targets: Sequence[int]) -> dict[str, Any]:
        """scores: (n, n_labels) log-likelihoods in nats. targets: (n,) positions of the right labels."""
        import numpy as np
        from scipy.optimize import minimize_scalar

        rows = usable(scores)
        shares, right = log_probabilities(scores[rows]), np.asarray(targets)[rows]
        at = np.arange(len(shares)), right
        # A label of no likelihood costs the same at every temperature; the floor keeps it from hiding what the others say.
        floored = np.maximum(shares, LEAST)

        def loss(log_temperature: float) -> float:
            return float(-log_probabilities(floored / np.exp(log_temperature))[at].mean())

        bounds = float(np.log(COLDEST)), float(np.log(HOTTEST))
        if shares.shape[1] == 1 or loss(bounds[0]) == loss(bounds[1]):
            return {"temperature": 1.0}
        found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9})
        return {"temperature": float(np.exp(found.x))}

    def apply(self, state: Mapping[str, Any], scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, n_labels) -> (n, n_labels) log-probabilities."""
        return log_probabilities(log_probabilities(scores) / state["temperature"])


def build(settings: NoSettings, context: Context) -> Temperature:
    return Temperature()
