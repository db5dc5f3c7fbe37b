"""Label scores to log-scores per label, probabilities, and the label they pick. Pure numpy, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import InputError, Problem, UnknownNameError
from ..values import LabelScores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LENGTHS: tuple[str, ...] = ("sum", "per_token", "per_byte", "per_char")
"""What a sum of log-likelihoods is divided by: nothing, its tokens, or the bytes or characters of the continuation without its
leading white space (lm-evaluation-harness' `acc` is `sum`, its `acc_norm` is `per_char`)."""
PREMISES: Mapping[str, str] = {"pmi": "premise", "pmi_domain": "domain_premise"}
"""Read-outs that subtract the label's log-likelihood after a premise, and the field of `LabelScores` that has it: after nothing at all,
and after what the template writes right before the answer (Holtzman et al. 2021, https://arxiv.org/abs/2104.08315, PMI_DC)."""
READOUTS: tuple[str, ...] = (*LENGTHS, "first_token", *PREMISES, "channel")
"""Besides: `first_token`, the log-likelihood of the first token alone; `channel`, that of the query's text behind the label (Min et al.
2022, https://arxiv.org/abs/2108.04106)."""
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


def readouts_of(scores: LabelScores) -> tuple[str, ...]:
    """The read-outs that these scores allow. A channel's allow no other: what they sum over is not the label."""
    if scores.conditioned == "answer":
        return ("channel",)
    premises = [readout for readout, field in PREMISES.items() if getattr(scores, field)]
    return (*LENGTHS, *(["first_token"] if scores.first else []), *premises)


def divisors(scores: LabelScores, readout: str) -> NDArray[np.float64]:
    """(n_candidates,) what each sum is divided by, at least 1."""
    import numpy as np

    counts = {"per_token": scores.n_tokens, "per_byte": scores.n_bytes, "per_char": scores.n_chars}
    if check_readout(readout) not in counts:
        return np.ones(len(scores.sums))
    return np.maximum(np.asarray(counts[readout], dtype=np.float64), 1.0)


def group_scores(scores: LabelScores, groups: Sequence[tuple[str, Sequence[int]]], readout: str = "sum") -> NDArray[np.float64]:
    """One log-score per label, from one per candidate.

    groups: (label, positions of its words among `scores.candidates`); a position may serve several labels.
    Returns (n_groups,): the log-sum-exp of the words' log-likelihoods, each divided as the read-out says. Several words of a label are
    one event: `first_token` adds up its different first tokens, `pmi` and `pmi_domain` subtract the log-sum-exp of the words after the
    premise, and `channel` takes the mean over the words, log-sum-exp less the log of their number, for each is a prompt of its own and
    more words must not make a label likelier. Raises InputError if the scores do not allow the read-out.
    """
    import numpy as np

    check_readout(readout)
    if readout not in readouts_of(scores):
        fix = f"They allow: {', '.join(readouts_of(scores))}."
        raise InputError(Problem(f"these scores do not allow the read-out '{readout}'", fix, field="readout"))
    values = np.asarray(scores.first if readout == "first_token" else scores.sums, dtype=np.float64) / divisors(scores, readout)
    places = [list(positions) for _, positions in groups]
    if readout == "first_token":
        places = [sorted({scores.first_of[at] for at in positions}) for positions in places]
    found = np.array([_log_sum_exp(values[positions]) for positions in places])
    if readout in PREMISES:
        before = np.asarray(getattr(scores, PREMISES[readout]), dtype=np.float64)
        with np.errstate(invalid="ignore"):  # a label that is impossible with and without the query is no number, and unscored
            found -= np.array([_log_sum_exp(before[positions]) for positions in places])
    elif readout == "channel":
        found -= np.log([len(positions) for positions in places])
    return found


def ambiguous(scores: LabelScores, groups: Sequence[tuple[str, Sequence[int]]], best: int, readout: str) -> bool:
    """Whether the read-out `first_token` cannot tell the label at `best` from another: one begins with a token that it begins with too."""
    if readout != "first_token":
        return False
    beginnings = [{scores.first_of[at] for at in positions} for _, positions in groups]
    return any(beginnings[best] & other for at, other in enumerate(beginnings) if at != best)


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

    The tolerance of a sum (1e-4 nat in fp32, and 1e-5 for each token beyond 16; 1e-2 in 16-bit types), divided as the sums are; twice
    that where two sums are subtracted.
    """
    tokens = 1 if readout == "first_token" else max(scores.n_tokens, default=0)
    half = any(part in dtype for part in ("16", "half", "bit"))
    nat = HALF_TOLERANCE_NAT if half else TOLERANCE_NAT + TOLERANCE_PER_TOKEN * max(0, tokens - FREE_TOKENS)
    nat *= 2 if readout in PREMISES else 1
    return nat / float(divisors(scores, readout).min()) if scores.sums else nat


def pick(log_scores: NDArray[np.float64], tolerance: float) -> tuple[int, bool]:
    """(position of the best label, whether another lies within `tolerance` of it); of those the first is taken.

    So a near-tie is broken by the order of the labels, not by the batch it was computed in.
    """
    import numpy as np

    close = np.flatnonzero(log_scores >= log_scores.max() - tolerance)
    return int(close[0]), len(close) > 1
