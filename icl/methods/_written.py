"""What a model writes: answers in words, rationales, and labels where there are no log-probabilities."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import CostLimitError, InputError, Problem
from ..prompt.bind import letters
from ..protocols import LanguageModel, offers
from ..readout import read_answer, read_label, vote
from ..values import Example, LabelScores, Prediction, Prompt, canonical_json
from ._labels import unscored
from ._schema import constrains
from ._windows import gathered, spread

if TYPE_CHECKING:
    from ..prompt import BoundTemplate
    from .few_shot import FewShot


@dataclass(frozen=True, slots=True)
class Lost:
    """An item that an endpoint gave nothing for."""

    why: str
    again: bool = True
    """Asking again may help: the server failed, not the item."""
    limit: bool = False
    """It was not asked at all: the cost limit was reached."""


class SingleItemsMayFail(Protocol):
    """A model elsewhere: an item that fails is handed back as such and takes no other with it."""

    def answers(
        self, prompts: Sequence[Prompt], n: int, temperature: float, seed: int, max_new_tokens: int, stop: Sequence[str]
    ) -> Sequence[Any]:
        """Per prompt an object with `texts`, as many as asked for or none, `why` and `lost` (asking again may help)."""

    def scores(self, contexts: Sequence[Prompt], continuations: Sequence[Sequence[str]]) -> Sequence[Any]:
        """Per prompt LabelScores, or an object with `why` and `lost`."""

    def requests_for(self, n: int) -> int:
        """How often a prompt is sent for n texts."""


class Weighs(Protocol):
    """A model that says of each text that it samples how likely it was."""

    def weighed(
        self, prompts: Sequence[Prompt], n: int, temperature: float, seed: int, max_new_tokens: int, stop: Sequence[str]
    ) -> Sequence[Sequence[tuple[str, float]]]:
        """Per prompt n texts, each with the mean log-likelihood of its tokens in nats."""


@dataclass(frozen=True, slots=True)
class Writing:
    """How a model is asked to write."""

    max_new_tokens: int
    stop: tuple[str, ...]
    samples: int = 1
    greedy: bool = True
    """Whether a single text is the likeliest; several are always drawn."""
    temperature: float = 0.7
    seed: int = 0
    weighted: bool = False
    """Whether the samples are weighed for their vote."""
    schema: Mapping[str, Any] | None = None
    """What the texts are held to, where the model can be."""

    @property
    def drawn(self) -> bool:
        """Whether the texts are drawn, each item's with a seed of its own."""
        return self.samples > 1 or not self.greedy


def estimator_of(lm: LanguageModel) -> str:
    """What a label's score is with this model: `loglikelihood`, `first_token`, or `generation` where there is no score."""
    return str(getattr(lm, "estimator", "loglikelihood"))


def demands(method: FewShot) -> bool:
    """Whether the method asks for something that not every model gives."""
    own = method.calibration is not None or method.abstain is not None or method.vote != "plain" or method.answer is not None
    return own or method.readouts != ("sum",) or method.format != "auto"


def check_estimator(method: FewShot, lm: LanguageModel) -> None:
    """Raises InputError for what needs log-probabilities that the model does not give."""
    estimator = estimator_of(lm)
    problems = []
    beyond = [readout for readout in method.readouts if readout not in _READOUTS.get(estimator, method.readouts)]
    if beyond:
        message = f"the read-out '{beyond[0]}' needs a label's whole log-likelihood, and '{lm.name}' gives {_GIVES[estimator]}"
        problems.append(Problem(message, "Use readout: sum, or a model with log-probabilities.", field="readout"))
    elif method.samples > 1 and method.readouts != ("sum",):
        message = f"the read-out '{method.readouts[-1]}' is of log-probabilities, and with samples labels are read out of text"
        problems.append(Problem(message, "Leave one of the two out.", field="readout"))
    if method.calibration is not None and (estimator == "generation" or method.samples > 1):
        message = f"a calibration corrects log-probabilities, and here labels are read out of the text that '{lm.name}' writes"
        problems.append(Problem(message, "Leave it out, or use a model with log-probabilities.", field="calibration"))
    if method.abstain is not None and estimator == "generation" and method.samples == 1:
        message = f"abstaining goes by probabilities, and '{lm.name}' gives one text"
        problems.append(Problem(message, "Set samples: 8, or use a model with log-probabilities.", field="abstain"))
    if method.vote == "weighted" and method.answer is not None:
        problems.append(Problem("records are counted one each", "Use vote: plain.", field="vote"))
    elif method.vote == "weighted" and not offers(lm, Weighs):
        message = f"a weighted vote goes by how likely each text was, and '{lm.name}' does not say so"
        problems.append(Problem(message, "Use vote: plain, or a model on this machine.", field="vote"))
    if problems:
        raise InputError(problems)


_READOUTS = {"first_token": ("sum", "first_token"), "generation": ("sum",)}
"""What an estimator that does not give whole log-likelihoods allows; there `sum` is whatever it gives."""
_GIVES = {"first_token": "that of its first token only", "generation": "text only"}


def write(lm: LanguageModel, prompts: Sequence[Prompt], how: Writing) -> list[tuple[str, ...] | Lost]:
    """For each prompt the texts written, `how.samples` of them; Lost for what an endpoint gave no answer to."""
    if not prompts:
        return []
    if offers(lm, SingleItemsMayFail):
        given = (prompts, how.samples, how.temperature if how.drawn else 0.0, how.seed, how.max_new_tokens, how.stop)
        more: dict[str, Any] = (
            {"schema": how.schema} if how.schema is not None and "schema" in inspect.signature(lm.answers).parameters else {}
        )
        answers = _done(len(prompts), lambda: lm.answers(*given, **more))
        return [a if isinstance(a, Lost) else tuple(a.texts) or Lost(a.why or "the endpoint wrote nothing", a.lost) for a in answers]
    if how.schema is not None and constrains(lm):
        held: Any = lm
        if not how.drawn:
            return [(text,) for text in held.generate(prompts, how.max_new_tokens, how.stop, constraint=how.schema)]
        found = held.sample(prompts, how.samples, how.temperature, how.seed, how.max_new_tokens, how.stop, constraint=how.schema)
        return [tuple(each) for each in found]
    if not how.drawn:
        return [(text,) for text in lm.generate(prompts, max_new_tokens=how.max_new_tokens, stop=how.stop)]
    texts = lm.sample(prompts, how.samples, how.temperature, how.seed, how.max_new_tokens, how.stop)
    return [tuple(each) for each in texts]


def write_and_weigh(lm: LanguageModel, prompts: Sequence[Prompt], how: Writing) -> list[tuple[tuple[str, ...], tuple[float, ...]] | Lost]:
    """As `write`, with the weight that each text has in a vote; no weights where all count the same.

    The weight is the mean probability of the text's tokens (their geometric mean), so that a long text is not worth less for its length:
    Wang et al. 2023, https://arxiv.org/abs/2203.11171, sec. 3.1, "weighted sum (normalized)".
    """
    if not how.weighted:
        return [each if isinstance(each, Lost) else (each, ()) for each in write(lm, prompts, how)]
    assert offers(lm, Weighs), "checked before"
    if not prompts:
        return []
    found = lm.weighed(prompts, how.samples, how.temperature, how.seed, how.max_new_tokens, how.stop)
    return [(tuple(text for text, _ in texts), tuple(math.exp(mean) for _, mean in texts)) for texts in found]


def requests_for(lm: LanguageModel, samples: int) -> int:
    """How often a prompt is read for so many texts."""
    return int(lm.requests_for(samples)) if offers(lm, SingleItemsMayFail) else 1


def score(lm: LanguageModel, prompts: Sequence[Prompt], continuations: Sequence[Sequence[str]]) -> list[LabelScores | Lost]:
    """The raw scores of each prompt's continuations; Lost for what an endpoint gave none for."""
    if not prompts:
        return []
    contexts, wanted = spread(prompts, continuations)
    if offers(lm, SingleItemsMayFail):
        answers = _done(len(contexts), lambda: lm.scores(contexts, wanted))
        found = [each if isinstance(each, LabelScores | Lost) else Lost(each.why, each.lost) for each in answers]
    else:
        found = list(lm.score(contexts, wanted))
    return gathered(prompts, found)


def _done(n: int, call: Callable[[], Sequence[Any]]) -> list[Any]:
    """What a call gives, or what it had done when the cost limit stopped it, with Lost for the other items."""
    try:
        return list(call())
    except CostLimitError as error:
        results = error.results or (None,) * n
        return [Lost(str(error), limit=True) if each is None else each for each in results]


def lost(query: Example, prompt: Prompt, failure: Lost) -> Prediction:
    """The Prediction of an item that an endpoint gave nothing for."""
    return replace(unscored(query, failure.why, prompt), lost=failure.again)


def words_of(bound: BoundTemplate, query: Example) -> dict[str, tuple[str, ...]]:
    """Label or choice -> what a model may write for it."""
    if bound.kind == "classify":
        return {label: (*words, label) for label, words in bound.words.items()}
    names = letters(len(query.choices)) if bound.template.choices == "letter" else query.choices
    words: dict[str, tuple[str, ...]] = {}
    for choice, name in zip(query.choices, names, strict=True):
        words[choice] = (*words.get(choice, (choice,)), name)
    return words


def read_as_label(
    text: str, words: Mapping[str, Sequence[str]], *, stop: Sequence[str] = (), extract: str | None = None
) -> tuple[str | None, str | None]:
    """(the label that the text names, None), or (None, why there is none)."""
    answer, why = read_answer(text, stop=stop, extract=extract)
    label = read_label(answer, words) if answer is not None else None
    if label is not None:
        return label, None
    return None, why or f"none of {', '.join(words)} can be read out of the answer"


def prediction_of(
    bound: BoundTemplate,
    query: Example,
    prompt: Prompt,
    texts: Sequence[str],
    weights: Sequence[float],
    read: Sequence[tuple[str | None, str | None]],
) -> Prediction:
    """The answer that most of the samples give; of several the first in label order (for answers in words, the first written).

    texts: what was written. weights: of each in the vote; empty: all the same. read: per text its answer, or why it has none. Samples
    without an answer have no vote; if none has one the query is unscored. `probabilities` are the shares of the vote, None for a single text.
    """
    candidates = () if bound.kind == "answer" else tuple(words_of(bound, query))
    text = texts[0] if len(texts) == 1 else canonical_json(list(texts))
    base = replace(unscored(query, "", prompt, text), candidates=candidates)
    found = vote([answer for answer, _ in read], weights, candidates)
    if found is None:
        return replace(base, why=read[0][1] if read else "the model wrote nothing")
    shares = found.shares if len(texts) > 1 else None
    return replace(base, answer=found.answer, why=None, probabilities=shares, tie=found.tie)


def writing_of(method: FewShot, stop: Sequence[str], **changes: Any) -> Writing:
    """How this method asks for its answers."""
    how = Writing(
        method.max_new_tokens,
        tuple(stop),
        method.samples,
        method.greedy,
        method.temperature,
        method.seed,
        method.vote == "weighted",
        method.answer,
    )
    return replace(how, **changes)
