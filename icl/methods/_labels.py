"""From a prompt's raw label scores to a Prediction. Shared by everything that scores label words with a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import InputError, Problem
from ..prompt import Unfit
from ..readout import ambiguous, group_scores, pick, probabilities
from ..values import Example, LabelScores, Prediction, Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHOWN_PROBLEMS = 20


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
    import numpy as np

    if np.isnan(values).any() or not np.isfinite(values).any():
        return unscored(query, "the model's likelihoods are not numbers", prompt)
    best, tie = pick(values, tolerance)
    shares = dict(zip(candidates.answers, probabilities(values).tolist(), strict=True))
    return Prediction(
        uid=query.uid,
        answer=candidates.answers[best],
        probabilities=shares,
        candidates=candidates.answers,
        demonstrations=tuple(d.uid for d in prompt.demonstrations),
        scores=_grouped(scores, candidates),
        tie=tie or ambiguous(scores, candidates.groups, best, readout),
        n_tokens=prompt.n_tokens,
        n_dropped=len(prompt.dropped),
        steps=prompt.steps,
        n_windows=n_windows(prompt),
        n_cut=prompt.n_cut,
    )


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
