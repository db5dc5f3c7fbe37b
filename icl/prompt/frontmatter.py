"""The keys at the top of a template file, checked."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from .. import patterns
from ..errors import InputError, Problem
from ..files import Yaml, load_yaml, validate_model
from ..values import Kind
from .slots import SLOT

FENCE = re.compile(r"---[ \t]*(?:\r?\n|\Z)")
EXTRACTORS = ("choice_letter", "code_block", "first_line", "json", "json_object", "last_number")
"""Names that `extract` may have; the read-out defines them."""


def _text(value: Any) -> Any:
    """A whole number, `true` or `false` as the text it was written as; the file's author meant a word."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if value is None or isinstance(value, float):
        raise ValueError("a word that YAML reads as a number or as nothing goes in quotes")
    return value


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | dict) else [value]


Word = Annotated[str, BeforeValidator(_text)]
Words = Annotated[list[Word], BeforeValidator(_listed)]


class FrontMatter(BaseModel):
    """Keys of a template. Everything is optional."""

    model_config = ConfigDict(extra="forbid")

    description: str = ""
    kind: Kind = "classify"
    input: Words | None = None
    labels: dict[str, Words] | list[Word] | None = None
    choices: Literal["letter", "text"] | None = None
    separator: str = "\n\n"
    stop: Words | None = None
    format: Literal["auto", "plain", "chat"] = "auto"
    channel: bool = False
    premise: str | None = None
    end: bool = False
    extract: str | None = None
    slots: Words = []

    @model_validator(mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        return {} if value is None else value

    @property
    def words(self) -> dict[str, tuple[str, ...]] | None:
        """Label -> its words; None when labels stand for themselves."""
        if self.labels is None:
            return None
        if isinstance(self.labels, list):
            return {label: (label,) for label in self.labels}
        return {label: tuple(words) for label, words in self.labels.items()}

    def problems(self) -> list[tuple[str, str, str]]:
        """(field, message, fix) of what single keys cannot show."""
        found = []
        if self.kind == "choose" and self.choices is None:
            found.append(("kind", "a template for choices says how they are answered", "Add 'choices: letter' or 'choices: text'."))
        if self.kind != "choose" and self.choices is not None:
            found.append(("choices", f"'choices' is for kind choose, this is {self.kind}", "Remove it, or add 'kind: choose'."))
        if self.kind != "classify" and self.labels is not None:
            found.append(("labels", f"'labels' is for kind classify, this is {self.kind}", "Remove 'labels'."))
        if self.channel and self.kind == "answer":
            found.append(
                ("channel", "a channel scores the example behind each of a set of answers", "Remove the key, or give another kind.")
            )
        if self.channel and self.choices == "letter":
            found.append(("choices", "behind a letter no example is more likely than behind another", "Use 'choices: text'."))
        if self.channel and self.premise is not None:
            found.append(("premise", "a channel's answers come first, so that they have no premise", "Remove 'premise'."))
        if self.premise is not None and not self.premise.strip():
            found.append(("premise", "a premise without a word is none", "Give the text, or remove the key."))
        if self.end and not self.separator:
            found.append(("end", "'end' scores the separator, which is empty", "Give a separator, or remove 'end'."))
        if self.slots and self.kind != "answer":
            found.append(("slots", f"'slots' is for kind answer, this is {self.kind}", "Remove the key."))
        if unknown := sorted(set(self.slots) - set(self.input or self.slots)):
            found.append(("slots", f"there is no input field '{unknown[0]}' to fill a slot from", "Name input fields."))
        if wrong := next((name for name in self.slots if not SLOT.fullmatch(f"{{{name}}}")), None):
            found.append(("slots", f"'{wrong}' is no name for a slot", "Use letters, digits and '_'."))
        if self.extract is not None and (problem := extract_problem(self.extract)):
            found.append(("extract", problem, "Give an extractor, json:FIELD, or a regular expression with one group."))
        found += [(f"labels.{label}", message, fix) for label, message, fix in word_problems(self.words or {})]
        return found


def extract_problem(extract: str) -> str | None:
    """What is wrong with an `extract` key; None if nothing."""
    if extract in EXTRACTORS or (extract.startswith("json:") and extract != "json:"):
        return None
    names = f"neither an extractor ({', '.join(EXTRACTORS)}) nor a regular expression with one group"
    return patterns.problem(extract) or (names if patterns.problem(extract, groups=1) else None)


def word_problems(words: Any) -> list[tuple[str, str, str]]:
    """(label, message, fix) for label words that no read-out could tell apart or that are missing."""
    found: list[tuple[str, str, str]] = []
    owner: dict[str, str] = {}
    for label, its in words.items():
        if not its:
            found.append((label, f"no words for '{label}'", "Give at least one word, or leave the label out of 'labels'."))
        for word in its:
            if not word:
                found.append((label, f"a word of '{label}' is empty", "Give it at least one character."))
            elif word in owner:
                found.append((label, f"the word '{word}' stands for '{owner[word]}' already", "Give every label words of its own."))
            owner.setdefault(word, label)
    return found


def split(source: str, file: str) -> tuple[FrontMatter, Yaml, str, int]:
    """(front matter, its YAML, the body, the body's first line). Raises InputError with file and line."""
    head = FENCE.match(source)
    if not head:
        return FrontMatter(), Yaml({}, {}, file), source, 1
    position, line = head.end(), 2
    while position < len(source):
        if closing := FENCE.match(source, position):
            break
        end = source.find("\n", position)
        position, line = (len(source) if end < 0 else end + 1), line + 1
    else:
        raise InputError(Problem("the front matter has no end", "Add a line '---' after its last key.", file, 1))
    doc = load_yaml(source[head.end() : position], file, first_line=2)
    if doc.value is not None and not isinstance(doc.value, dict):
        raise InputError(Problem("the front matter is not a list of keys", "Write 'key: value' lines.", file, doc.line(())))
    front = validate_model(FrontMatter, doc, value=doc.value or {})
    problems = [Problem(message, fix, file, doc.line(tuple(field.split(".", 1))), field) for field, message, fix in front.problems()]
    if problems:
        raise InputError(problems)
    return front, doc, source[closing.end() :], line + 1
