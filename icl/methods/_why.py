"""Why a few-shot prompt answers as it does: what becomes of the answer when a demonstration, or a word of the query, is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem
from ..prompt import Unfit
from ..values import Demonstration, Example, Prediction, Prompt
from ._attention import Attention, attention_of
from ._common import queries_of
from ._left_out import Found, all_found, check_scores, found_for, label_found, texts_found, with_query, without_each
from ._query_words import Place, places_in, text_of, without

if TYPE_CHECKING:
    from ._predictor import FewShotPredictor

MOST_WORDS = 64
"""Of a query that are left out one by one; more are taken as so many runs of words."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What leaving something out does to the answer that is explained."""

    log_probability: float
    """Of that answer without it, in nats."""
    effect: float
    """Log-probability with it less that without it: above 0 it speaks for the answer, below 0 against it."""
    answer: str | None
    """What is answered without it; None where answers are written, which is not done again."""
    changed: bool
    """Whether that is another answer than with everything in place."""


@dataclass(frozen=True, slots=True)
class DemonstrationEffect:
    """A demonstration of the prompt and what it does."""

    demonstration: Demonstration
    similarity: float
    """Cosine to the query, by the method's encoder."""
    left_out: Effect


@dataclass(frozen=True, slots=True)
class WordEffect:
    """A word of the query (several, where it has very many) and what it does."""

    place: Place
    text: str
    left_out: Effect


@dataclass(frozen=True, eq=False)
class Why:
    """What an answer rests on."""

    query: Example
    """As far as the prompt holds it: an input that was cut to fit is what is left of it."""
    prediction: Prediction
    """With everything in place; nothing is withheld."""
    prompt: Prompt
    answer: str
    """The answer that is explained: the prediction's, or the one asked about."""
    log_probability: float
    """Of that answer, in nats: among the candidates, after calibration; where answers are written, of its text behind the prompt."""
    demonstrations: tuple[DemonstrationEffect, ...]
    """In prompt order."""
    words: tuple[WordEffect, ...]
    """In the order of the query's fields."""
    n_prompts: int
    """Prompts that were scored, the one that is explained among them."""
    attention: Attention | None = None

    @property
    def most_harmful(self) -> tuple[DemonstrationEffect, ...]:
        """The demonstrations, the one that speaks most against the answer first; ties in prompt order."""
        return tuple(sorted(self.demonstrations, key=lambda each: each.left_out.effect))

    def _repr_html_(self) -> str:
        from html import escape

        rows = [(each.demonstration.example.target, each.similarity, each.left_out.effect) for each in self.demonstrations]
        cells = "".join(f"<tr><td>{escape(str(label))}</td><td>{near:.3f}</td><td>{effect:+.3f}</td></tr>" for label, near, effect in rows)
        return f"<table><caption>{escape(self.answer)}</caption><tr><th>label</th><th>similarity</th><th>effect</th></tr>{cells}</table>"


@dataclass(frozen=True, slots=True)
class RowEffects:
    """What each demonstration of a row's prompt does to the row's own answer."""

    row: Example
    answer: str | None
    """What is answered with everything in place; None where answers are written, which is not done here."""
    demonstrations: tuple[tuple[Demonstration, Effect], ...]


def why(
    predictor: FewShotPredictor,
    query: Any,
    *,
    answer: str | None = None,
    words: bool = True,
    most_words: int = MOST_WORDS,
    attention: bool = False,
) -> Why:
    """What the answer to a query rests on, by leaving out each demonstration, and each word of the query, in turn.

    Each is left out of the prompt with all others in their order, nothing put in its place, and the answer is scored again: the effect
    is the change of its log-probability (erasure, Li et al. 2016, https://arxiv.org/abs/1612.08220, sec. 3; we give the difference, they
    divide it by the log-probability). The model scores all these prompts in one call, which computes beginnings they share once. Effects of
    several parts do not add up: two demonstrations that say the same have none each.

    answer: the answer to explain; default: the predicted one. words: also the query's words (runs of letters and digits, other signs
    each by itself; in scripts without spaces each character). A query of more than `most_words` is taken in as many runs of words.
    attention: also where the answering position looks.

    Raises InputError for a query that cannot be answered, an answer that is no candidate, a model without log-probabilities, a
    transductive calibration, and with `attention` for a model that gives no weights and for several windows.
    """
    (example,) = queries_of([query], predictor.inputs)
    check_scores(predictor)
    if most_words < 1:
        raise InputError(Problem(f"most_words is {most_words}", "Give at least 1.", field="most_words"))
    made = predictor._pack([example])[0]
    if isinstance(made, Unfit):
        raise InputError(Problem(made.why, "Raise max_tokens, or take a shorter query.", field="query"))
    looked = attention_of(predictor, made) if attention else None
    shown = made.query or example
    places = places_in(shown, predictor.inputs, most_words) if words else []
    less = [without(shown, place) for place in places]
    queries = [shown] * (1 + len(made.demonstrations)) + less
    prompts = [made, *without_each(predictor, made), *(with_query(predictor, made, each) for each in less)]
    prediction, explained, found = _explained(predictor, queries, prompts, answer)
    effects = [_effect(found[0], each) for each in found[1:]]
    n_shown = len(made.demonstrations)
    return Why(
        query=shown,
        prediction=prediction,
        prompt=made,
        answer=explained,
        log_probability=found[0].log_probability,
        demonstrations=tuple(map(DemonstrationEffect, made.demonstrations, _similarities(predictor, example, made), effects[:n_shown])),
        words=tuple(
            WordEffect(place, text_of(shown, place)[place.start : place.end], effect)
            for place, effect in zip(places, effects[n_shown:], strict=True)
        ),
        n_prompts=len(prompts),
        attention=looked,
    )


def effects_on(predictor: FewShotPredictor, rows: Sequence[Example]) -> list[RowEffects | str]:
    """For each row what the demonstrations of its prompt do to its own answer, all in one call of the model; a str says why there is
    nothing to say. A task row's own copy is not among its demonstrations. Raises InputError as `why`, and for rows without an answer."""
    check_scores(predictor)
    targets = [str(row.target) for row in rows if row.target is not None]
    if len(targets) < len(rows):
        raise InputError(Problem(f"{len(rows) - len(targets)} rows have no answer", "Give labelled rows.", field="rows"))
    packed = predictor._pack(rows)
    groups = [[] if isinstance(made, Unfit) else [made, *without_each(predictor, made)] for made in packed]
    work = [(row, prompt) for row, group in zip(rows, groups, strict=True) for prompt in group]
    found = iter(found_for(predictor, work, [str(row.target) for row, _ in work]))
    return [_row_effects(row, made, [next(found) for _ in group]) for row, made, group in zip(rows, packed, groups, strict=True)]


def _row_effects(row: Example, made: Prompt | Unfit, found: Sequence[Found | str]) -> RowEffects | str:
    failed = made.why if isinstance(made, Unfit) else next((each for each in found if isinstance(each, str)), None)
    if failed is not None or isinstance(made, Unfit):
        return failed or ""
    whole, *rest = all_found(found)
    return RowEffects(row, whole.answer, tuple(zip(made.demonstrations, (_effect(whole, each) for each in rest), strict=True)))


def _effect(whole: Found, without: Found) -> Effect:
    changed = without.answer is not None and without.answer != whole.answer
    return Effect(without.log_probability, whole.log_probability - without.log_probability, without.answer, changed)


def _explained(
    predictor: FewShotPredictor, queries: Sequence[Example], prompts: Sequence[Prompt], answer: str | None
) -> tuple[Prediction, str, list[Found]]:
    """(the prediction, the answer that is explained, what each prompt gives for it). The first prompt is the whole one."""
    writes = predictor.kind == "answer"
    predictions = predictor.answers(queries[:1], prompts[:1]) if writes else predictor.answers(queries, prompts)
    first = predictions[0]
    if first.answer is None:
        raise InputError(Problem(f"there is no answer to explain: {first.why}", "Take another query.", field="query"))
    explained = answer if answer is not None else first.answer
    if writes:
        text = str(first.text) if answer is None else predictor.bound.continuation(queries[0], answer, prompts[0].format)
        return first, explained, all_found(texts_found(predictor, prompts, [text] * len(prompts)))
    if explained not in first.candidates:
        known = ", ".join(first.candidates[:20])
        raise InputError(Problem(f"'{explained}' is no candidate here", f"They are {known}.", field="answer"))
    return first, explained, all_found([label_found(each, explained) for each in predictions])


def _similarities(predictor: FewShotPredictor, query: Example, prompt: Prompt) -> list[float]:
    """The cosine of each demonstration to the query."""
    from ..retrieve import load_encoder
    from ..values import embedded_text

    if not prompt.demonstrations:
        return []
    live = predictor._live_index
    encoder = live.encoder if live is not None else load_encoder(predictor.method.encoder)
    vectors = encoder.encode([embedded_text(query.fields), *(embedded_text(d.example.fields) for d in prompt.demonstrations)])
    return [float(value) for value in vectors[1:] @ vectors[0]]
