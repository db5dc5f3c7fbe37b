"""Plain texts to pretrain on: read one document at a time, some held out by their hash, all tokenised once.

Texts may be larger than memory: they are read as a stream, twice, and their tokens are read from a file that is mapped into memory.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem
from ..files import atomic_write, write_text
from ..progress import note

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PLAIN = (".txt", ".md")
PIECE = 8_000
"""Characters after which a document of a plain file ends at the next blank line."""
AT_ONCE = 64
"""Documents that are tokenised together."""
TOKENS, ENDS = "tokens.u32", "ends.json"


def read_documents(files: Sequence[Path], field: str) -> Iterator[str]:
    """The documents of some files, one after the other; empty ones are left out.

    Files of rows (CSV, TSV, JSONL, Parquet): one document a row, its column `field`. Plain files (.txt, .md): cut at blank lines into
    documents of 8,000 characters or a little more. Raises InputError for a file that is not there, and for a row without the column.
    """
    for file in files:
        for text in _plain(file) if file.suffix.lower() in PLAIN else _column(file, field):
            # Half a surrogate pair, as broken JSON gives, is no text for a tokenizer.
            clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
            if clean:
                yield clean


def _column(file: Path, field: str) -> Iterator[str]:
    from ..data.rows import stream

    for line, row in stream(file):
        if field not in row:
            message = f"there is no column '{field}', only {', '.join(map(repr, row))}"
            raise InputError(Problem(message, "Name the column with the text: --field.", str(file), line, field="field"))
        if row[field] is not None:
            yield str(row[field])


def _plain(file: Path) -> Iterator[str]:
    from ..data.rows import check_file

    check_file(file)
    lines: list[str] = []
    size = 0
    with file.open(encoding="utf-8-sig", errors="replace") as opened:
        for line in opened:
            if size >= PIECE and not line.strip():
                yield "".join(lines)
                lines, size = [], 0
            lines.append(line)
            size += len(line)
    yield "".join(lines)


def hash_of(text: str) -> str:
    """Of a document: letters and digits count alone, so that one printed in another way is the same."""
    return hashlib.blake2b("".join(c for c in text.casefold() if c.isalnum()).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class HeldOut:
    """Documents that are only measured on."""

    texts: tuple[str, ...]
    hashes: frozenset[str]
    n_train: int
    """Documents left for training, repeated ones included."""

    def rest(self, documents: Iterable[str]) -> Iterator[str]:
        """The documents that are not among them."""
        return (text for text in documents if hash_of(text) not in self.hashes)


def hold_out(documents: Iterable[str], most: int) -> HeldOut:
    """The tenth of the documents with the lowest hashes, `most` at most: the same ones whatever their order, and whatever is added
    changes few of them. Raises InputError for fewer than two different documents."""
    lowest: list[tuple[int, str, str]] = []
    held: set[str] = set()
    n, different = 0, set()
    for text in documents:
        n += 1
        key = hash_of(text)
        different.add(key)
        item = (-int(key, 16), key, text)
        if key in held or (len(lowest) == most and item <= lowest[0]):
            continue
        held.add(key)
        if len(lowest) < most:
            heapq.heappush(lowest, item)
        else:
            held.discard(heapq.heapreplace(lowest, item)[1])
    if len(different) < 2:
        message = f"there are {len(different)} documents, and some must be held out to measure on"
        raise InputError(Problem(message, "Give more text, or other documents to measure on: --eval.", field="text"))
    chosen = sorted(lowest, reverse=True)[: min(most, max(1, len(different) // 10))]
    return HeldOut(tuple(text for _, _, text in chosen), frozenset(key for _, key, _ in chosen), n)


def given_out(documents: Iterable[str], others: Iterable[str], most: int) -> HeldOut:
    """Documents of other files to measure on, the first `most` of them; none of them is trained on."""
    texts: list[str] = []
    hashes = set()
    for text in others:
        hashes.add(hash_of(text))
        if len(texts) < most:
            texts.append(text)
    if not texts:
        raise InputError(Problem("there is no document to measure on", "Give other files, or leave --eval out.", field="eval"))
    return HeldOut(tuple(texts), frozenset(hashes), sum(1 for _ in documents))


@dataclass(frozen=True)
class Tokens:
    """Documents as token ids, in a file that is mapped into memory."""

    ids: NDArray[np.uint32]
    """(n_tokens,) of all documents, one after the other."""
    ends: NDArray[np.int64]
    """(n_documents,) where each of them ends."""

    def lengths(self) -> NDArray[np.int64]:
        """(n_documents,) tokens of each."""
        import numpy as np

        return np.diff(self.ends, prepend=0)


def tokenise(documents: Iterable[str], encode: Callable[[Sequence[str]], Sequence[Sequence[int]]], folder: Path) -> Tokens:
    """Encode the documents into a file of the folder, or open the one that is there, whole."""
    import numpy as np

    path = folder / TOKENS
    if not (folder / ENDS).is_file():
        ends: list[int] = [0]
        waiting = iter(documents)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            while texts := list(islice(waiting, AT_ONCE)):
                for ids in encode(texts):
                    file.write(np.asarray(ids, dtype="<u4").tobytes())
                    ends.append(ends[-1] + len(ids))
        write_text(folder / ENDS, json.dumps(ends[1:]))
        note(f"{len(ends) - 1:,} documents are {ends[-1]:,} tokens")
    found = json.loads((folder / ENDS).read_text(encoding="utf-8"))
    mapped: Any = np.memmap(path, dtype="<u4", mode="r") if path.stat().st_size else np.zeros(0, dtype="<u4")
    return Tokens(mapped, np.asarray(found, dtype=np.int64))
