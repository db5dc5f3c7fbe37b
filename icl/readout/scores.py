"""Label scores to log-scores per label, probabilities, and the label they pick. Pure numpy, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import UnknownNameError
from ..values import LabelScores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

READOUTS: tuple[str, ...] = ("sum", "per_token", "per_byte", "per_char")
"""What a sum of log-likelihoods is divided by: nothing, its tokens, or the bytes or characters of the continuation without its
leading white space (lm-evaluation-harness' `acc` is `sum`, its `acc_norm` is `per_char`)."""
TOLERANCE_NAT = 1e-4
"""How far two exact fp32 computations of one sum may lie apart, up to `FREE_TOKENS` tokens."""
TOLERANCE_PER_TOKEN = 1e-5
FREE_TOKENS = 16
HALF_TOLERANCE_NAT = 1e-2
"""The same in 16-bit types, where the batch moves a token's log-likelihood by about 1e-2."""


def check_readout(readout: str) -> str:
    """`readout` itself. Raises UnknownNameError if there is none of that name."""
    if readout not in READOUTS:
        raise UnknownNameError("read-out", readout, READOUTS, field="readout")
    return readout


def divisors(scores: LabelScores, readout: str) -> NDArray[np.float64]:
    """(n_candidates,) what each sum is divided by, at least 1."""
    import numpy as np

    counts = {"per_token": scores.n_tokens, "per_byte": scores.n_bytes, "per_char": scores.n_chars}
    if check_readout(readout) == "sum":
        return np.ones(len(scores.sums))
    return np.maximum(np.asarray(counts[readout], dtype=np.float64), 1.0)


def group_scores(scores: LabelScores, groups: Sequence[tuple[str, Sequence[int]]], readout: str = "sum") -> NDArray[np.float64]:
    """One log-score per label, from one per candidate.

    groups: (label, positions of its words among `scores.candidates`); a position may serve several labels.
    Returns (n_groups,): the log-sum-exp of the words' log-likelihoods, each divided as the read-out says.
    """
    import numpy as np

    values = np.asarray(scores.sums, dtype=np.float64) / divisors(scores, readout)
    return np.array([_log_sum_exp(values[list(positions)]) for _, positions in groups])


def _log_sum_exp(values: NDArray[np.float64]) -> float:
    import numpy as np

    top = values.max()
    return float(top) if not np.isfinite(top) or len(values) == 1 else float(top + np.log(np.exp(values - top).sum()))


def probabilities(log_scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the last axis. A log-score of -inf gets 0; if all are -inf, all are equal."""
    import numpy as np

    top = log_scores.max(axis=-1, keepdims=True)
    raised = np.exp(np.where(np.isfinite(top), log_scores - np.where(np.isfinite(top), top, 0.0), 0.0))
    result: NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
    return result


def tie_tolerance(scores: LabelScores, readout: str = "sum", dtype: str = "float32") -> float:
    """How close two labels must be, in the read-out's own unit, for the computation not to tell them apart.

    The tolerance of a sum (1e-4 nat in fp32, and 1e-5 for each token beyond 16; 1e-2 in 16-bit types), divided as the sums are.
    """
    tokens = max(scores.n_tokens, default=0)
    half = any(part in dtype for part in ("16", "half", "bit"))
    nat = HALF_TOLERANCE_NAT if half else TOLERANCE_NAT + TOLERANCE_PER_TOKEN * max(0, tokens - FREE_TOKENS)
    return nat / float(divisors(scores, readout).min()) if scores.sums else nat


def pick(log_scores: NDArray[np.float64], tolerance: float) -> tuple[int, bool]:
    """(position of the best label, whether another lies within `tolerance` of it); of those the first is taken.

    So a near-tie is broken by the order of the labels, not by the batch it was computed in.
    """
    import numpy as np

    close = np.flatnonzero(log_scores >= log_scores.max() - tolerance)
    return int(close[0]), len(close) > 1
