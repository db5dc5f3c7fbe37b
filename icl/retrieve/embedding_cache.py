"""Vectors on disk by content: one SQLite file per encoder fingerprint, shared by processes, safe to kill at any time.

It is only a cache. A damaged entry is encoded again, a damaged file is set aside, and where nothing can be written the work goes on
without it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import cache_folder, safe_name
from ..progress import note

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WAIT_S = 60.0
"""How long to wait for another process that is writing."""
KEYS_A_QUERY = 500
_SCHEMA = "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, check_sum BLOB NOT NULL)"


def text_key(text: str) -> bytes:
    """What a text is known by in the cache: 16 bytes of blake2b."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class EmbeddingCache:
    """Vectors of one encoder. A connection lives for one call, so threads and forked processes need no care."""

    def __init__(self, fingerprint: str, folder: Path | None = None) -> None:
        self.path = (folder or cache_folder() / "embeddings") / f"{safe_name(fingerprint)}.sqlite"

    def get(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that are there and whole."""
        import numpy as np

        found: dict[bytes, NDArray[np.float32]] = {}
        if not self.path.exists():
            return found
        wanted = list(dict.fromkeys(keys))
        with self._connection() as db:
            if db is None:
                return found
            for start in range(0, len(wanted), KEYS_A_QUERY):
                part = wanted[start : start + KEYS_A_QUERY]
                marks = ",".join("?" * len(part))
                for key, vector, check_sum in db.execute(f"SELECT key, vector, check_sum FROM vectors WHERE key IN ({marks})", part):
                    if _check_sum(key, vector) == check_sum:
                        found[key] = np.frombuffer(vector, dtype="<f4")
        return found

    def put(self, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Store all or none of them."""
        rows = [(key, blob, _check_sum(key, blob)) for key, vector in vectors.items() for blob in (vector.astype("<f4").tobytes(),)]
        with self._connection(write=True) as db:
            if db is not None:
                with db:
                    db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    def dimensions(self) -> int | None:
        """Length of the vectors; None while there are none."""
        row = None
        if self.path.exists():
            with self._connection() as db:
                row = db.execute("SELECT length(vector) FROM vectors LIMIT 1").fetchone() if db else None
        return row[0] // 4 if row else None

    @contextmanager
    def _connection(self, write: bool = False) -> Iterator[sqlite3.Connection | None]:
        """A connection, or None if there can be none. Errors inside the block end it: the cache is skipped, not the work."""
        db: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, timeout=WAIT_S)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            if db is not None:
                db.close()
            self._gave_up(error)
            yield None
            return
        with closing(db):
            try:
                yield db
            except sqlite3.Error as error:
                self._gave_up(error)

    def _gave_up(self, error: Exception) -> None:
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        if damaged:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            note(f"the embedding cache '{self.path}' was damaged ({error}) and is built anew")
        else:
            note(f"the embedding cache '{self.path}' is not used: {error}")


def _check_sum(key: bytes, vector: bytes) -> bytes:
    return hashlib.blake2b(vector, digest_size=8, key=key).digest()
