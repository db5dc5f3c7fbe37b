"""The rows of an index on disk: one line of JSON each, read when asked for."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..errors import InputError, Problem
from ..values import Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REBUILD = "Something changed the files after they were written. Build the index again: icl index build FILE --to {}"


def row_line(row_id: int, example: Example) -> bytes:
    """A row as one line of JSON. Fields keep their order: it decides what is embedded."""
    row = {
        "id": row_id,
        "uid": example.uid,
        "fields": {
            name: value if isinstance(value, str | int | float) else [dict(t) for t in value] for name, value in example.fields.items()
        },
        "target": example.target,
        "choices": list(example.choices),
        "references": list(example.references),
        "rationale": example.rationale,
    }
    try:
        return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair in the text: escaped, the file stays UTF-8
        return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def read_row(line: bytes) -> tuple[int, Example]:
    """The inverse of `row_line`."""
    row = json.loads(line)
    return row["id"], Example(row["uid"], row["fields"], row["target"], tuple(row["choices"]), tuple(row["references"]), row["rationale"])


def line_sum(line: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "little", signed=True)


def rows_sha256(lines: Iterable[bytes]) -> str:
    total = hashlib.sha256()
    for line in lines:
        total.update(line)
    return total.hexdigest()


def damaged(path: Path, what: str) -> InputError:
    """The error for a file of an index that is not what was written."""
    return InputError(Problem(f"the index is damaged: {what}", REBUILD.format(path.parent), str(path)))


def mapped(path: Path, dtype: str) -> NDArray[Any]:
    import numpy as np

    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))  # indexing a memmap costs more than indexing the array it maps


class StoredRows(Sequence[Example]):
    """The rows of a folder; a row is read, and checked, when it is asked for, and then kept."""

    def __init__(self, path: Path, table: NDArray[np.int64], sha256: str) -> None:
        self._path, self._table = path, table
        self.sha256 = sha256
        self._bytes = mapped(path, "u1").data
        self._ends = table[:, 1]
        self._kept: list[Example | None] = [None] * len(table)

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, i: int) -> Example: ...
    @overload
    def __getitem__(self, i: slice) -> list[Example]: ...
    def __getitem__(self, i: int | slice) -> Example | list[Example]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        kept = self._kept[i]
        if kept is None:
            position = range(len(self))[i]
            kept = self._kept[position] = self.read(position)
        return kept

    def read(self, i: int) -> Example:
        """Row i from the file. Raises InputError if it is not what was written."""
        start = self._ends[i - 1].item() if i else 0
        row_id, end, check_sum = self._table[i].tolist()
        line = bytes(self._bytes[start:end]) if 0 <= start <= end else b""
        if line_sum(line) == check_sum:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                found, example = read_row(line)
                if found == row_id:
                    return example
        raise InputError(
            Problem("the index is damaged: the row is not what was written", REBUILD.format(self._path.parent), str(self._path), i + 1)
        )
