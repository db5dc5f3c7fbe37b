"""The run store: every item's result in one SQLite file, written by one process at a time.

A unit of work (a planned batch of one cell) is one transaction, so after a crash a unit is there whole or not at all. WAL with
synchronous=NORMAL survives the death of the process at any point without loss; after a power cut the last commits may be missing,
and those units are computed again. Readers need no lock.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from ..errors import IclError, InputError, Problem
from ..methods import example_of, row_of
from ..values import Example, LabelScores, Prediction, Step
from .seen import packed, unpacked

STORE = "store.sqlite"
LOCK = "store.lock"
BUSY_MS = 30_000
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cells (cell TEXT PRIMARY KEY, facts TEXT NOT NULL, timing TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    cell TEXT NOT NULL, position INTEGER NOT NULL, uid TEXT NOT NULL, answer TEXT, why TEXT, prediction TEXT NOT NULL,
    PRIMARY KEY (cell, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS units (cell TEXT NOT NULL, unit INTEGER NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (cell, unit)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS work (cell TEXT NOT NULL, counts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tests (task TEXT NOT NULL, position INTEGER NOT NULL, example TEXT NOT NULL, PRIMARY KEY (task, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shown (task TEXT NOT NULL, uid TEXT NOT NULL, example TEXT NOT NULL, PRIMARY KEY (task, uid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS prompts (cell TEXT NOT NULL, unit INTEGER NOT NULL, texts BLOB NOT NULL, PRIMARY KEY (cell, unit)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
"""


class RunStore:
    """The store of one run folder, open for writing. Use it as a context manager; `read_only` opens one to look at."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: FileLock | None) -> None:
        self.folder, self._db, self._lock = folder, connection, lock

    @classmethod
    def open(cls, folder: Path) -> RunStore:
        """For writing. Raises InputError if another process is writing, IclError if the folder cannot be written."""
        lock = _locked(folder)
        try:
            db = _connect(folder / STORE, "rwc")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.executescript(_TABLES)
        except sqlite3.Error as error:
            lock.release()
            raise damaged(folder, error) from None
        store = cls(folder, db, lock)
        store.set("writer", f"process {os.getpid()} on {socket.gethostname()}")
        return store

    @classmethod
    def read_only(cls, folder: Path) -> RunStore:
        """For reading, also while another process writes. Raises InputError if there is no store."""
        if not (folder / STORE).is_file():
            raise InputError(Problem(f"there is no {STORE} in this folder", "Give the folder of a run.", str(folder)))
        try:
            return cls(folder, _connect(folder / STORE, "ro"), None)
        except sqlite3.Error as error:
            raise damaged(folder, error) from None

    def close(self) -> None:
        if self._lock is not None:
            with suppress(sqlite3.Error):  # a reader is at work
                # A file without a log beside it can be read from anywhere, also where nothing may be written.
                self._db.execute("PRAGMA journal_mode=DELETE")
        self._db.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def get(self, key: str) -> Any:
        """A value of the run as a whole, None if it is not set."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def set(self, key: str, value: Any) -> None:
        with self._writing():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value, ensure_ascii=False)))

    def set_tests(self, task: str, examples: Sequence[Example]) -> None:
        """Keep the items that a task is judged on, with their targets, so that the run can be judged again from its folder alone."""
        rows = [(task, at, json.dumps(row_of(example))) for at, example in enumerate(examples)]
        with self._writing():
            self._db.executemany("INSERT OR IGNORE INTO tests VALUES (?, ?, ?)", rows)

    def tests(self, task: str) -> list[Example]:
        """The items that a task is judged on, in order; none in a store of a version that did not keep them."""
        rows = self._kept("SELECT example FROM tests WHERE task = ? ORDER BY position", task)
        return [example_of(json.loads(row[0])) for row in rows]

    def add_seen(self, cell: str, unit: int, task: str, rows: Mapping[str, Example], prompts: Mapping[int, str | None]) -> None:
        """Keep what a reader wants to see of a unit: the rows shown as demonstrations, and the prompts by position."""
        shown = [(task, _storable(uid), json.dumps(row_of(example))) for uid, example in rows.items()]
        texts = packed(prompts)
        with self._writing():
            self._db.executemany("INSERT OR IGNORE INTO shown VALUES (?, ?, ?)", shown)
            if texts is not None:
                self._db.execute("INSERT OR REPLACE INTO prompts VALUES (?, ?, ?)", (cell, unit, texts))

    def shown(self, task: str) -> dict[str, Example]:
        """The rows that were shown as demonstrations, by uid; none in a store of a version that did not keep them."""
        found = [example_of(json.loads(text)) for (text,) in self._kept("SELECT example FROM shown WHERE task = ?", task)]
        return {example.uid: example for example in found}

    def prompts(self, cell: str) -> dict[int, str]:
        """The prompts of a cell's items by position, as far as they are kept."""
        rows = self._kept("SELECT texts FROM prompts WHERE cell = ? ORDER BY unit", cell)
        return {at: text for row in rows for at, text in unpacked(row[0]).items()}

    def add_verdicts(self, verdicts: Mapping[str, float]) -> None:
        """Keep what metrics found out at a cost: a program's run, a judge's opinion."""
        with self._writing():
            self._db.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", verdicts.items())

    def verdicts(self) -> dict[str, float]:
        """What metrics found out at a cost, so that whoever judges the run again runs no program and asks no judge a second time."""
        return dict(self._kept("SELECT key, value FROM verdicts"))

    def _kept(self, query: str, *keys: str) -> list[Any]:
        """Rows of a table that stores of older versions do not have."""
        try:
            return self._db.execute(query, keys).fetchall()
        except sqlite3.OperationalError:  # there is no such table
            return []

    def units(self, cell: str) -> dict[int, float]:
        """The units of a cell that are there -> seconds they took."""
        return dict(self._db.execute("SELECT unit, seconds FROM units WHERE cell = ?", (cell,)))

    def add_unit(self, cell: str, unit: int, start: int, predictions: Sequence[Prediction], seconds: float) -> None:
        """Commit one unit: the predictions for the items from position `start` on. Raises IclError if the disk does not take it."""
        with self._writing():
            self._db.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)", _rows(cell, dict(enumerate(predictions, start))))
            self._db.execute("INSERT INTO units VALUES (?, ?, ?)", (cell, unit, seconds))

    def put(self, cell: str, predictions: Mapping[int, Prediction]) -> None:
        """Commit predictions by position, in the place of those that are there: of a unit that was cut short, or of items tried again."""
        with self._writing():
            self._db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?, ?)", _rows(cell, predictions))

    def skip_units(self, cell: str, numbers: Iterable[int]) -> None:
        """Note units as if they were there: another process does them."""
        with self._writing():
            self._db.executemany("INSERT INTO units VALUES (?, ?, 0.0)", [(cell, number) for number in numbers])

    def take(self, other: Path, cell: str, numbers: Sequence[int]) -> None:
        """Commit what another store has of these units of a cell, whole or not at all; what is there already stays."""
        self._db.execute("ATTACH DATABASE ? AS other", (str(other),))
        try:
            with self._writing():
                for table in ("items", "work", "shown"):
                    where = "" if table == "shown" else " WHERE cell = ?"
                    self._db.execute(f"INSERT OR IGNORE INTO {table} SELECT * FROM other.{table}{where}", (cell,) if where else ())
                for number in numbers:
                    for table in ("units", "prompts"):
                        self._db.execute(
                            f"INSERT OR IGNORE INTO {table} SELECT * FROM other.{table} WHERE cell = ? AND unit = ?", (cell, number)
                        )
        finally:
            self._db.execute("DETACH DATABASE other")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction. Raises IclError if the disk does not take it."""
        try:
            with self._db:
                yield
        except sqlite3.OperationalError as error:
            raise IclError(f"{self.folder / STORE}: {error}\n  Free some space; the same command goes on from what is stored.") from None

    def stored(self, cell: str, positions: range) -> dict[int, Prediction]:
        """The predictions that are there for some of a cell's items."""
        query = "SELECT position, prediction FROM items WHERE cell = ? AND position >= ? AND position < ?"
        return {at: from_json(text) for at, text in self._db.execute(query, (cell, positions.start, positions.stop))}

    def unanswered(self, cell: str) -> dict[int, Prediction]:
        """A cell's items without an answer, by position: they say why."""
        rows = self._db.execute("SELECT position, prediction FROM items WHERE cell = ? AND answer IS NULL ORDER BY position", (cell,))
        return {position: from_json(text) for position, text in rows}

    def forget(self, cell: str) -> None:
        """As if a cell had never been begun; what it cost stays noted."""
        with self._writing():
            for table in ("items", "units", "cells", "prompts"):
                self._db.execute(f"DELETE FROM {table} WHERE cell = ?", (cell,))

    def add_work(self, cell: str, counts: Mapping[str, Any]) -> None:
        """Note what was really computed or paid for a cell: name -> number, or a mapping of such. Kept though the work be cut short."""
        with self._writing():
            self._db.execute("INSERT INTO work VALUES (?, ?)", (cell, json.dumps(counts, sort_keys=True)))

    def work(self) -> list[tuple[str, dict[str, Any]]]:
        """(cell, counts) of everything noted, of all sessions."""
        rows = self._db.execute("SELECT cell, counts FROM work ORDER BY rowid")
        return [(cell, json.loads(counts)) for cell, counts in rows]

    def finish_cell(self, cell: str, facts: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Mark a cell complete. facts: what goes to results.json; timing: what differs from run to run."""
        with self._writing():
            values = (cell, json.dumps(facts, sort_keys=True), json.dumps(timing, sort_keys=True))
            self._db.execute("INSERT INTO cells VALUES (?, ?, ?)", values)

    def finished(self) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        """Complete cells -> (facts, timing)."""
        rows = self._db.execute("SELECT cell, facts, timing FROM cells")
        return {cell: (json.loads(facts), json.loads(timing)) for cell, facts, timing in rows}

    def some(self, cell: str, positions: Sequence[int]) -> dict[int, Prediction]:
        """Stored predictions of a cell at these positions, as far as they are there."""
        query = "SELECT position, prediction FROM items WHERE cell = ? AND position IN (SELECT value FROM json_each(?))"
        return {at: from_json(text) for at, text in self._db.execute(query, (cell, json.dumps(list(positions))))}

    def predictions(self, cell: str) -> list[Prediction]:
        """All stored predictions of a cell, in the order of the items."""
        rows = self._db.execute("SELECT prediction FROM items WHERE cell = ? ORDER BY position", (cell,))
        return [from_json(row[0]) for row in rows]

    def cells(self) -> Iterable[str]:
        """Every cell with at least one stored item."""
        return [row[0] for row in self._db.execute("SELECT DISTINCT cell FROM items")]


def refuse_if_busy(folder: Path) -> None:
    """Raises InputError if another process is writing that run, before any work is spent on it."""
    if (folder / STORE).is_file():
        _locked(folder).release()


def _locked(folder: Path) -> FileLock:
    """The lock of a run folder, taken; the folder is made. The system frees it when a process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise InputError(
            Problem(f"another process is writing this run: {_writer(folder)}", "Wait for it, or give another --out.", str(folder))
        ) from None
    except OSError as error:
        raise IclError(f"{folder}: cannot be written: {error.strerror}\n  Give --out a folder that you may write.") from None
    return lock


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=BUSY_MS / 1000)
    db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    return db


def _writer(folder: Path) -> str:
    try:
        with closing(RunStore.read_only(folder)) as store:
            return str(store.get("writer") or "unknown")
    except (IclError, sqlite3.Error):  # it has the lock, and the store is only being made
        return "unknown"


def damaged(folder: Path, error: sqlite3.Error) -> IclError:
    return IclError(f"{folder / STORE}: {error}\n  The run store cannot be used: free some space, or give --out a new folder.")


def _rows(cell: str, predictions: Mapping[int, Prediction]) -> list[tuple[Any, ...]]:
    return [(cell, at, _storable(p.uid), _storable(p.answer), _storable(p.why), to_json(p)) for at, p in predictions.items()]


def _storable(text: str | None) -> str | None:
    """SQLite keeps UTF-8 only; a lone surrogate out of a JSON escape is kept as that escape."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()


def to_json(prediction: Prediction) -> str:
    """A prediction as JSON, without what is empty. Floats keep every bit; ASCII, so that any string survives."""
    value = {f.name: getattr(prediction, f.name) for f in dataclasses.fields(Prediction)}
    value = {name: part for name, part in value.items() if part is not None and part != () and part is not False and part != 0}
    if prediction.scores is not None:
        value["scores"] = {name: part for name, part in dataclasses.asdict(prediction.scores).items() if part != ()}
    if prediction.probabilities is not None:
        value["probabilities"] = {str(label): float(p) for label, p in prediction.probabilities.items()}
    return json.dumps(value, separators=(",", ":"))


def from_json(text: str) -> Prediction:
    """The other half of `to_json`."""
    value: dict[str, Any] = {"answer": None, **json.loads(text)}
    if "scores" in value:
        scores: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value["scores"].items()}
        nested = {name: tuple(map(tuple, scores.get(name, ()))) for name in ("parts", "groups")}
        value["scores"] = LabelScores(**{**scores, **nested})
    for name in ("candidates", "demonstrations"):
        value[name] = tuple(value.get(name, ()))
    value["steps"] = tuple(Step(*step) for step in value.get("steps", ()))
    return Prediction(**value)
