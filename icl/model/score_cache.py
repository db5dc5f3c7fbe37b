"""Scores and answers on disk, so that a changed suite computes only what changed: one SQLite file for all models and processes.

An entry is a whole planned batch (or a whole group of prompts that are written together), never a part of one: what a batch gives
may depend on its members in the last digits, and results must be the same bytes whether they were computed or found. Keys are digests
of all that goes into the batch. It is only a cache: a damaged entry is computed again, a damaged file is set aside, and where nothing
can be written the work goes on without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import InputError, Problem
from ..files import cache_folder
from ..progress import note
from .cache_keys import batch_key, text_key
from .limits import parse_memory

__all__ = ["ScoreCache", "batch_key", "cached_group", "describe", "open_cache", "text_key"]

LIMIT = "1GiB"
WAIT_S = 15.0
"""How long to wait for another process that is writing."""
KEYS_A_QUERY = 500
DAY_S = 86_400
EVICTED_TO = 0.9
"""Share of the limit that an eviction leaves, so that the next one is a while away."""
FILE = "scores-1.sqlite"
"""The number is that of the table's layout: another layout is another file."""
_TABLES = (
    "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL, check_sum BLOB NOT NULL, used INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS by_use ON entries (used)",
)
_NOT_THE_FILE = tuple(
    f"SQLITE_{name}" for name in ("BUSY", "LOCKED", "FULL", "READONLY", "CANTOPEN", "IOERR", "PERM", "AUTH", "NOMEM", "PROTOCOL")
)
"""Errors that are not of the file's content. All our statements are fixed, so any other error means that it is damaged."""
_OFF = ("0", "off", "no", "false")
T = TypeVar("T")


@dataclass
class _Link:
    """A process's connection. It is not handed on to a forked child: SQLite forbids it."""

    pid: int = field(default_factory=os.getpid)
    lock: threading.Lock = field(default_factory=threading.Lock)
    db: sqlite3.Connection | None = None
    inode: int | None = None
    """Of the file that is open: another process may have set it aside meanwhile."""

    def close(self) -> None:
        if self.db is not None and self.pid == os.getpid():
            with suppress(sqlite3.Error):
                self.db.close()
            self.db = None


_INHERITED: list[_Link] = []
"""Connections of the parent process, never closed here: closing them would let go of the parent's locks."""


class ScoreCache:
    """Entries by key. For any number of threads and processes; no method raises for a cache that is broken, locked, full or read-only:
    it says so once and stores nothing from then on.

    folder: where the folder `scores` is made. limit: bytes; beyond it, what was used longest ago (by day) is removed.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.path = folder / "scores" / FILE
        self.limit = limit
        self.hits = self.misses = 0
        """Entries looked for, since this object was made."""
        self._off = False
        self._link = _Link()
        self._finalizer = weakref.finalize(self, _Link.close, self._link)

    def get(self, keys: Sequence[bytes]) -> list[list[float] | None]:
        """The scores stored under each key, bit for bit; None where there are none."""
        return [None if raw is None else np.frombuffer(raw, dtype="<f8").tolist() for raw in self._read(b"scores", keys)]

    def put(self, entries: Sequence[tuple[bytes, Sequence[float]]]) -> None:
        """Store them in one transaction: all or none."""
        self._write(b"scores", [(key, np.asarray(values, dtype="<f8").tobytes()) for key, values in entries])

    def get_texts(self, keys: Sequence[bytes]) -> list[list[str] | None]:
        """The texts stored under each key; None where there are none."""
        return [None if raw is None else json.loads(raw) for raw in self._read(b"texts", keys)]

    def put_texts(self, entries: Sequence[tuple[bytes, Sequence[str]]]) -> None:
        """Store them in one transaction: all or none."""
        self._write(b"texts", [(key, json.dumps(list(texts)).encode("ascii")) for key, texts in entries])

    def size(self) -> tuple[int, int] | None:
        """(entries, bytes); None if there is no cache, or it cannot be read."""
        if not self.path.exists():
            return None
        return self._with_db(lambda db: (int(db.execute("SELECT COUNT(*) FROM entries").fetchone()[0]), _bytes_used(db)), None)

    def close(self) -> None:
        """Let go of the file. The next call opens it again."""
        with self._own_link().lock:
            self._link.close()

    def _read(self, kind: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, bytes] = {}

        def work(db: sqlite3.Connection) -> None:
            today, stale = int(time.time() // DAY_S), []
            for start in range(0, len(wanted), KEYS_A_QUERY):
                part = wanted[start : start + KEYS_A_QUERY]
                marks = ",".join("?" * len(part))
                for key, value, check_sum, used in db.execute(f"SELECT * FROM entries WHERE key IN ({marks})", part):
                    # The check is also over the key and the kind: a damaged index may lead to another row.
                    if isinstance(value, bytes) and check_sum == _check_sum(kind, key, value):
                        found[key] = value
                        if used != today:
                            stale.append((today, key))
            if stale:
                with suppress(sqlite3.OperationalError), _transaction(db):  # what was found counts, also where nothing can be written
                    db.executemany("UPDATE entries SET used = ? WHERE key = ?", stale)

        if wanted and self.path.exists():
            self._with_db(work, None)
        result = [found.get(key) for key in keys]
        missing = result.count(None)
        self.hits += len(result) - missing
        self.misses += missing
        return result

    def _write(self, kind: bytes, entries: Sequence[tuple[bytes, bytes]]) -> None:
        today = int(time.time() // DAY_S)
        rows = [(key, value, _check_sum(kind, key, value), today) for key, value in entries]

        def work(db: sqlite3.Connection) -> None:
            with _transaction(db):
                db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", rows)
                _evict(db, self.limit)

        if rows:
            self._with_db(work, None)

    def _own_link(self) -> _Link:
        if self._link.pid != os.getpid():
            _INHERITED.append(self._link)
            self._finalizer.detach()
            self._link = _Link()
            self._finalizer = weakref.finalize(self, _Link.close, self._link)
        return self._link

    def _with_db(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What `work` gives on an open file. A damaged file is set aside first, one that was moved away is opened anew."""
        link = self._own_link()
        with link.lock:
            for is_last in (False, True):
                if self._off:
                    break
                try:
                    return work(self._opened(link))
                except (sqlite3.Error, OSError, UnicodeError) as error:  # UnicodeError: a message that quotes a damaged table's name
                    link.close()
                    if _is_damage(error) and not is_last:
                        self._set_aside(link.inode, error)
                    else:
                        self._off = True
                        note(f"the cache of scores '{self.path}' is not used: {error}")
        return otherwise

    def _opened(self, link: _Link) -> sqlite3.Connection:
        if link.db is not None and self._inode() != link.inode:
            link.close()  # set aside by another process, or deleted: what is written there would be lost
        if link.db is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            link.db = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
            link.inode = self._inode()
            link.db.text_factory = bytes
            with suppress(sqlite3.OperationalError):  # two processes that begin a file at once: one of them sets it for both
                link.db.execute("PRAGMA journal_mode=WAL")
            link.db.execute("PRAGMA synchronous=NORMAL")
            link.db.execute(f"PRAGMA journal_size_limit={16 << 20}")
            for statement in _TABLES:
                link.db.execute(statement)
        return link.db

    def _inode(self) -> int | None:
        try:
            return self.path.stat().st_ino
        except FileNotFoundError:
            return None

    def _set_aside(self, inode: int | None, error: Exception) -> None:
        """Move the folder away, whole: a new file must not meet the log of the old one."""
        folder = self.path.parent
        aside = folder.with_name(f"{folder.name}.damaged")
        try:
            if self._inode() != inode:
                return  # another process has done it already
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        except FileNotFoundError:  # as above, a moment later
            return
        except OSError as failure:
            self._off = True
            note(f"the cache of scores '{self.path}' is damaged ({error}), and not used: {failure}")
            return
        note(f"the cache of scores '{self.path}' was damaged ({error}): it is begun anew, the old one lies in '{aside}'")


def open_cache(folder: Path | None = None) -> ScoreCache | None:
    """The cache under a folder, by default `files.cache_folder()`; None where `ICL_CACHE=0` switches it off.

    Nothing is opened or written before the first use. Raises InputError if `ICL_CACHE_LIMIT` is no size.
    """
    if os.environ.get("ICL_CACHE", "").strip().lower() in _OFF:
        return None
    given = os.environ.get("ICL_CACHE_LIMIT") or LIMIT
    try:
        limit = parse_memory(given)
    except InputError:
        fix = "Write for example ICL_CACHE_LIMIT=500MiB; ICL_CACHE=0 switches the cache off."
        raise InputError(Problem(f"'{given}' is no size", fix, field="ICL_CACHE_LIMIT")) from None
    return ScoreCache(folder or cache_folder(), limit)


def cached_group(
    cache: ScoreCache | None, key: bytes, compute: Callable[[], list[list[str]]], unplanned: Callable[[], int] = int
) -> list[list[str]]:
    """The texts of a group of prompts, n for each: those stored under `text_key` of the whole group, else computed and stored.

    If `compute` raises, or `unplanned()` gives another number behind it than before, nothing is stored.
    """
    if cache is None:
        return compute()
    stored = cache.get_texts([key])[0]
    if stored is not None:
        return [json.loads(texts) for texts in stored]
    before = unplanned()
    group = compute()
    if unplanned() != before:
        return group
    cache.put_texts([(key, [json.dumps(texts) for texts in group])])
    return group


def describe(folder: Path | None = None) -> str:
    """One line about the cache: where, how large, how large it may become."""
    cache = open_cache(folder)
    if cache is None:
        return "cache of scores: off (ICL_CACHE)"
    size = cache.size()
    cache.close()
    entries, used = size or (0, 0)
    return f"cache of scores: {cache.path.parent}, {entries:,} entries, {used / 2**20:,.1f} of {cache.limit / 2**20:,.0f} MiB"


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    with db:  # commits, or rolls back on any exception
        yield


def _is_damage(error: Exception) -> bool:
    name = getattr(error, "sqlite_errorname", None)
    # A short read: the file ends before its own content does.
    is_short = name == "SQLITE_IOERR_SHORT_READ"
    return isinstance(error, UnicodeError) or is_short or (name is not None and not name.startswith(_NOT_THE_FILE))


def _bytes_used(db: sqlite3.Connection) -> int:
    pages, free, size = (int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size"))
    return (pages - free) * size


def _evict(db: sqlite3.Connection, limit: int) -> None:
    """Remove what was used longest ago, in tenths, once there is more than the limit. Freed pages are used again."""
    if _bytes_used(db) <= limit:
        return
    tenth = db.execute("SELECT COUNT(*) FROM entries").fetchone()[0] // 10 + 1
    while _bytes_used(db) > limit * EVICTED_TO:
        removed = db.execute("DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries ORDER BY used, rowid LIMIT ?)", (tenth,))
        if removed.rowcount <= 0:
            return


def _check_sum(kind: bytes, key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=8, key=key, person=kind).digest()
