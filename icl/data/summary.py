"""The data report: what is in a task before any work is spent on it."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import Problem
from ..protocols import Encoder
from ..values import Example, Kind, embedded_text
from .diversity import effective_number
from .leaks import equal_rows, row_key, text_key
from .near import near_pairs
from .task import SPLITS, Task

LISTED = 5
"""Conflicts, labels and reasons shown on the console; `as_dict` has all."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of a split's texts (the input fields together)."""

    smallest: int
    median: float
    p95: int
    largest: int

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Lengths:
        """numbers: at least one."""
        ordered = sorted(numbers)
        return cls(ordered[0], statistics.median(ordered), ordered[(len(ordered) * 95 - 1) // 100], ordered[-1])

    def __str__(self) -> str:
        return f"{self.smallest} to {self.largest} (median {self.median:g}, 95 % up to {self.p95})"


@dataclass(frozen=True, slots=True)
class SplitReport:
    """One split."""

    n: int
    labels: Mapping[str, int]
    """Rows per label (classify), the whole label set."""
    characters: Lengths
    words: Lengths
    tokens: Lengths | None
    """None if nothing counts tokens."""
    n_exact: int
    """Rows that repeat an earlier row of the split (normalised text and choices)."""
    n_near: int
    """Rows that are a near-duplicate of an earlier row."""
    n_cut: int | None
    """Texts longer than the encoder reads; None without an encoder."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Rows of the first split that equal a row of the second."""

    n_text: int
    n_near: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """One text that carries different labels."""

    text: str
    rows: tuple[tuple[str, str, str], ...]
    """(split, uid, label)."""


@dataclass(frozen=True, slots=True)
class Diversity:
    """Effective number of distinct texts in the pool; see `effective_number`."""

    n: int
    overall: float
    per_label: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class DataReport:
    """See `report`."""

    name: str
    kind: Kind
    n_rows: Mapping[str, int]
    rejected: Mapping[str, int]
    """Reason -> rows."""
    holdout: float | None
    splits: Mapping[str, SplitReport]
    overlaps: Mapping[str, Overlap]
    """`train/test` -> rows of train that equal a row of test."""
    conflicts: tuple[Conflict, ...]
    diversity: Diversity | None
    """None without an encoder."""
    warnings: tuple[Problem, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For the console."""
        return [f"{self.name} ({self.kind})", *(f"  {caption:<11}{text}" for caption, text in _lines(self))]


def report(task: Task, encoder: Encoder | None, count_tokens: Callable[[str], int] | None = None) -> DataReport:
    """Look through a task.

    encoder: for the diversity of the pool and for texts it would cut; without one these are left out. count_tokens: the language
    model's, for lengths in tokens. Overlaps are those before the leak guard, if the task has not been through it.
    """
    splits = {split: rows for split in SPLITS if (rows := getattr(task, split))}
    found = {split: _split(task, rows, encoder, count_tokens) for split, rows in splits.items()}
    overlaps = {
        f"{a}/{b}": _overlap(splits[a], splits[b])
        for a, b in (("train", "test"), ("dev", "test"), ("unlabelled", "test"), ("train", "dev"))
        if a in splits and b in splits
    }
    conflicts = _conflicts(task)
    diversity = _diversity(task, encoder) if encoder is not None and task.train else None
    draft = DataReport(task.name, task.kind, dict(task.n_rows), task.reasons, task.holdout, found, overlaps, conflicts, diversity)
    return DataReport(
        **{name: getattr(draft, name) for name in draft.__slots__ if name != "warnings"}, warnings=(*task.warnings, *_warn(task, draft))
    )


def _split(task: Task, rows: Sequence[Example], encoder: Encoder | None, count_tokens: Callable[[str], int] | None) -> SplitReport:
    texts = [embedded_text(example.fields) for example in rows]
    counts = Counter(example.target for example in rows)
    seen: set[str] = set()
    repeats: set[int] = set()
    for position, example in enumerate(rows):
        key = row_key(example)
        if key in seen:
            repeats.add(position)
        seen.add(key)
    near = {max(i, j) for i, j in near_pairs(rows, rows)} - repeats
    return SplitReport(
        n=len(rows),
        labels={label: counts[label] for label in task.labels if any(counts)},
        characters=Lengths.of([len(text) for text in texts]),
        words=Lengths.of([len(text.split()) for text in texts]),
        tokens=Lengths.of([count_tokens(text) for text in texts]) if count_tokens else None,
        n_exact=len(repeats),
        n_near=len(near),
        n_cut=sum(encoder.cut(texts)) if encoder is not None else None,
    )


def _overlap(rows: Sequence[Example], others: Sequence[Example]) -> Overlap:
    same = equal_rows(rows, others)
    near = {i for i, _ in near_pairs(rows, others)} - same
    return Overlap(len(same), len(near))


def _conflicts(task: Task) -> tuple[Conflict, ...]:
    if task.kind == "answer":  # several right answers to one question are no contradiction
        return ()
    groups: dict[str, list[tuple[str, Example]]] = defaultdict(list)
    for split in ("train", "dev", "test"):
        for example in getattr(task, split):
            groups[text_key(example) if task.kind == "classify" else row_key(example)].append((split, example))
    return tuple(
        Conflict(embedded_text(group[0][1].fields), tuple((split, e.uid, e.target or "") for split, e in group))
        for group in groups.values()
        if len({example.target for _, example in group}) > 1
    )


def _diversity(task: Task, encoder: Encoder) -> Diversity:
    vectors = encoder.encode([embedded_text(example.fields) for example in task.train])
    positions: dict[str, list[int]] = {label: [] for label in task.labels}
    for position, example in enumerate(task.train):
        if example.target in positions:
            positions[example.target].append(position)
    per_label = {label: effective_number(vectors[at]) for label, at in positions.items()}
    return Diversity(len(task.train), effective_number(vectors), per_label)


def _warn(task: Task, found: DataReport) -> Iterator[Problem]:
    if found.conflicts:
        n = sum(len(conflict.rows) for conflict in found.conflicts)
        yield Problem(
            f"{len(found.conflicts)} texts ({n} rows) carry different labels",
            "Settle which is right; they set a ceiling to every method.",
            field="label",
        )
    for name, overlap in found.overlaps.items():
        if overlap.n_text + overlap.n_near:
            first, second = name.split("/")
            fix = f"A run removes them from {first}." if second == "test" else f"Scores on {second} are too good by them."
            yield Problem(f"{overlap.n_text} rows of {first} equal a row of {second}, {overlap.n_near} are near-duplicates of one", fix)
    for split, part in found.splits.items():
        if part.n_cut:
            yield Problem(
                f"{part.n_cut} of {part.n} texts of {split} are longer than the encoder reads",
                "Only their beginning counts for neighbours; shorten them, or take an encoder with a longer window.",
            )
    doubled = sum(len(set(example.choices)) < len(example.choices) for split in SPLITS for example in getattr(task, split))
    if doubled:
        yield Problem(f"{doubled} rows offer the same choice twice", "Predictions are judged by the choice's text.", field="choices")


def _lines(found: DataReport) -> Iterator[tuple[str, str]]:
    rows = " · ".join(f"{split} {part.n}" for split, part in found.splits.items())
    held = f"; test is {found.holdout:.0%} of the file, held out" if found.holdout else ""
    yield "rows", f"{rows}{held}"
    total, n_rejected = sum(found.n_rows.values()), sum(found.rejected.values())
    yield "", f"{total} read, {n_rejected} rejected" + (f": {_counts(found.rejected)}" if n_rejected else "")
    for split, part in found.splits.items():
        if part.labels:
            ordered = dict(sorted(part.labels.items(), key=lambda item: -item[1]))
            yield "labels", f"{split}: {_counts(ordered, after=True)}"
    for split, part in found.splits.items():
        yield "length", f"{split}: words {part.words}; characters {part.characters}" + (f"; tokens {part.tokens}" if part.tokens else "")
    yield "duplicates", " · ".join(f"{split} {part.n_exact} exact, {part.n_near} near" for split, part in found.splits.items())
    for name, overlap in found.overlaps.items():
        yield "overlap", f"{name}: {overlap.n_text} equal, {overlap.n_near} near"
    yield "conflicts", f"{len(found.conflicts)} texts with different labels" if found.kind != "answer" else "not looked for in answers"
    for conflict in found.conflicts[:LISTED]:
        given = _counts(Counter(label for _, _, label in conflict.rows), after=True)
        split, uid, _ = conflict.rows[0]
        yield "", f"{_excerpt(conflict.text)}: {given} (the first: {split} {uid})"
    if len(found.conflicts) > LISTED:
        yield "", f"and {len(found.conflicts) - LISTED} more"
    cut = [f"{split} {part.n_cut} of {part.n}" for split, part in found.splits.items() if part.n_cut is not None]
    if cut:
        yield "cut", f"texts longer than the encoder reads: {' · '.join(cut)}"
    if found.diversity:
        yield "diversity", f"the {found.diversity.n} texts of the pool amount to {found.diversity.overall:.1f} distinct ones"
        if found.diversity.per_label:
            yield "", _counts({label: round(n, 1) for label, n in found.diversity.per_label.items()}, after=True)
    for warning in found.warnings:
        yield "warning", f"{warning.file}: {warning.message}" if warning.file else warning.message


def _counts(counts: Mapping[str, float], after: bool = False) -> str:
    shown = [f"{key} {n:g}" if after else f"{n:g} × {key}" for key, n in list(counts.items())[: 2 * LISTED]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else line[:59] + "…")
