"""What is probably wrong with a template that loads: `icl validate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from ..errors import InputError, Problem, suggest
from ..protocols import PromptCodec
from ..values import Example
from .bind import BoundTemplate, bind
from .template import RESERVED, VARIABLES, Template

SAMPLE = "lorem"
"""Stands for every field and label when a template is tried out."""


def lint(path: str | Path, *, folders: Sequence[Path] = (), codec: PromptCodec | None = None, labels: Sequence[str] = ()) -> list[Problem]:
    """Every problem of a template: the errors that keep it from loading, else what would quietly spoil its prompts.

    codec: a tokenizer, to find labels that become the same tokens or where one begins another. labels: the task's, for a template
    whose labels stand for themselves.
    """
    try:
        template = Template.load(path, folders)
    except InputError as error:
        return list(error.problems)
    problems = [*_fields(template), *_letters(template)]
    if problems or template.generic:
        return problems
    try:
        return [*_borders(template), *(_tokens(template, codec, labels) if codec else ())]
    except InputError as error:
        return list(error.problems)


def _fields(template: Template) -> Iterator[Problem]:
    known = {*template.inputs, *VARIABLES[template.kind], "fields"}
    used: set[str] = set()
    for block in template.blocks.values():
        used |= block.names
        own = {"answer"} if block.name == "answer" else {"rationale"} if block.name == "rationale" else set()
        for name in sorted(block.names - known - own):
            if name in RESERVED:
                message, fix = f"'{name}' is not there in the {block.name} block of a template of kind {template.kind}", "Remove it."
            else:
                message, fix = f"'{name}' is not among the input fields", suggest(name, known)
            yield Problem(message, fix, template.file, block.lines.get(name), f"block {block.name}")
    if template.declared and "fields" not in used:
        for name in template.inputs:
            if name not in used and name not in template.slots:
                fix = "Use it in the example block, or take it out of 'input'."
                yield Problem(f"the input field '{name}' is never used", fix, template.file, template.lines.get("input"), "input")


def _letters(template: Template) -> Iterator[Problem]:
    shown = template.blocks["example"].names
    if template.choices == "letter" and not {"letters", "choices"} <= shown:
        message = "the answer is a letter, but the example block does not show the choices with their letters"
        fix = "Loop over choices there and write {{ letters[loop.index0] }}, or set 'choices: text'."
        yield Problem(message, fix, template.file, template.blocks["example"].line, "block example")


def _sample(template: Template, label: str) -> Example:
    fields: Mapping[str, str] = dict.fromkeys(template.inputs, SAMPLE)
    choices = (SAMPLE, f"{SAMPLE} 2") if template.kind == "choose" else ()
    return Example("sample", fields, choices[0] if choices else label, choices, rationale=SAMPLE)


def _borders(template: Template) -> Iterator[Problem]:
    """White space where the example ends and the answer begins, or, in a channel, the answer and then the example. A template that needs
    a conversation in a field is left alone."""
    words = template.words or {SAMPLE: (SAMPLE,)}
    bound = _bound(template, tuple(words))
    label = next(iter(words))
    sample = _sample(template, label)
    names, shown = ("example", "answer"), "{{ answer }}"
    try:
        before = bound.query(sample)
        if template.channel:
            names, shown, before = ("answer", "example"), "…", bound.demonstration(sample)[: -len(before) or None]
        after = bound.demonstration(sample)[len(before) :]
    except InputError:
        return
    first, second = names
    if before.endswith((" ", "\t")):
        message = f"the {first} block ends in a space: a word after it is not the token it is elsewhere, and its score drops"
        fix = f"Move the space to the beginning of the {second} block: {{% block {second} %}} {shown}{{% endblock %}}."
        yield Problem(message, fix, template.file, template.blocks[first].line, f"block {first}")
    elif _glued(before, after):
        message = f"the {second} follows the {first} without a space: '…{before[-12:]}{after[:12]}'".replace("\n", "\\n")
        fix = f"Begin the {second} block with a space or a line end: {{% block {second} %}} {shown}{{% endblock %}}."
        yield Problem(message, fix, template.file, template.blocks[second].line, f"block {second}")
    for name, its in (template.words or {}).items():
        for word in its:
            if word != word.strip():
                fix = "Take it out; the answer block writes the space."
                yield Problem(
                    f"the word {word!r} begins or ends in white space", fix, template.file, template.lines.get("labels"), f"labels.{name}"
                )


def _glued(example: str, after: str) -> bool:
    """A word or a caption's sign, and then a word at once. Not so after brackets, quotes and line ends, nor in scripts without spaces."""
    if not example or not after or not after[0].isalnum():
        return False
    last = example[-1]
    return last in ":.,;?!)" or (last.isascii() and last.isalnum())


def _bound(template: Template, labels: Sequence[str]) -> BoundTemplate:
    return bind(template, kind=template.kind, inputs=template.inputs, labels=labels)


def _tokens(template: Template, codec: PromptCodec, labels: Sequence[str]) -> Iterator[Problem]:
    """Labels that a model cannot tell apart, or of which one is the beginning of another: that matters not in a channel, where the labels
    are not scored."""
    labels = tuple(template.words or labels)
    if template.kind != "classify" or not labels:
        return
    bound = _bound(template, labels)
    query = _sample(template, labels[0])
    context = "" if template.channel else bound.query(query)
    ids = {(label, text): codec.plain(context + text).ids for label, texts in bound.continuations(query) for text in texts}
    line = template.lines.get("labels")
    for (a, text_a), (b, text_b) in combinations(ids, 2):
        short, long = sorted((ids[a, text_a], ids[b, text_b]), key=len)
        if not short or a == b:
            continue
        if short == long:
            message = f"{text_a.strip()!r} of '{a}' and {text_b.strip()!r} of '{b}' become the same tokens"
            yield Problem(message, "Give one of them another word.", template.file, line, "labels")
        elif long[: len(short)] == short and not template.channel:
            begins, other = ((a, text_a), (b, text_b)) if ids[a, text_a] == short else ((b, text_b), (a, text_a))
            message = (
                f"{begins[1].strip()!r} of '{begins[0]}' is the beginning of {other[1].strip()!r} of '{other[0]}' and always scores higher"
            )
            yield Problem(message, "Add 'end: true', or give one of them another word.", template.file, line, "labels")
