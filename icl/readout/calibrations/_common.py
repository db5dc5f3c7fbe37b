"""What calibrations share: log-probabilities, label priors that are divided out, and queries without content."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import InputError, Problem
from ...plugins import Context
from ...values import RAW_QUERY, Example, content_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST = -700.0
"""Least log-probability of a label in a prior: a label that never got any mass must not become infinitely likely."""


def log_probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n_labels) log-scores -> log-softmax of each row, float64; nan where a row has no finite score."""
    import numpy as np

    scores = np.asarray(scores, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # a row of -inf alone has no probabilities: it stays nan, and its query is unscored
        shifted = scores - scores.max(axis=-1, keepdims=True)
        result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def usable(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) which rows are numbers."""
    import numpy as np

    scores = np.asarray(scores, dtype=np.float64)
    found = np.asarray(~np.isnan(scores).any(axis=1) & np.isfinite(scores).any(axis=1))
    if not found.any():
        raise InputError(Problem("none of the scores that the calibration is fitted on are numbers", "Leave it out.", field="calibration"))
    return found


def log_mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n_labels) log-scores -> (n_labels,) log of the mean of their exponentials, normalised over the labels, at least `LEAST`.

    Raises InputError if no row is a number.
    """
    import numpy as np

    rows = np.asarray(scores, dtype=np.float64)[usable(scores)]
    raised = np.exp(rows - rows.max()).mean(axis=0)
    with np.errstate(divide="ignore"):
        result: NDArray[np.float64] = np.maximum(np.log(raised / raised.sum()), LEAST)
    return result


def divided(scores: NDArray[np.float64], log_prior: Sequence[float]) -> NDArray[np.float64]:
    """(n, n_labels) log-scores -> log-probabilities proportional to the probability divided by the prior."""
    import numpy as np

    return log_probabilities(np.asarray(scores, dtype=np.float64) - np.asarray(log_prior, dtype=np.float64))


def input_names(context: Context) -> tuple[str, ...]:
    """The task's input fields. Raises InputError if nothing names them."""
    names = context.inputs or (tuple(context.pool[0].fields) if len(context.pool) else ())
    if not names:
        fix = "Give examples, or name the input fields: FewShot(inputs=('text',))."
        raise InputError(Problem("a calibration needs the names of the input fields", fix, field="calibration"))
    return names


def content_free(context: Context, rows: Sequence[Sequence[str]]) -> list[Example]:
    """Queries of the task's input fields with these texts in them, one text per field; of a conversation the only turn."""
    like = context.pool[0].fields if len(context.pool) else {}
    names = input_names(context)
    made = []
    for texts in rows:
        fields: dict[str, Any] = {}
        for name, text in zip(names, texts, strict=True):
            is_plain = isinstance(like.get(name, ""), str | int | float)
            fields[name] = text if is_plain else [{"role": "user", "text": text}]
        made.append(Example(f"{RAW_QUERY}{content_digest(fields)}", fields, None))
    return made


class Prior:
    """Divides the labels' probabilities by those of queries without content, which `make` makes: they are needed for fitting only."""

    def __init__(self, make: Callable[[], list[Example]]) -> None:
        self.queries = make

    def fit(self, scores: NDArray[np.float64]) -> dict[str, Any]:
        """scores: (n_queries, n_labels) log-likelihoods in nats."""
        return {"log_prior": log_mean(scores).tolist()}

    def apply(self, state: Mapping[str, Any], scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, n_labels) -> (n, n_labels) log-probabilities."""
        return divided(scores, state["log_prior"])
