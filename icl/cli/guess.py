"""What the columns of somebody's file are probably for, with the reasons in words. Only `icl init` uses it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, Problem, suggest
from ..values import Kind

MAX_LABELS = 200
MAX_KEPT = 20_000
"""Different values of a column that are kept; a column with more holds texts, and how many more is enough to know."""
LABEL_NAMES = ("label", "labels", "class", "category", "intent", "queue", "topic", "sentiment", "target", "type", "tag", "y")
INPUT_NAMES = ("text", "message", "sentence", "review", "question", "body", "content", "document", "input", "query", "title", "utterance")
PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("context", "question"),
    ("question", "sentence"),
)
CHOICE_NAMES = ("choices", "options", "endings", "candidates")
ANSWER_NAMES = (
    "answer",
    "answers",
    "output",
    "response",
    "reply",
    "completion",
    "summary",
    "translation",
    "reference",
    "references",
    "target",
)


@dataclass
class Column:
    """What is seen of one column."""

    name: str
    n: int = 0
    """Rows in which it is filled."""
    words: int = 0
    chars: int = 0
    n_lists: int = 0
    values: Counter[str] = field(default_factory=Counter)
    n_more: int = 0
    """Rows whose value is none of the first `MAX_KEPT`."""

    def add(self, value: Any) -> None:
        if value is None or value == "" or value == []:
            return
        self.n += 1
        self.n_lists += isinstance(value, list)
        text = str(value)
        self.words += len(text.split())
        self.chars += len(text)
        if text in self.values or len(self.values) < MAX_KEPT:
            self.values[text] += 1
        else:
            self.n_more += 1

    @property
    def mean_words(self) -> float:
        return self.words / max(1, self.n)

    @property
    def share_distinct(self) -> float:
        return (len(self.values) + self.n_more) / max(1, self.n)

    @property
    def is_list(self) -> bool:
        return self.n_lists == self.n > 0

    @property
    def is_numeric(self) -> bool:
        return all(value.replace(".", "", 1).lstrip("-").isdigit() for value in self.values)

    def looks_like_label(self, n_rows: int) -> bool:
        """Few short values that come back, in nearly every row."""
        few = 2 <= len(self.values) <= min(MAX_LABELS, n_rows // 2)  # far below MAX_KEPT
        return few and not self.is_list and self.chars / max(1, self.n) <= 60 and self.mean_words <= 6 and self.n >= 0.9 * n_rows

    def looks_like_text(self, n_rows: int) -> bool:
        return not self.is_list and self.n >= 0.9 * n_rows and not self.is_numeric and (self.mean_words >= 2.5 or self.chars / self.n >= 15)


@dataclass(frozen=True)
class Guess:
    """What `icl init` writes a suite for."""

    kind: Kind
    inputs: tuple[str, ...]
    """Columns."""
    label: str
    choices: str | None
    n_rows: int
    values: Mapping[str, int]
    """Label -> rows (classify)."""
    mean_words: float
    reasons: tuple[str, ...]


def look(file: Path) -> tuple[dict[str, Column], int]:
    """(columns by name, number of rows) of a file, whatever its format."""
    from ..data import read_rows

    columns: dict[str, Column] = {}
    n_rows = 0
    for _, row in read_rows(file):
        n_rows += 1
        for name, value in row.items():
            columns.setdefault(name, Column(name)).add(value)
    return columns, n_rows


def guess(file: Path, inputs: Sequence[str] = (), label: str | None = None, kind: Kind | None = None) -> Guess:
    """Which columns are input and label, and what the label is. What the user named is taken; the rest is guessed.

    Raises InputError if a named column is missing or nothing fits; it describes every column.
    """
    columns, n_rows = look(file)
    if not n_rows:
        raise InputError(Problem("there is no row", "Give at least one row of data (below the header line, in CSV and TSV).", str(file)))
    for name in (*inputs, *((label,) if label else ())):
        if name not in columns:
            raise InputError(Problem(f"there is no column '{name}'", suggest(name, columns), str(file), 1, name))
    choices = next((c.name for c in columns.values() if c.is_list and c.name.lower() in CHOICE_NAMES), None)
    reasons = []
    if label is None:
        label, reason = _label(file, columns, n_rows, exclude={*inputs, choices or ""})
        reasons.append(f"label: '{label}' ({reason})")
    if not inputs:
        inputs, reason = _inputs(file, columns, n_rows, exclude={label, choices or ""})
        reasons.insert(0, f"input: {', '.join(repr(name) for name in inputs)} ({reason})")
    if kind is None:
        kind = _kind(columns[label], n_rows, choices)
        reasons.append(f"kind: {kind} ({_why_kind(kind, columns[label], choices)})")
    words = sum(columns[name].mean_words for name in inputs)
    return Guess(kind, tuple(inputs), label, choices if kind == "choose" else None, n_rows, columns[label].values, words, tuple(reasons))


def _label(file: Path, columns: Mapping[str, Column], n_rows: int, exclude: set[str]) -> tuple[str, str]:
    free = [c for c in columns.values() if c.name not in exclude]
    fitting = [c for c in free if c.looks_like_label(n_rows)]
    if fitting:
        best = min(fitting, key=lambda c: (_rank(c.name, LABEL_NAMES), c.is_numeric, len(c.values)))
        others = [c.name for c in fitting if c is not best]
        reason = f"{len(best.values)} different values, each {best.n / len(best.values):.0f} times on average"
        return best.name, f"{reason}; also possible: {', '.join(others)}" if others else reason
    named = [c for c in free if c.name.lower() in (*ANSWER_NAMES, *LABEL_NAMES) and c.n]
    if named:
        best = min(named, key=lambda c: _rank(c.name, ANSWER_NAMES))
        return best.name, f"by its name; {'all its values are the same' if len(best.values) == 1 else 'its values hardly repeat'}"
    raise _nothing_fits(file, "label", "a column with a few values that come back, or one named 'answer'", columns)


def _inputs(file: Path, columns: Mapping[str, Column], n_rows: int, exclude: set[str]) -> tuple[tuple[str, ...], str]:
    texts = {c.name.lower(): c for c in columns.values() if c.name not in exclude and c.looks_like_text(n_rows)}
    for pair in PAIRS:
        if all(name in texts for name in pair):
            return tuple(texts[name].name for name in pair), "a pair of texts, by their names"
    if not texts:
        raise _nothing_fits(file, "input", "a column with several words in it", columns)
    best = min(texts.values(), key=lambda c: (_rank(c.name, INPUT_NAMES), -c.mean_words))
    others = [c.name for c in texts.values() if c is not best]
    reason = f"text, {best.mean_words:.0f} words on average, {best.share_distinct:.0%} of the values differ"
    return (best.name,), f"{reason}; also possible: {', '.join(others)}" if others else reason


def _kind(label: Column, n_rows: int, choices: str | None) -> Kind:
    if choices:
        return "choose"
    is_one_label = len(label.values) == 1 and label.name.lower() in LABEL_NAMES  # of one row, too
    repeats = not label.is_list and len(label.values) <= n_rows // 2
    return "classify" if label.looks_like_label(n_rows) or repeats or is_one_label else "answer"


def _why_kind(kind: Kind, label: Column, choices: str | None) -> str:
    return {
        "classify": f"one of {len(label.values)} labels" if len(label.values) > 1 else "one label",
        "choose": f"the choices of each row stand in '{choices}'",
        "answer": "an answer in words",
    }[kind]


def _rank(name: str, names: Sequence[str]) -> int:
    return names.index(name.lower()) if name.lower() in names else len(names)


def _nothing_fits(file: Path, option: str, wanted: str, columns: Mapping[str, Column]) -> InputError:
    seen = "; ".join(f"'{c.name}': {len(c.values)} different values, {c.mean_words:.1f} words on average" for c in columns.values())
    return InputError(
        Problem(f"no column looks like the {option} ({wanted}). Seen: {seen}", f"Say which it is: --{option} COLUMN.", str(file))
    )
