"""A prompt that is used without icl: demonstrations fixed, the place of each input marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..errors import InputError, Problem
from ..progress import note
from ..values import Example, Hit, Message, Prompt
from ._common import queries_of
from ._model import ModelHandle
from ._predictor import FewShotPredictor
from ._rationale import opening

LOOKED_AT = 200
"""Rows of the pool that are asked for their demonstrations, where none is named to choose by."""


@dataclass(frozen=True, slots=True)
class FixedPrompt:
    """What another program sends to a model, after it has put a row's fields in their places."""

    text: str
    """Plain text, up to the answer."""
    messages: tuple[Message, ...]
    """The same as chat messages."""
    places: Mapping[str, str]
    """Input field -> the text that stands where its value belongs."""
    answers: Mapping[str, str]
    """Label -> the word that a model is shown for it; empty for answers in words."""
    stop: tuple[str, ...]
    """Where an answer in plain text ends."""
    demonstrations: tuple[str, ...]
    """uids, in prompt order."""
    slots: Mapping[str, str] = field(default_factory=dict)
    """Input field -> the text that a model writes in an answer where the field's value belongs; empty without slots."""
    opening: str = ""
    """Where the model writes a rationale first: the answer is what stands behind the last of these; all of the text where there is none.
    Empty where no rationale is written."""
    extract: str | None = None
    """How the answer is read out of that, cut at the first `stop`: an extractor's name, `json:FIELD`, or a regular expression with one
    group, whose first match counts; None: it is all of it."""
    schema: Mapping[str, Any] | None = None
    """The JSON schema that the answer is held to while it is written; None: it is free text, or a label."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def fixed_prompt(predictor: Any, query: Any = None) -> FixedPrompt:
    """The prompt of a fitted few-shot or zero-shot predictor with its demonstrations fixed.

    query: the demonstrations are those for it. Without one they are those that rows of the pool get most often, label by label in turn;
    where every query gets the same ones, those. Needs no language model. Raises InputError: another kind of predictor, several windows,
    choices that differ from row to row, or a template that shows less of a field than its whole text.
    """
    if not isinstance(predictor, FewShotPredictor):
        raise InputError(Problem(f"'{predictor.name}' answers without a prompt", "Name a few_shot or zero_shot method.", field="method"))
    if predictor.kind == "choose":
        raise InputError(Problem("the choices differ from row to row, so no one prompt holds them", "Use icl.load.", field="kind"))
    if not predictor._layout.is_plain:
        raise InputError(Problem("it reads its demonstrations or inputs in several windows", "Fit it with windows=None.", field="windows"))
    shown = _chosen(predictor, query)
    places = _places(predictor.inputs, shown)
    marked = Example("query-fixed", places, None)
    fitting = _packed(predictor, queries_of([query], predictor.inputs)[0] if query is not None else marked, shown)
    kept = [demonstration.example for demonstration in fitting.demonstrations]
    plain = FewShotPredictor(
        replace(predictor.method, lm=None, tokenizer=None, format="plain", max_tokens=None, calibration=None, abstain=None),
        predictor.bound,
        predictor.pool,
        ModelHandle(),
    )
    made = _packed(plain, marked, kept)
    slots = {name: f"{{{name}}}" for name in predictor.bound.template.slots if name in places}
    hidden = [name for name, place in places.items() if place not in made.text]
    if missing := [name for name in hidden if name not in slots]:  # a slot need not be shown
        fix = "Use a template that shows the whole text of each input."
        raise InputError([Problem("the template does not show this field as it is", fix, field=name) for name in missing])
    in_parts = {name for row in kept for name, value in row.fields.items() if isinstance(value, list | tuple | Mapping)} - set(hidden)
    for name in sorted(in_parts):
        note(f"'{name}' is more than a text in some demonstrations; the prompt has the place of a text, which is put in as it is")
    answers = {label: words[0].strip() for label, words in predictor.bound.words.items()} if predictor.kind == "classify" else {}
    places = {name: place for name, place in places.items() if name not in hidden}
    uids = tuple(e.uid for e in kept)
    template = predictor.bound.template
    reading = (opening(predictor.bound, marked).strip() if predictor._may_reason else "", template.extract, predictor.method.answer)
    return FixedPrompt(made.text, made.messages, places, answers, template.stop, uids, slots, *reading)


def _packed(predictor: FewShotPredictor, query: Example, shown: Sequence[Example]) -> Prompt:
    made = predictor._pack_one(query, [Hit(e.uid, 0.0, e) for e in shown], [e.uid for e in shown])
    if not isinstance(made, Prompt):
        raise InputError(Problem(made.why, "Use fewer or shorter demonstrations.", field="shots"))
    return made


def _chosen(predictor: FewShotPredictor, query: Any) -> list[Example]:
    """In prompt order."""
    shots = min(predictor.method.shots, len(predictor.pool))
    if not shots:
        return []
    if query is not None:
        return [d.example for d in predictor.prompt(query).demonstrations]
    looked_at = [predictor.pool[n] for n in range(min(LOOKED_AT, len(predictor.pool)))]
    rows = [replace(row, uid=f"query-{n}") for n, row in enumerate(looked_at)]
    counts: Counter[str] = Counter()
    found: dict[str, Example] = {}
    hits = [each.hits for each in predictor._retrieving().trace(rows, shots)]
    for row, each in zip(rows, hits, strict=True):
        others = [hit for hit in each if hit.example.fields != row.fields]
        counts.update(hit.uid for hit in others)
        found |= {hit.uid: hit.example for hit in others}
    ranked = sorted(found, key=lambda uid: -counts[uid])
    if len({tuple(hit.uid for hit in each) for each in hits}) == 1:  # every query gets these
        return [hit.example for hit in hits[0]]
    groups: dict[str | None, list[Example]] = {}
    for uid in ranked:
        groups.setdefault(found[uid].target if predictor.kind == "classify" else None, []).append(found[uid])
    if predictor.kind == "classify":
        for row in looked_at:  # a label whose rows no other row is close to
            if row.target not in groups:
                groups[row.target] = [row]
    turns = [(n, rank, e) for rank, group in enumerate(groups.values()) for n, e in enumerate(group)]
    return [e for _, _, e in sorted(turns, key=lambda turn: turn[:2])][:shots]


def _places(fields: Sequence[str], shown: Sequence[Example]) -> dict[str, str]:
    """Field -> a mark that stands in no demonstration."""
    texts = "\n".join(str(value) for e in shown for value in (*e.fields.values(), e.target, e.rationale))
    places = {}
    for name in fields:
        n, place = 0, f"{{{{{name}}}}}"
        while place in texts:
            n += 1
            place = f"{{{{{name}_{n}}}}}"
        places[name] = place
    return places
