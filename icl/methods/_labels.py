"""From a prompt's raw label scores to a Prediction. Shared by everything that scores label words with a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import InputError, Problem
from ..prompt import Unfit
from ..readout import ambiguous, group_scores, pick, probabilities, tie_tolerance
from ..values import Example, LabelScores, Prediction, Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHOWN_PROBLEMS = 20
NOT_NUMBERS = "the model's likelihoods are not numbers"


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is scored for one query: each continuation once, and which of them stand for which answer."""

    continuations: tuple[str, ...]
    groups: tuple[tuple[str, tuple[int, ...]], ...]
    """(label or choice, positions of its continuations). Choices of equal text are one answer."""

    @property
    def answers(self) -> tuple[str, ...]:
        return tuple(answer for answer, _ in self.groups)


def candidates_of(continuations: Sequence[tuple[str, Sequence[str]]]) -> Candidates:
    """From (answer, its continuations), in label order. An answer that comes twice is joined, so its words' likelihoods add up."""
    position: dict[str, int] = {}
    groups: dict[str, dict[int, None]] = {}
    for answer, texts in continuations:
        for text in texts:
            groups.setdefault(answer, {})[position.setdefault(text, len(position))] = None
    return Candidates(tuple(position), tuple((answer, tuple(positions)) for answer, positions in groups.items()))


def log_scores(scores: LabelScores, candidates: Candidates, readout: str) -> NDArray[np.float64]:
    """(n_answers,) uncalibrated log-scores."""
    return group_scores(scores, candidates.groups, readout)


def label_prediction(
    query: Example,
    prompt: Prompt,
    scores: LabelScores,
    candidates: Candidates,
    values: NDArray[np.float64],
    tolerance: float,
    readout: str = "sum",
) -> Prediction:
    """values: (n_answers,) log-scores or calibrated log-probabilities; within `tolerance` of the best the first answer is taken. An
    answer that its read-out cannot tell from another is marked as a tie."""
    found = _read(values, tolerance, scores, candidates.groups, readout)
    if found is None:
        return unscored(query, NOT_NUMBERS, prompt)
    answer, shares, tie = found
    return Prediction(
        uid=query.uid,
        answer=answer,
        probabilities=shares,
        candidates=candidates.answers,
        demonstrations=tuple(d.uid for d in prompt.demonstrations),
        scores=_grouped(scores, candidates),
        tie=tie,
        n_tokens=prompt.n_tokens,
        n_dropped=len(prompt.dropped),
        steps=prompt.steps,
        n_windows=n_windows(prompt),
        n_cut=prompt.n_cut,
    )


def reread(prediction: Prediction, readout: str, dtype: str = "float32") -> Prediction:
    """A stored prediction as another read-out of its raw scores gives it: not calibrated, and nothing withheld. One without raw scores
    stays as it is. dtype: of the model. Raises InputError if the scores do not allow the read-out."""
    scores = prediction.scores
    if scores is None:
        return prediction
    groups = list(zip(prediction.candidates, scores.groups or [(at,) for at in range(len(scores.candidates))], strict=True))
    found = _read(group_scores(scores, groups, readout), tie_tolerance(scores, readout, dtype), scores, groups, readout)
    answer, shares, tie = found or (None, None, False)
    return replace(prediction, answer=answer, probabilities=shares, tie=tie, withheld=None, why=None if found else NOT_NUMBERS)


def _read(
    values: NDArray[np.float64], tolerance: float, scores: LabelScores, groups: Sequence[tuple[str, Sequence[int]]], readout: str
) -> tuple[str, dict[str, float], bool] | None:
    """(answer, probabilities, whether it is a tie); None where the values are not numbers."""
    import numpy as np

    if np.isnan(values).any() or not np.isfinite(values).any():
        return None
    best, tie = pick(values, tolerance)
    shares = dict(zip((answer for answer, _ in groups), probabilities(values).tolist(), strict=True))
    return groups[best][0], shares, tie or ambiguous(scores, groups, best, readout)


def _grouped(scores: LabelScores, candidates: Candidates) -> LabelScores:
    """With which of the scores are whose, where not every answer has one of its own."""
    groups = tuple(positions for _, positions in candidates.groups)
    return scores if groups == tuple((at,) for at in range(len(scores.candidates))) else replace(scores, groups=groups)


def n_windows(prompt: Prompt) -> int:
    """How many prompts stand for this one; 0 if it is itself what the model reads."""
    return len(prompt.windows.prompts) if prompt.windows is not None else 0


def unscored(query: Example, why: str, prompt: Prompt | None = None, text: str | None = None) -> Prediction:
    """A Prediction without an answer, and its reason."""
    if prompt is None:
        return Prediction(query.uid, None, why=why, text=text)
    shown = tuple(d.uid for d in prompt.demonstrations)
    n_dropped = len(prompt.dropped)
    return Prediction(
        query.uid,
        None,
        demonstrations=shown,
        why=why,
        n_tokens=prompt.n_tokens,
        n_dropped=n_dropped,
        text=text,
        steps=prompt.steps,
        n_windows=n_windows(prompt),
        n_cut=prompt.n_cut,
    )


def refuse_unfit(made: Sequence[Prompt | Unfit]) -> None:
    """Raises InputError with the queries, the first 20, for which no prompt fits."""
    fix = "Raise max_tokens, or leave this query out."
    problems = [Problem(p.why, fix, field=f"queries.{i}") for i, p in enumerate(made) if isinstance(p, Unfit)]
    if problems:
        more = [Problem(f"and {len(problems) - SHOWN_PROBLEMS} more")] if len(problems) > SHOWN_PROBLEMS else []
        raise InputError([*problems[:SHOWN_PROBLEMS], *more])
