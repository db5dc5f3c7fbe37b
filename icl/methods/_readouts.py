"""What the model is asked for a read-out: the answers behind the prompt, or in a channel the query's text behind each answer; and, where a
read-out subtracts them, the answers behind a premise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from ..errors import InputError, Problem
from ..protocols import LanguageModel
from ..readout import LENGTHS, PREMISES
from ..values import Example, LabelScores, Prompt, TokenCounts
from ._labels import Candidates
from ._rationale import rationale_of
from ._windows import spread
from ._written import Lost, estimator_of, score, write

if TYPE_CHECKING:
    from ..prompt import BoundTemplate
    from ._layout import Layout
    from ._predictor import FewShotPredictor
    from .few_shot import FewShot

Item: TypeAlias = tuple[Example, Prompt, Candidates]
"""(query, its prompt, what is scored behind it)"""


@dataclass(frozen=True, slots=True)
class Premise:
    """A context that says nothing of the query, and the answers that are scored behind it."""

    field: str
    """Of `LabelScores`, where the sums go."""
    text: str
    format: str
    continuations: tuple[str, ...]

    @property
    def prompt(self) -> Prompt:
        """Nothing at all, or the domain premise; in chat that is the user's turn."""
        chat = self.format == "chat" and bool(self.text)
        messages = ({"role": "user", "content": self.text},)
        return Prompt(self.text, messages, tail=self.text, format="chat" if chat else "plain")


@dataclass
class Premises:
    """Of a predictor. Premises that are the same for all queries are scored once, each in a call of its own, so that no digit of them
    depends on what else is asked; those of a query's own choices, or of answers that show its fields, with the queries, in one call."""

    known: dict[Premise, tuple[float, ...]] = field(default_factory=dict)
    planned: set[Premise] = field(default_factory=set)


def check_readouts(method: FewShot, bound: BoundTemplate, layout: Layout, pool: Sequence[Example]) -> None:
    """Raises InputError for read-outs that cannot be had with this template and these settings."""
    problems = []
    beyond = [readout for readout in method.readouts if readout not in LENGTHS]
    if bound.kind == "answer" and beyond:
        message = f"the read-out '{beyond[0]}' is of labels and choices, and here answers are words that the model writes"
        problems.append(Problem(message, "Leave it out.", field="readout"))
    alone = [readout for readout in beyond if readout in ("channel", "first_token")]
    if alone and not layout.is_plain:
        fix = "Leave windows and long_input: slide out, or use another read-out."
        problems.append(Problem(f"the read-out '{alone[0]}' is of one prompt, and here there are several", fix, field="readout"))
    if problems:
        raise InputError(problems)
    if "pmi_domain" in method.readouts and len(pool):
        bound.premise(pool[0])


def stored_readouts(predictor: FewShotPredictor, lm: LanguageModel) -> tuple[str, ...]:
    """The read-outs that the scores of this predictor's items allow, its own first; none where answers are read out of text."""
    readouts = predictor.method.readouts
    if predictor._writes(lm):
        return ()
    if readouts[0] == "channel" or predictor._shows_rationales or estimator_of(lm) == "first_token":
        return readouts[:1]
    first = ("first_token",) if predictor._layout.is_plain else ()
    return tuple(dict.fromkeys((readouts[0], *LENGTHS, *first, *(readout for readout in PREMISES if readout in readouts))))


def raw_scores(
    predictor: FewShotPredictor, lm: LanguageModel, work: Sequence[tuple[Example, Prompt]]
) -> list[tuple[Candidates, LabelScores] | Lost]:
    """Per query what was scored and its scores. Where rationales are shown, the query's own is written first."""
    rationales: list[str | Lost] = [""] * len(work)
    if work and predictor._shows_rationales:
        written = write(lm, [prompt for _, prompt in work], predictor._writing(work[0][1], samples=1, greedy=True))
        rationales = [
            texts if isinstance(texts, Lost) else rationale_of(predictor.bound, query, texts[0])
            for (query, _), texts in zip(work, written, strict=True)
        ]
    candidates = [
        r if isinstance(r, Lost) else predictor._candidates(query, prompt, r) for (query, prompt), r in zip(work, rationales, strict=True)
    ]
    whole = [(query, prompt, c) for (query, prompt), c in zip(work, candidates, strict=True) if not isinstance(c, Lost)]
    found = iter(scored_items(predictor, lm, whole))
    return [c if isinstance(c, Lost) else each if isinstance(each := next(found), Lost) else (c, each) for c in candidates]


def scored_items(predictor: FewShotPredictor, lm: LanguageModel, items: Sequence[Item]) -> list[LabelScores | Lost]:
    """The raw scores of each item, with what its read-outs need beside the sums."""
    if not items:
        return []
    if predictor.bound.template.channel:
        return _channel(predictor.bound, lm, items)
    before = [_premise_scores(predictor, lm, readout, items) for readout in predictor.method.readouts if readout in PREMISES]
    failed = [next((each for each in found if isinstance(each, Lost)), None) for found in zip(*before, strict=True)] or [None] * len(items)
    asked = [item for item, lost in zip(items, failed, strict=True) if lost is None]
    found = iter(score(lm, [prompt for _, prompt, _ in asked], [c.continuations for _, _, c in asked]))
    result = [lost if lost is not None else next(found) for lost in failed]
    for sums in before:
        result = [_with(scores, values) for scores, values in zip(result, sums, strict=True)]
    return result


def planned_items(predictor: FewShotPredictor, lm: LanguageModel, items: Sequence[Item]) -> TokenCounts:
    """Tokens that `scored_items` computes from a cold start. Premises that are the same for all queries are counted once."""
    if not items:
        return TokenCounts(0, 0)
    if predictor.bound.template.channel:
        return lm.plan(*_channel_work(predictor.bound, items))
    counts = lm.plan(*spread([prompt for _, prompt, _ in items], [c.continuations for _, _, c in items]))
    for readout in predictor.method.readouts:
        if readout in PREMISES:
            for part in _parts(predictor, readout, items, predictor.premises.planned):
                counts += lm.plan([each.prompt for each in part], [each.continuations for each in part])
                predictor.premises.planned.update(each for each in part if not _varies(predictor, items))
    return counts


# ── premises ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _premises(predictor: FewShotPredictor, readout: str, items: Sequence[Item]) -> list[Premise]:
    texts = [predictor.bound.premise(query) if readout == "pmi_domain" else "" for query, _, _ in items]
    return [Premise(PREMISES[readout], text, p.format, c.continuations) for text, (_, p, c) in zip(texts, items, strict=True)]


def _varies(predictor: FewShotPredictor, items: Sequence[Item]) -> bool:
    return any(predictor.bound.answers_vary(query) for query, _, _ in items)


def _parts(predictor: FewShotPredictor, readout: str, items: Sequence[Item], done: set[Premise]) -> list[list[Premise]]:
    """The premises that are asked for these items, as they are asked: one by one, or those of the queries' own answers at once."""
    wanted = list(dict.fromkeys(_premises(predictor, readout, items)))
    return [wanted] if _varies(predictor, items) else [[each] for each in wanted if each not in done]


def _premise_scores(
    predictor: FewShotPredictor, lm: LanguageModel, readout: str, items: Sequence[Item]
) -> list[tuple[str, tuple[float, ...]] | Lost]:
    """Per item the field and its sums behind the premise."""
    known = predictor.premises.known
    found: dict[Premise, tuple[float, ...] | Lost] = {}
    for part in _parts(predictor, readout, items, set(known)):
        scores = score(lm, [each.prompt for each in part], [each.continuations for each in part])
        found |= {each: s if isinstance(s, Lost) else s.sums for each, s in zip(part, scores, strict=True)}
    if not _varies(predictor, items):
        known.update({each: sums for each, sums in found.items() if not isinstance(sums, Lost)})
    values = [found.get(each, known.get(each, ())) for each in _premises(predictor, readout, items)]
    return [each if isinstance(each, Lost) else (PREMISES[readout], each) for each in values]


def _with(scores: LabelScores | Lost, values: tuple[str, tuple[float, ...]] | Lost) -> LabelScores | Lost:
    if isinstance(scores, Lost) or isinstance(values, Lost):
        return scores
    name, sums = values
    return replace(scores, premise=sums) if name == "premise" else replace(scores, domain_premise=sums)


# ── channel ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _channel_work(bound: BoundTemplate, items: Sequence[Item]) -> tuple[list[Prompt], list[tuple[str, ...]]]:
    """One prompt for each answer, with the same demonstrations, and behind it the query's text."""
    contexts: list[Prompt] = []
    texts: list[tuple[str, ...]] = []
    for query, prompt, candidates in items:
        shown = [d.example for d in prompt.demonstrations]
        asked = prompt.query or query  # a long input may have been shortened
        for ending in candidates.continuations:
            text = bound.plain(shown, asked, ending)
            contexts.append(Prompt(text, bound.messages(shown, asked, ending), tail=text, format=prompt.format))
            texts.append((bound.scored(asked, prompt.format),))
    return contexts, texts


def _channel(bound: BoundTemplate, lm: LanguageModel, items: Sequence[Item]) -> list[LabelScores | Lost]:
    """P(query | answer), Min et al. 2022, https://arxiv.org/abs/2108.04106, in its concatenated form. The prior of the answers is equal."""
    found = iter(score(lm, *_channel_work(bound, items)))
    result: list[LabelScores | Lost] = []
    for _, _, candidates in items:
        each = [next(found) for _ in candidates.continuations]
        lost = next((one for one in each if isinstance(one, Lost)), None)
        result.append(lost if lost is not None else _joined(candidates, [one for one in each if isinstance(one, LabelScores)]))
    return result


def _joined(candidates: Candidates, each: Sequence[LabelScores]) -> LabelScores:
    """The scores of one text behind several answers. `start` is that of the first; each prompt has its own."""
    return LabelScores(
        candidates=candidates.continuations,
        sums=tuple(one.sums[0] for one in each),
        n_tokens=tuple(one.n_tokens[0] for one in each),
        n_bytes=tuple(one.n_bytes[0] for one in each),
        n_chars=tuple(one.n_chars[0] for one in each),
        start=each[0].start,
        straddle=any(one.straddle for one in each),
        conditioned="answer",
    )
