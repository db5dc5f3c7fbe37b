"""Many tasks from one folder, without those that a model is to be judged on: by their names, and by their text."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data import Task
from ..data.rows import read_rows
from ..errors import InputError, Problem
from ..progress import note
from ..values import Example, Kind, field_text

WORDS = 8
"""A run of so many words in common is text in common."""
FEWEST = 8
"""Rows that a task must have."""


@dataclass(frozen=True)
class Source:
    """A task that can be drawn from."""

    name: str
    kind: Kind
    rows: tuple[Example, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """The tasks of a folder."""

    tasks: tuple[Source, ...]
    left_out: dict[str, str]
    """Task -> why it is not used."""
    rows_left_out: dict[str, int]
    """Task that is used -> its rows that have text in common with the held-out data."""


def read_folder(folder: Path, *, exclude: Sequence[str], held_out: Sequence[Path], kinds: Sequence[Kind], overlap: float) -> Found:
    """The tasks of a folder: NAME.jsonl, or NAME/train.jsonl.

    Rows have a text and a label; a question, choices and the position of the right one; or a question and an answer or several.
    exclude: names of tasks that are left out, `*` standing for anything. held_out: files with the data to be judged on; rows that share a
    run of eight words with them (short texts: all their words) are left out, and so is a task where more than a share `overlap` do.

    Raises InputError: no folder, a name to exclude that fits no task (a slip of the pen would let it in), fewer than two tasks left.
    """
    files = dict(_files(folder))
    problems = [
        Problem(f"no task is named '{name}', so it cannot be excluded", f"There are: {', '.join(list(files)[:12])}, …", field="exclude")
        for name in exclude
        if not fnmatch.filter(files, name)
    ]
    if not files:
        problems.append(Problem("there is no NAME.jsonl or NAME/train.jsonl in it", "Name a folder of tasks.", str(folder), field="tasks"))
    if problems:
        raise InputError(problems)
    known = _runs(held_out)
    tasks: list[Source] = []
    left_out: dict[str, str] = {}
    fewer: dict[str, int] = {}
    for name, file in files.items():
        if any(fnmatch.fnmatch(name, pattern) for pattern in exclude):
            left_out[name] = "excluded by name"
            continue
        source = _read(name, file)
        if source is None or source.kind not in kinds:
            left_out[name] = "its rows have no known form" if source is None else f"its kind is {source.kind}"
            continue
        clean = [row for row in source.rows if not any(run in known for run in runs_of(_texts(row)))]
        n = len(source.rows) - len(clean)
        if n > overlap * len(source.rows):
            left_out[name] = f"{n} of its {len(source.rows)} rows have text of the held-out data"
        elif len(clean) < FEWEST or (source.kind == "classify" and len({row.target for row in clean}) < 2):
            left_out[name] = "too few rows"
        else:
            tasks.append(Source(name, source.kind, tuple(clean), source.labels))
            fewer |= {name: n} if n else {}
    if len(tasks) < 2:
        raise InputError(Problem(f"{len(tasks)} tasks are left", "Exclude fewer, or name another folder.", str(folder), field="tasks"))
    note(f"{len(tasks)} tasks, {len(left_out)} left out")
    return Found(tuple(tasks), left_out, fewer)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        raise InputError(Problem("there is no such folder", "Name a folder of tasks.", str(folder), field="tasks"))
    for path in sorted(folder.iterdir()):
        if path.suffix == ".jsonl":
            yield path.stem, path
        elif (path / "train.jsonl").is_file():
            yield path.name, path / "train.jsonl"


def _read(name: str, file: Path) -> Source | None:
    _, first = next(iter(read_rows(file)), (0, {}))
    text = next((column for column in ("text", "question", "input") if column in first), None)
    if text is None:
        return None
    if "choices" in first and "label" in first:
        task = Task.load(file, input=text, label="label", choices="choices", holdout=0, name=name)
    elif "answer" in first:
        task = Task.load(file, input=text, label=None, references="answer", holdout=0, name=name)
    elif "label" in first:
        task = Task.load(file, input=text, label="label", kind="classify", holdout=0, name=name)
    else:
        return None
    return Source(name, task.kind, task.train, task.labels)


def _texts(row: Example) -> Iterator[str]:
    yield from (field_text(value) for value in row.fields.values())


def runs_of(texts: Iterable[str]) -> Iterator[int]:
    """Hashes of the runs of eight words in texts; of a line with fewer, of all its words, if it has four at least."""
    for text in texts:
        for line in text.splitlines():
            words = ["".join(c for c in word if c.isalnum()) for word in line.casefold().split()]
            words = [word for word in words if word]
            if len(words) >= 4:
                yield from (hash(tuple(words[at : at + WORDS])) for at in range(max(1, len(words) - WORDS + 1)))


def _runs(files: Sequence[Path]) -> set[int]:
    """Of all texts in some files: strings, and lists of strings."""
    found: set[int] = set()
    for file in files:
        for _, row in read_rows(file):
            texts = [part for value in row.values() for part in (value if isinstance(value, list) else [value]) if isinstance(part, str)]
            found.update(runs_of(texts))
    return found
