"""Templates that show how an answer was found: the query first gets a rationale of the model's own, then its answer is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import InputError, Problem
from ..readout import cut_thoughts
from ..values import Example

if TYPE_CHECKING:
    from ..prompt import BoundTemplate
    from .few_shot import FewShot

_MARK = "\u2063answer\u2063"


def uses_rationales(bound: BoundTemplate, pool: Sequence[Example]) -> bool:
    """True if the prompts show rationales: the template has a block for them, and some example has one."""
    return bound.template.has_rationale and any(e.rationale is not None for e in pool)


def check_rationales(method: FewShot, bound: BoundTemplate, shown: bool) -> None:
    """Raises InputError for a read-out that cannot be had: a rationale's own likelihood is the same for all labels and cancels out
    of sums, but not once each sum is divided by a length."""
    others = [readout for readout in method.readouts if readout != "sum"]
    if shown and others and bound.kind != "answer":
        raise InputError(
            Problem(f"the read-out '{others[0]}' cannot be had with a template that shows rationales", "Use sum.", field="readout")
        )


def opening(bound: BoundTemplate, query: Example) -> str:
    """What the answer block writes before the answer itself, such as "\\nSo the answer is "; a rationale ends where it begins."""
    if bound.kind == "classify":
        target, shown = bound.labels[0], bound.words[bound.labels[0]][0]
    elif bound.kind == "choose":
        target = query.choices[0]
        shown = "A" if bound.template.choices == "letter" else target
    else:
        target = shown = _MARK
    block = bound.demonstration(replace(query, target=target, rationale=None))[len(bound.query(query)) :]
    return block[: block.rindex(shown)] if shown in block else ""


def written_before(bound: BoundTemplate, query: Example) -> str:
    """What the rationale block writes before the rationale itself, such as "\nThought: "."""
    target = bound.labels[0] if bound.kind == "classify" else query.choices[0] if bound.kind == "choose" else _MARK
    shown = bound.demonstration(replace(query, target=target, rationale=_MARK + "r"))[len(bound.query(query)) :]
    return shown[: shown.index(_MARK + "r")]


def rationale_of(bound: BoundTemplate, query: Example, text: str) -> str:
    """The rationale in what a model wrote: all of it up to the opening of the answer, thoughts cut."""
    text, _ = cut_thoughts(text)
    start = opening(bound, query).strip()
    at = text.find(start) if start else -1
    return (text[:at] if at >= 0 else text).rstrip()


def after_rationale(bound: BoundTemplate, query: Example, text: str) -> str:
    """The answer in words in what a model wrote: what follows the last opening of an answer; all of it where there is none."""
    start = opening(bound, query).strip()
    return text.rpartition(start)[2] if start else text


def with_rationale(rationale: str, continuations: Sequence[tuple[str, Sequence[str]]], chat: bool) -> list[tuple[str, tuple[str, ...]]]:
    """Label continuations that begin with the rationale, the same for every label. In chat the assistant's turn is stripped."""
    joined = [(answer, tuple(rationale + text for text in texts)) for answer, texts in continuations]
    return [(answer, tuple(t.strip() for t in texts)) for answer, texts in joined] if chat else joined
