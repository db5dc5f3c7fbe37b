"""Rows that would give a test answer away, and rows that are the same text."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..values import Example, embedded_text, normalised_text

if TYPE_CHECKING:
    from .task import Task


@dataclass(frozen=True, slots=True)
class Leaks:
    """What the leak guard removed. Every row is counted once, by the first reason that holds."""

    n_id: int = 0
    """Rows with the user's id of a test row."""
    n_text: int = 0
    """Rows with a test row's normalised text and choices."""
    n_near: int = 0
    """Rows that are a test row lightly edited."""
    removed: tuple[str, ...] = ()
    """`split/uid` of every removed row."""

    @property
    def n(self) -> int:
        return len(self.removed)

    def __str__(self) -> str:
        return f"leaks removed: {self.n_id} by id, {self.n_text} by text, {self.n_near} near-duplicates"


def comparable(text: str) -> str:
    """`normalised_text`; of a text without letters and digits (`:-)`, `?!`), which that would empty, the folded text itself."""
    return normalised_text(text) or " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def squeezed(text: str) -> str:
    """`comparable` without spaces, so that `don't` and `dont`, `e-mail` and `email`, `77-71` and `7771` are equal.

    Between two digits a space stays, and so does an operator's place: `1 + 23` is not `12 + 3`.
    """
    return _SPACE.sub("", comparable(_IN_NUMBER.sub("", text)))


_SPACE = re.compile(r"(?<!\d) | (?!\d)")
_IN_NUMBER = re.compile(r"(?<=\d)[^\w\s+*=^<>×÷%](?=\d)")


def text_key(example: Example) -> str:
    """What two rows share that are the same text, whatever their choices."""
    return comparable(embedded_text(example.fields))


def row_key(example: Example, form: Callable[[str], str] = comparable) -> str:
    """What two rows share that are the same item: the text, and the choices in any order. form: `comparable` or `squeezed`."""
    return "\0".join([form(embedded_text(example.fields)), *sorted(form(choice) for choice in example.choices)])


def equal_rows(rows: Sequence[Example], others: Sequence[Example]) -> set[int]:
    """Positions of the rows that are the same item as one of `others`, punctuation kept as a space or dropped."""
    return {
        position
        for form in (comparable, squeezed)
        for keys in [{row_key(example, form) for example in others}]
        for position, example in enumerate(rows)
        if row_key(example, form) in keys
    }


def duplicate_groups(examples: Sequence[Example]) -> Mapping[str, frozenset[str]]:
    """uid -> the uids (its own included) of the rows with the same normalised text."""
    groups: dict[str, set[str]] = defaultdict(set)
    keys = {example.uid: text_key(example) for example in examples}
    for uid, key in keys.items():
        groups[key].add(uid)
    frozen = {key: frozenset(uids) for key, uids in groups.items()}
    return {uid: frozen[key] for uid, key in keys.items()}


def leak_guard(task: Task) -> tuple[Task, Leaks]:
    """The task without the rows of train, dev and unlabelled that equal a test row, and what was removed.

    Equal means: the same id (where the task has ids), the same normalised text and choices in any order (`equal_rows`), or a near-duplicate
    (`near.near_duplicates`). Test rows are never removed. Deterministic; no encoder is needed.
    """
    from .near import near_duplicates

    test_ids = set(task.ids.get("test", {}).values())
    counts = {"id": 0, "text": 0, "near": 0}
    removed: list[str] = []
    kept: dict[str, tuple[Example, ...]] = {}
    for split in ("train", "dev", "unlabelled"):
        rows: tuple[Example, ...] = getattr(task, split)
        ids = task.ids.get(split, {})
        reasons = dict.fromkeys(equal_rows(rows, task.test), "text")
        reasons |= {position: "id" for position, example in enumerate(rows) if ids.get(example.uid) in test_ids}
        rest = [position for position in range(len(rows)) if position not in reasons]
        for near in near_duplicates([rows[position] for position in rest], task.test):
            reasons[rest[near]] = "near"
        for position in sorted(reasons):
            counts[reasons[position]] += 1
            removed.append(f"{split}/{rows[position].uid}")
        kept[split] = tuple(example for position, example in enumerate(rows) if position not in reasons)
    leaks = Leaks(counts["id"], counts["text"], counts["near"], tuple(removed))
    return replace(task, train=kept["train"], dev=kept["dev"], unlabelled=kept["unlabelled"]), leaks
