"""An index on disk: rows, vectors and a manifest in one folder.

    manifest.json          sizes and sha256 of the files below, encoder, versions, and a digest of itself; written last, in one rename
    rows-TAG.jsonl         one row a line, in index order
    rows-TAG.table         int64 (n, 3): id, byte offset where the line ends, first 8 bytes of the line's blake2b
    vectors-TAG.f32        float32 little-endian (n, d), unit vectors, in index order
    vectors-TAG.sums       first 8 bytes of the blake2b of every block of 64 KiB of the vectors

TAG is a piece of the content's sha256, so a new version never touches the files of the old one: whoever is killed while saving
leaves the old index or the new one, and a reader keeps the files it has open. No pickle, nothing that FAISS would have to parse.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, Problem
from ..files import fsync, sha256_file, write_text
from ..seeds import numpy_rng_for
from ..values import Example, digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANIFEST = "manifest.json"
SCHEMA: Literal[1] = 1
BLOCK_BYTES = 1 << 16
SAMPLED_BLOCKS = 64
_OURS = re.compile(r"(rows|vectors)-[0-9a-f]{16}\.(jsonl|table|f32|sums)")
REBUILD = "Something changed the files after they were written. Build the index again: icl index build FILE --to {}"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FileEntry(_Strict):
    name: str = Field(pattern=f"^{_OURS.pattern}$")
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class EncoderEntry(_Strict):
    name: str
    fingerprint: str


class Files(_Strict):
    rows: FileEntry
    table: FileEntry
    vectors: FileEntry
    sums: FileEntry


class Manifest(_Strict):
    """What `manifest.json` holds."""

    schema_: Literal[1] = Field(alias="schema")
    n: int = Field(ge=0)
    d: int = Field(ge=1)
    metric: Literal["inner product of unit vectors"] = "inner product of unit vectors"
    next_id: int = Field(ge=0)
    encoder: EncoderEntry
    versions: dict[str, str]
    files: Files
    digest: str

    def body(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude={"digest"})


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


def write(
    folder: Path,
    examples: Sequence[Example],
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    *,
    next_id: int,
    encoder: EncoderEntry,
    versions: dict[str, str],
) -> Manifest:
    """Write a new version beside the old one, switch to it in one rename, remove the old one's files."""
    import numpy as np
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    table = np.empty((len(examples), 3), dtype="<i8")

    def lines() -> Iterator[bytes]:
        end = 0
        for i, example in enumerate(examples):
            line = row_line(int(ids[i]), example)
            end += len(line)
            table[i] = ids[i], end, line_sum(line)
            yield line

    def blocks() -> Iterator[bytes]:
        rows = max(1, (8 << 20) // (4 * vectors.shape[1]))
        for start in range(0, len(vectors), rows):
            yield vectors[start : start + rows].astype("<f4", copy=False).tobytes()

    with FileLock(folder / ".lock"):
        rows_entry = _write_file(folder, "rows", "jsonl", lines())
        vectors_entry = _write_file(folder, "vectors", "f32", blocks())
        files = Files(
            rows=rows_entry,
            table=_write_file(folder, "rows", "table", [table.tobytes()]),
            vectors=vectors_entry,
            sums=_write_file(folder, "vectors", "sums", [b"".join(_block_sums(folder / vectors_entry.name))]),
        )
        fsync(folder)
        manifest = Manifest(
            schema=SCHEMA, n=len(examples), d=vectors.shape[1], next_id=next_id, encoder=encoder, versions=versions, files=files, digest=""
        )
        manifest = manifest.model_copy(update={"digest": digest(manifest.body(), 32)})
        write_text(folder / MANIFEST, json.dumps(manifest.model_dump(by_alias=True), indent=2, ensure_ascii=False) + "\n")
        kept = {entry.name for entry in _entries(files)}
        for path in folder.iterdir():
            # The old version, and what a killed process left.
            if (_OURS.fullmatch(path.name) and path.name not in kept) or path.match(f".{MANIFEST}.*.tmp"):
                path.unlink(missing_ok=True)
    return manifest


def _write_file(folder: Path, stem: str, suffix: str, parts: Iterable[bytes]) -> FileEntry:
    """A file named after its content, on the disk before the manifest names it."""
    total, size = hashlib.sha256(), 0
    temporary = folder / f".{stem}.{suffix}.tmp"
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
                total.update(part)
                size += len(part)
            file.flush()
            os.fsync(file.fileno())
        entry = FileEntry(name=f"{stem}-{total.hexdigest()[:16]}.{suffix}", bytes=size, sha256=total.hexdigest())
        temporary.replace(folder / entry.name)
    finally:
        temporary.unlink(missing_ok=True)
    return entry


def _block_sums(vectors: Path) -> Iterator[bytes]:
    with open(vectors, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield _block_sum(block)


def _block_sum(block: bytes) -> bytes:
    return hashlib.blake2b(block, digest_size=8).digest()


def _entries(files: Files) -> tuple[FileEntry, ...]:
    return files.rows, files.table, files.vectors, files.sums


@dataclass(frozen=True, slots=True)
class Opened:
    """A folder that passed the quick checks; vectors are mapped, rows are read when asked for."""

    manifest: Manifest
    examples: StoredRows
    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]


def open_folder(folder: Path) -> Opened:
    """Map an index. Checked here: the manifest, every size, the row table and block sums whole, and a sample of 64 blocks and rows.

    Raises InputError that names the file and the fix.
    """
    import numpy as np

    manifest = read_manifest(folder)
    _check_sizes(folder, manifest)
    files = manifest.files
    for entry in (files.table, files.sums):
        _check_sha256(folder, entry)
    vectors = _mapped(folder / files.vectors.name, "<f4").reshape(manifest.n, manifest.d)
    table = np.fromfile(folder / files.table.name, dtype="<i8").reshape(manifest.n, 3)
    rows = StoredRows(folder / files.rows.name, table, files.rows.sha256)
    sums = (folder / files.sums.name).read_bytes()
    flat = vectors.reshape(-1).view(np.uint8)
    chosen = numpy_rng_for(0, manifest.digest)
    n_blocks = len(sums) // 8
    for i in chosen.choice(n_blocks, min(SAMPLED_BLOCKS, n_blocks), replace=False) if n_blocks else ():
        if _block_sum(flat[i * BLOCK_BYTES : (i + 1) * BLOCK_BYTES].tobytes()) != sums[i * 8 : i * 8 + 8]:
            raise damaged(folder / files.vectors.name, f"block {i} does not have its check sum")
    for i in chosen.choice(manifest.n, min(SAMPLED_BLOCKS, manifest.n), replace=False) if manifest.n else ():
        rows.read(int(i))
    return Opened(manifest, rows, table[:, 0].astype(np.int64), vectors)


def check_everything(folder: Path) -> None:
    """The quick checks, then the sha256 of every file, and that ids and uids are unique. Raises InputError."""
    opened = open_folder(folder)
    for entry in _entries(opened.manifest.files):
        _check_sha256(folder, entry)
    rows = folder / opened.manifest.files.rows.name
    ids = set(opened.ids.tolist())
    if len(ids) != opened.manifest.n or (ids and not 0 <= min(ids) <= max(ids) < opened.manifest.next_id):
        raise damaged(folder / opened.manifest.files.table.name, "the row ids are not unique, or beyond the next one")
    if len({example.uid for example in opened.examples}) != opened.manifest.n:
        raise damaged(rows, "two rows have the same uid")


def read_manifest(folder: Path) -> Manifest:
    """The manifest, checked against its own digest. Raises InputError."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(
            Problem(
                "there is no index: the folder does not exist",
                f"Build it with: icl index build FILE --to {folder}, or give the right path.",
                str(folder),
            )
        )
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            Problem(
                f"the folder holds no index: it has no {MANIFEST}",
                f"Build one with: icl index build FILE --to {folder}, or give the right path.",
                str(folder),
            )
        ) from None
    except OSError as error:
        raise InputError(Problem(f"the index cannot be read: {error.strerror}", REBUILD.format(path.parent), str(path))) from None
    try:
        value = json.loads(text)
        if isinstance(value, dict) and isinstance(value.get("schema"), int) and value["schema"] > SCHEMA:
            raise InputError(
                Problem(
                    f"the index has schema {value['schema']}, this version reads {SCHEMA}",
                    "Update icl, or build the index again.",
                    str(path),
                )
            )
        manifest = Manifest.model_validate(value)
    except (ValueError, RecursionError, ValidationError):
        raise damaged(path, "it is not the manifest of an index") from None
    if digest(manifest.body(), 32) != manifest.digest:
        raise damaged(path, "it does not have its own digest")
    return manifest


def _check_sizes(folder: Path, manifest: Manifest) -> None:
    files = manifest.files
    for entry in _entries(files):
        path = folder / entry.name
        if not path.is_file() or path.is_symlink():
            raise damaged(path, "the file is missing")
        if path.stat().st_size != entry.bytes:
            raise damaged(path, f"it has {path.stat().st_size} bytes, the manifest says {entry.bytes}")
    n_bytes = manifest.n * manifest.d * 4
    if files.vectors.bytes != n_bytes or files.table.bytes != manifest.n * 24 or files.sums.bytes != -(-n_bytes // BLOCK_BYTES) * 8:
        raise damaged(folder / MANIFEST, f"{manifest.n} rows of {manifest.d} dimensions do not make files of the sizes it names")


def _check_sha256(folder: Path, entry: FileEntry) -> None:
    if sha256_file(folder / entry.name) != entry.sha256:
        raise damaged(folder / entry.name, "its content is not what was written (sha256)")


def damaged(path: Path, what: str) -> InputError:
    """The error for a file of an index that is not what was written."""
    return InputError(Problem(f"the index is damaged: {what}", REBUILD.format(path.parent), str(path)))


def _mapped(path: Path, dtype: str) -> NDArray[Any]:
    import numpy as np

    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


class StoredRows(Sequence[Example]):
    """The rows of a folder; a row is read, and checked, when it is asked for, and then kept."""

    def __init__(self, path: Path, table: NDArray[np.int64], sha256: str) -> None:
        self._path, self._table = path, table
        self.sha256 = sha256
        self._bytes = _mapped(path, "u1")
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
        position = range(len(self))[i]
        kept = self._kept[position]
        if kept is None:
            kept = self._kept[position] = self.read(position)
        return kept

    def read(self, i: int) -> Example:
        """Row i from the file. Raises InputError if it is not what was written."""
        start = int(self._table[i - 1, 1]) if i else 0
        row_id, end, check_sum = (int(value) for value in self._table[i])
        line = self._bytes[start:end].tobytes() if 0 <= start <= end else b""
        if line_sum(line) == check_sum:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                found, example = read_row(line)
                if found == row_id:
                    return example
        raise InputError(
            Problem("the index is damaged: the row is not what was written", REBUILD.format(self._path.parent), str(self._path), i + 1)
        )
