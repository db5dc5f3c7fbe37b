"""A template and a task, checked against each other: from here on examples become text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InputError, Problem, suggest
from ..values import Example, Kind, Message, canonical_json
from .frontmatter import word_problems
from .slots import emptied
from .template import RESERVED, VARIABLES, Template, split_label

CACHED = 50_000
"""Demonstrations whose text is kept."""


@dataclass(frozen=True, eq=False)
class BoundTemplate:
    """A template for one task. Rendering is a pure function of the example; demonstrations are rendered once."""

    template: Template
    kind: Kind
    labels: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]
    """Label -> its words, in label order; empty unless the kind is classify."""
    _parts: dict[str, tuple[Example, tuple[str, str]]] = field(default_factory=dict, repr=False)
    _fixed: dict[str, Any] = field(default_factory=dict, repr=False)
    _counts: list[tuple[Any, dict[str, int]]] = field(default_factory=list, repr=False)

    def counts(self, codec: Any) -> dict[str, int]:
        """Room for the packer's token counts of texts by one codec."""
        for known, counts in self._counts:
            if known is codec:
                return counts
        self._counts.append((codec, {}))
        return self._counts[-1][1]

    def query(self, example: Example) -> str:
        """The example block: what a query ends with and what a demonstration begins with. In a channel a demonstration ends with it, and
        a query is scored by it."""
        return self._render("example", example)

    def demonstration(self, example: Example) -> str:
        """A solved example as text: example, rationale (if it has one), answer; in a channel answer, example. Raises InputError if it has
        no target."""
        return "".join(self._solved(example))

    def instruction(self, query: Example) -> str:
        """The instruction block; it may use the query's fields. Empty if there is none."""
        if "instruction" not in self.template.blocks:
            return ""
        if self.instruction_varies(query):
            return self._render("instruction", query)
        if "instruction" not in self._fixed:
            self._fixed["instruction"] = self._render("instruction", query)
        return str(self._fixed["instruction"])

    def plain(self, demonstrations: Sequence[Example], query: Example, ending: str | None = None) -> str:
        """The prompt as text: instruction, demonstrations and query, joined by the separator; an empty one takes its separator with it.

        ending: in a channel, which of the `continuations` it ends with; default: the first.
        """
        parts = [self.instruction(query), *(self.demonstration(d) for d in demonstrations), self._closing(query, ending)]
        return self.template.separator.join(part for part in parts if part)

    def instruction_varies(self, query: Example) -> bool:
        """Whether there is an instruction that has to do with the query."""
        block = self.template.blocks.get("instruction")
        return block is not None and bool(block.names & (query.fields.keys() | {"fields", "choices", "letters"}))

    def _closing(self, query: Example, ending: str | None) -> str:
        if not self.template.channel:
            return self.query(query)
        return ending if ending is not None else next((text for _, texts in self.continuations(query) for text in texts), "")

    def messages(self, demonstrations: Sequence[Example], query: Example, ending: str | None = None) -> tuple[Message, ...]:
        """The prompt as chat: instruction = system turn, a demonstration = a user and an assistant turn, the query = the last user turn.

        ending: as for `plain`.
        """
        messages: list[Message] = []
        if instruction := self.instruction(query):
            messages.append({"role": "system", "content": instruction})
        for demonstration in demonstrations:
            question, answer = self._solved(demonstration)
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": answer.strip()})
        messages.append({"role": "user", "content": self._closing(query, ending)})
        return tuple(messages)

    def continuations(self, query: Example, format: str = "plain") -> tuple[tuple[str, tuple[str, ...]], ...]:
        """What is scored after the query's prompt: (label, one continuation for each of its words), or (choice text, its continuation).
        In a channel, what the query's prompts end with: what is scored behind each of them is `scored`.

        format: in `chat` the answer opens the assistant's turn, so it is stripped there, as in the demonstrations. With `end: true` a
        plain continuation is followed by the beginning of the separator: all of its leading white space, or else all up to the first
        white space, since tokenizers make one token of a run of line ends. Empty for kind answer.
        """
        if self.kind == "answer":
            return ()
        if self.kind == "choose":
            answers = self._answers(query)
            return tuple((choice, (self.continuation(query, a, format),)) for choice, a in zip(query.choices, answers, strict=True))
        varies = self.answers_vary(query)
        if not varies and (known := self._fixed.get(format)) is not None:
            return known  # type: ignore[no-any-return]
        found = tuple((label, tuple(self.continuation(query, w, format) for w in self.words[label])) for label in self.labels)
        if not varies:
            self._fixed[format] = found
        return found

    def answers_vary(self, query: Example) -> bool:
        """Whether the continuations have to do with the query."""
        return self.kind == "choose" or bool(self.template.blocks["answer"].names & (query.fields.keys() | {"fields"}))

    def scored(self, query: Example, format: str = "plain") -> str:
        """In a channel, what is scored behind each of the query's prompts: its example block, ended as a continuation is."""
        return self._ended(self.query(query), format)

    def premise(self, query: Example) -> str:
        """The domain premise (Holtzman et al. 2021): the template's own `premise`, else what its example block ends with, whatever the
        inputs: what stands behind the last of them, from its first letter or digit on (a quotation mark or a full stop belongs to the input;
        without a letter, all but the white space in front). Neither instruction nor demonstrations are in it, as in the paper. Raises
        InputError if there is nothing.
        """
        if self.template.premise is not None:
            return self.template.premise
        key = canonical_json(["premise", [[name, type(value).__name__] for name, value in query.fields.items()], len(query.choices)])
        if key not in self._fixed:
            one, other = (self.query(_filled(query, at)) for at in (0, 1))
            n = next((n for n, (a, b) in enumerate(zip(reversed(one), reversed(other), strict=False)) if a != b), min(len(one), len(other)))
            behind = one[len(one) - n :].lstrip()
            self._fixed[key] = re.sub(r"^[\W_]+(?=[^\W_])", "", behind)
        if not self._fixed[key]:
            message = "the template writes nothing between the last input and the answer, so that there is no domain premise"
            fix = "Add the key 'premise: …' to it, or use the read-out pmi."
            raise InputError(Problem(message, fix, self.template.file, self.template.blocks["example"].line, "block example"))
        return str(self._fixed[key])

    def continuation(self, query: Example, answer: str, format: str = "plain") -> str:
        """An answer's text as it is scored behind the query's prompt; see `continuations`."""
        text = self._render("answer", query, answer=self._with_slots(query, answer))
        return text if self.template.channel else self._ended(text, format)

    def solution(self, example: Example, answer: str, format: str = "plain") -> str:
        """The same behind the example's rationale, if it has one and the template a block for it, as demonstrations show it."""
        return self._ended(self._rationale(example) + self._render("answer", example, answer=self._with_slots(example, answer)), format)

    def _with_slots(self, example: Example, answer: str) -> str:
        return emptied(answer, example.fields, self.template.slots) if self.template.slots else answer

    def _rationale(self, example: Example) -> str:
        if not self.template.has_rationale or example.rationale is None:
            return ""
        return self._render("rationale", example, rationale=example.rationale)

    def _ended(self, text: str, format: str) -> str:
        if format == "chat":
            return text.strip()
        if self.template.end and (beginning := re.match(r"\s+|\S+", self.template.separator)):
            return text + beginning.group()
        return text

    def _solved(self, example: Example) -> tuple[str, str]:
        """(example block, rationale and answer) of a demonstration; in a channel (answer, example block)."""
        known = self._parts.get(example.uid)
        # A uid does not cover the target, and users may reuse one: the example itself is compared.
        if known is not None and (known[0] is example or known[0] == example):
            return known[1]
        answer = self._with_slots(example, self._answer(example))
        parts = self.query(example), self._rationale(example) + self._render("answer", example, answer=answer)
        if self.template.channel:
            parts = parts[::-1]
        if len(self._parts) >= CACHED:
            self._parts.clear()
        self._parts[example.uid] = example, parts
        return parts

    def _answer(self, example: Example) -> str:
        """What stands for the target of a solved example: the label's first word, the letter or text of the right choice, the target."""
        if example.target is None:
            raise InputError(
                Problem(f"the example {example.uid} has no answer, so it cannot be a demonstration", "Leave it out of the pool.")
            )
        if self.kind == "classify":
            if example.target not in self.words:
                fix = suggest(example.target, self.labels)
                raise InputError(Problem(f"the example {example.uid} has the label '{example.target}', which the task lacks", fix))
            return self.words[example.target][0]
        if self.kind == "choose":
            if example.target not in example.choices:
                message = f"the answer '{example.target}' of the example {example.uid} is none of its choices"
                raise InputError(Problem(message, "Its target must be the text of one of them."))
            return self._answers(example)[example.choices.index(example.target)]
        return example.target

    def _answers(self, example: Example) -> Sequence[str]:
        return letters(len(example.choices)) if self.template.choices == "letter" else example.choices

    def _render(self, name: str, example: Example, **more: str) -> str:
        values: dict[str, Any] = {key: plain_value(value, key) for key, value in example.fields.items()}
        given = sum(len(v) if isinstance(v, str) else 20 if isinstance(v, int | float) else _turns_size(v) for v in values.values())
        values["fields"] = dict(values)
        if self.kind == "classify":
            values["labels"] = [words[0] for words in self.words.values()]
        elif self.kind == "choose":
            values["choices"] = [str(c) for c in example.choices]
            values["letters"] = letters(len(example.choices))
            given += sum(map(len, values["choices"]))
        values.update(more)
        return self.template.blocks[name].render(values, given + sum(map(len, more.values())))


def _filled(query: Example, which: int) -> Example:
    """The query with other inputs in it: texts of a letter that no one uses, and small numbers, in two versions."""
    text = ("\ue000", "\ue001\ue001")[which]

    def filled(value: Any) -> Any:
        if isinstance(value, bool):
            return bool(which)
        if isinstance(value, int | float):
            return type(value)((1.5, 22.25)[which])
        return text if isinstance(value, str) else [dict.fromkeys(turn, text) for turn in value[:1]]

    return replace(query, fields={name: filled(v) for name, v in query.fields.items()}, choices=(text,) * len(query.choices))


def _turns_size(turns: Iterable[Mapping[str, str]]) -> int:
    return sum(len(text) for turn in turns for text in turn.values())


def letters(n: int) -> list[str]:
    """The first n of A, B, …, Z, AA, AB, …"""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [alphabet[i] if i < 26 else alphabet[i // 26 - 1] + alphabet[i % 26] for i in range(n)]


def plain_value(value: Any, name: str) -> Any:
    """A field as a template may see it: a new string, number, or list of dicts of strings. Raises InputError for anything else."""
    if type(value) in (str, int, float, bool):
        return value
    for plain in (str, bool, int, float):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, list | tuple) and all(isinstance(turn, Mapping) for turn in value):
        return [{str(key): str(text) for key, text in turn.items()} for turn in value]
    fix = "A field is a string, a number, or a list of turns {role, text}."
    raise InputError(Problem(f"the field '{name}' is a {type(value).__name__}, which no template can show", fix, field=name))


def bind(
    template: Template,
    *,
    kind: Kind,
    inputs: Sequence[str],
    labels: Sequence[str] = (),
    words: Mapping[str, Sequence[str] | str] | None = None,
    channel: bool | None = None,
) -> BoundTemplate:
    """Check a template against a task. Raises InputError with every problem.

    words: label -> words, instead of the template's. channel: whether the example is to be scored behind the answer; None: whatever the
    template is for.
    """
    if template.generic:
        template = Template.default(inputs, kind, channel=bool(channel))
    problems = [*_kind_problems(template, kind, channel), *_field_problems(template, kind, inputs)]
    bound_words: dict[str, tuple[str, ...]] = {}
    if kind == "classify":
        own = words if words is not None else template.words
        given = None if own is None else {label: (its,) if isinstance(its, str) else tuple(its) for label, its in own.items()}
        problems += _word_problems(template, labels, given, from_task=words is not None)
        bound_words = given or (_split_words(labels) if template.split_labels else {label: (label,) for label in labels})
    elif words is not None:
        problems.append(Problem(f"'labels' are for kind classify, the task is {kind}", "Remove 'labels' from the task.", template.file))
    if problems:
        raise InputError(problems)
    return BoundTemplate(template, kind, tuple(labels), {label: bound_words[label] for label in labels} if kind == "classify" else {})


def _kind_problems(template: Template, kind: Kind, channel: bool | None) -> list[Problem]:
    found = []
    if template.kind != kind:
        fix = f"Use a template of kind {kind}, or 'default'." + (
            "" if "kind" in template.lines else " A template without 'kind' is classify."
        )
        message = f"the template is for kind {template.kind}, the task is {kind}"
        found.append(Problem(message, fix, template.file, template.lines.get("kind"), "kind"))
    return [*found, *channel_problems(template, channel)]


def channel_problems(template: Template, channel: bool | None) -> list[Problem]:
    """What is wrong with a template for a read-out that is a channel, or for one that is none; None: nothing, whatever it is."""
    if template.generic or channel is None or template.channel is channel:
        return []
    if channel:
        message = "the read-out channel needs a template that begins with the answer, and this one ends with it"
        fix = "Use 'default', or one with 'channel: true' and the answer first: {% block answer %}Label: {{ answer }}{% endblock %}."
        return [Problem(message, fix, template.file, None, "channel")]
    fix = "Set readout: channel for the methods that use it."
    return [Problem("a template with 'channel: true' has no other read-out", fix, template.file, template.lines.get("channel"), "channel")]


def _field_problems(template: Template, kind: Kind, inputs: Sequence[str]) -> list[Problem]:
    known = {*inputs, *VARIABLES[kind], "fields"}
    found = []
    for name in sorted(set(inputs) & RESERVED):
        if any(name in block.names for block in template.blocks.values() if block.name != name):
            message = f"the input field '{name}' has the name of a variable of templates"
            found.append(Problem(message, f"Rename it: input: {{other_name: {name}}}.", template.file, field=name))
    seen: set[str] = set()
    for block in template.blocks.values():
        extra = {"answer"} if block.name == "answer" else {"rationale"} if block.name == "rationale" else set()
        for name in sorted(block.names - known - block.optional - extra - seen):
            seen.add(name)
            message = f"the template uses '{name}', which the task does not have; its input fields are {_listed(inputs)}"
            fix = suggest(name, known)
            if name in RESERVED:
                message, fix = f"'{name}' is not there in the {block.name} block of a task of kind {kind}", "Remove it."
            found.append(Problem(message, fix, template.file, block.lines.get(name), name))
    for name in template.inputs:
        if name not in inputs and name not in seen and template.declared:
            message = f"the template needs the input field '{name}'; the task has {_listed(inputs)}"
            if not any(name in block.optional for block in template.blocks.values()):
                found.append(Problem(message, suggest(name, inputs), template.file, template.lines.get("input"), "input"))
    return found


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


def _word_problems(
    template: Template, labels: Sequence[str], words: Mapping[str, tuple[str, ...]] | None, *, from_task: bool
) -> list[Problem]:
    if words is None:
        return []
    file, line = (None, None) if from_task else (template.file, template.lines.get("labels"))
    where = "under 'labels' of the task in the suite"
    found = []
    for label in labels:
        if label not in words:
            fix = f"Add '{label}: …' {where}." if from_task else f"Add '{label}: …' here, or {where}."
            found.append(Problem(f"no words for '{label}'; the task's labels are {_listed(labels)}", fix, file, line, "labels"))
    for label in words:
        if label not in labels:
            fix = suggest(label, labels) + ("" if from_task else f" Or give other words {where}.")
            found.append(Problem(f"words for '{label}', which is no label of the task", fix, file, line, "labels"))
    return found + [Problem(message, fix, file, line, f"labels.{label}") for label, message, fix in word_problems(words)]


def _split_words(labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Labels as words for `default`; where two would become the same, both stay as they are."""
    split = [split_label(label) for label in labels]
    taken = [*split, *labels]
    return {label: (text if text == label or taken.count(text) == 1 else label,) for label, text in zip(labels, split, strict=True)}
