"""A prompt with a part left out and all else in its place, and how likely an answer then is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ..errors import IclError, InputError, Problem
from ..prompt import Unfit, pack
from ..values import Example, Hit, LabelScores, Prediction, Prompt
from ._windows import joined, marked
from ._written import estimator_of, score

if TYPE_CHECKING:
    from ._predictor import FewShotPredictor

SMALLEST = 1e-300
"""Probabilities below count as this much, so that effects stay finite."""

Work: TypeAlias = tuple[Example, Prompt]
"""(a query, its prompt)"""


class Found(NamedTuple):
    """What a prompt gives."""

    log_probability: float
    """Of the answer that is asked about, in nats."""
    answer: str | None
    """The likeliest one; None where answers are written, which is not done again."""


def check_scores(predictor: FewShotPredictor) -> None:
    """Raises InputError where no answer has a log-probability that is its own prompt's alone."""
    lm, method = predictor._lm(), predictor.method
    problems = []
    if predictor.calibration is not None and predictor.calibration.is_transductive:
        message = "a transductive calibration would be fitted on the prompts with parts left out"
        problems.append(Problem(message, "Leave 'transductive' out.", field="calibration"))
    if method.samples > 1:
        problems.append(Problem("several samples vote on the answer, which gives no log-probability", "Use samples: 1.", field="samples"))
    if estimator_of(lm) == "generation" or (predictor.kind == "answer" and estimator_of(lm) != "loglikelihood"):
        message = f"'{lm.name}' gives no log-probability of an answer, so what leaving something out does cannot be measured"
        problems.append(Problem(message, "Use a model with log-probabilities.", field="lm"))
    if problems:
        raise InputError(problems)


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def without_each(predictor: FewShotPredictor, prompt: Prompt) -> list[Prompt]:
    """The prompt less each of its demonstrations in turn, nothing put in its place. Windows stay as they are cut; one that shows nothing
    else goes with its only demonstration."""
    return [_less(predictor, prompt, demonstration.uid) for demonstration in prompt.demonstrations]


def with_query(predictor: FewShotPredictor, prompt: Prompt, query: Example) -> Prompt:
    """The prompt with its demonstrations before another query. An input that is read in pieces is cut anew."""
    if _is_slid(prompt):
        hits = _hits(prompt)
        return _fitting(predictor._pack_one(query, hits, [hit.uid for hit in hits]))
    return _joined(predictor, prompt, [_packed(predictor, query, _hits(each)) for each in _apart(prompt)], query)


def _less(predictor: FewShotPredictor, prompt: Prompt, uid: str) -> Prompt:
    assert prompt.query is not None
    kept = []
    for each in _apart(prompt):
        hits = [hit for hit in _hits(each) if hit.uid != uid]
        if len(hits) == len(each.demonstrations):
            kept.append(each)
        elif hits or _is_slid(prompt) or prompt.windows is None:
            kept.append(_packed(predictor, each.query or prompt.query, hits))
    return _joined(predictor, prompt, kept, prompt.query)


def _apart(prompt: Prompt) -> Sequence[Prompt]:
    return prompt.windows.prompts if prompt.windows is not None else (prompt,)


def _is_slid(prompt: Prompt) -> bool:
    """Whether its windows are pieces of a long input, all with the same demonstrations."""
    return prompt.windows is not None and any(each.query != prompt.query for each in prompt.windows.prompts)


def _hits(prompt: Prompt) -> list[Hit]:
    return [Hit(d.uid, d.score or 0.0, d.example, d.shared) for d in prompt.demonstrations]


def _packed(predictor: FewShotPredictor, query: Example, hits: Sequence[Hit]) -> Prompt:
    """All of these demonstrations: with a part less it fits, give or take a token of the joint."""
    return _fitting(pack(predictor.bound, query, hits, (), codec=predictor._model.codec(), format=predictor.method.format))


def _joined(predictor: FewShotPredictor, prompt: Prompt, windows: Sequence[Prompt], query: Example) -> Prompt:
    if prompt.windows is None:
        return windows[0]
    return _fitting(marked(joined(windows, prompt.windows.combine, query), predictor.bound, predictor._model.codec()))


def _fitting(made: Prompt | Unfit) -> Prompt:
    if isinstance(made, Unfit):
        raise InputError(Problem(made.why, "Take another query, or other windows.", field="query"))
    return made


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def found_for(predictor: FewShotPredictor, work: Sequence[Work], answers: Sequence[str]) -> list[Found | str]:
    """How likely each prompt makes its answer, in one call of the model; a str says why it could not be scored.

    Labels and choices: among the candidates, after calibration. Answers in words: the log-likelihood of the answer's text behind the
    prompt, as the template writes it.
    """
    if not work:
        return []
    if predictor.kind == "answer":
        texts = [predictor.bound.continuation(query, answer, prompt.format) for (query, prompt), answer in zip(work, answers, strict=True)]
        return texts_found(predictor, [prompt for _, prompt in work], texts)
    predictions = predictor.answers([query for query, _ in work], [prompt for _, prompt in work])
    return [label_found(prediction, answer) for prediction, answer in zip(predictions, answers, strict=True)]


def label_found(prediction: Prediction, answer: str) -> Found | str:
    """The same of a prediction that is there already."""
    if prediction.answer is None or prediction.probabilities is None or answer not in prediction.probabilities:
        return prediction.why or f"'{answer}' is none of its candidates"
    return Found(math.log(max(prediction.probabilities[answer], SMALLEST)), prediction.answer)


def texts_found(predictor: FewShotPredictor, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[Found | str]:
    """How likely each text is behind its prompt."""
    scores = score(predictor._lm(), prompts, [[text] for text in texts])
    return [Found(each.sums[0], None) if isinstance(each, LabelScores) else each.why for each in scores]


def all_found(found: Sequence[Found | str]) -> list[Found]:
    """Raises IclError where something could not be scored."""
    for each in found:
        if isinstance(each, str):
            raise IclError(f"a prompt with a part left out could not be scored: {each}")
    return [each for each in found if isinstance(each, Found)]
