"""An index on disk: rows, vectors and a manifest in one folder.

    manifest.json          sizes and sha256 of the files below, encoder, versions, and a digest of itself; written last, in one rename
    rows-TAG.jsonl         one row a line, in index order
    rows-TAG.table         int64 (n, 3): id, byte offset where the line ends, first 8 bytes of the line's blake2b
    vectors-TAG.f32        float32 little-endian (n, d), unit vectors, in index order
    vectors-TAG.sums       first 8 bytes of the blake2b of every block of 64 KiB of the vectors
    search-TAG.faiss       approximate search only: the structure, a FAISS file, which is mapped with the first search
    search-TAG.sums        its blocks' sums

TAG is a piece of the content's sha256, so a new version never touches the files of the old one: whoever is killed while saving
leaves the old index or the new one, and a reader keeps the files it has open. No pickle. With exact search there is nothing that FAISS
would have to parse; its own file is given to it only after its beginning and a sample of its blocks are found to be what was written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, Problem
from ..files import fsync, sha256_file, write_text
from ..seeds import numpy_rng_for
from ..values import Example, digest
from .approximate import Approximate
from .rows import REBUILD, StoredRows, damaged, line_sum, mapped, row_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANIFEST = "manifest.json"
SEARCH_TEMPORARY = ".search.faiss.tmp"
SCHEMA: Literal[1] = 1
BLOCK_BYTES = 1 << 16
SAMPLED_BLOCKS = 64
_OURS = re.compile(r"(rows|vectors|search)-[0-9a-f]{16}\.(jsonl|table|f32|sums|faiss)")


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


class SearchEntry(_Strict):
    """The structure of an approximate search."""

    kind: Literal["hnsw", "ivf"]
    effort: int = Field(ge=1)
    recall: float | None = Field(ge=0, le=1)
    structure: FileEntry
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
    search: SearchEntry | None = None
    """None: exact; then the key is left out."""
    digest: str

    def body(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude={"digest"} if self.search else {"digest", "search"})

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """All files of the index but the manifest."""
        f = self.files
        return (
            (f.rows, f.table, f.vectors, f.sums)
            if self.search is None
            else (f.rows, f.table, f.vectors, f.sums, self.search.structure, self.search.sums)
        )


def write(
    folder: Path,
    examples: Sequence[Example],
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    *,
    next_id: int,
    encoder: EncoderEntry,
    versions: dict[str, str],
    search: Approximate | None = None,
) -> Manifest:
    """Write a new version beside the old one, switch to it in one rename, remove the old one's files. search: covers just these rows."""
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
        found = None if search is None else _write_search(folder, search)
        fsync(folder)
        manifest = Manifest(
            schema=SCHEMA, n=len(examples), d=vectors.shape[1], next_id=next_id, encoder=encoder, versions=versions, files=files,
            search=found, digest="",
        )  # fmt: skip
        manifest = manifest.model_copy(update={"digest": digest(manifest.body(), 32)})
        write_text(folder / MANIFEST, json.dumps({**manifest.body(), "digest": manifest.digest}, indent=2, ensure_ascii=False) + "\n")
        kept = {entry.name for entry in manifest.entries}
        for path in folder.iterdir():
            # The old version, and what a killed process left.
            left = path.name == SEARCH_TEMPORARY or path.match(f".{MANIFEST}.*.tmp")
            if (_OURS.fullmatch(path.name) and path.name not in kept) or left:
                path.unlink(missing_ok=True)
    return manifest


def _write_search(folder: Path, search: Approximate) -> SearchEntry:
    temporary = folder / SEARCH_TEMPORARY
    try:
        search.write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        whole = sha256_file(temporary)
        structure = FileEntry(name=f"search-{whole[:16]}.faiss", bytes=temporary.stat().st_size, sha256=whole)
        temporary.replace(folder / structure.name)
    finally:
        temporary.unlink(missing_ok=True)
    sums = _write_file(folder, "search", "sums", [b"".join(_block_sums(folder / structure.name))])
    return SearchEntry.model_validate(
        {"kind": search.kind, "effort": search.effort, "recall": search.recall, "structure": structure, "sums": sums}
    )


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


@dataclass(frozen=True, slots=True)
class Opened:
    """A folder that passed the quick checks; vectors are mapped, rows are read when asked for."""

    manifest: Manifest
    examples: StoredRows
    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    structure: Approximate | None


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
    vectors = mapped(folder / files.vectors.name, "<f4").reshape(manifest.n, manifest.d)
    table = np.fromfile(folder / files.table.name, dtype="<i8").reshape(manifest.n, 3)
    rows = StoredRows(folder / files.rows.name, table, files.rows.sha256)
    chosen = numpy_rng_for(0, manifest.digest)
    _check_blocks(folder / files.vectors.name, folder / files.sums.name, chosen)
    ids = table[:, 0].astype(np.int64)
    structure = None
    if manifest.search is not None:
        search = manifest.search
        path = folder / search.structure.name
        _check_sha256(folder, search.sums)
        _check_blocks(path, folder / search.sums.name, chosen)
        structure = Approximate(search.kind, manifest.n, ids, search.effort, search.recall, path=path)
    for i in chosen.choice(manifest.n, min(SAMPLED_BLOCKS, manifest.n), replace=False) if manifest.n else ():
        rows.read(int(i))
    return Opened(manifest, rows, ids, vectors, structure)


def _check_blocks(path: Path, sums_path: Path, chosen: np.random.Generator) -> None:
    """The first block and a sample of the others."""
    import numpy as np

    content, sums = mapped(path, "u1"), sums_path.read_bytes()
    n_blocks = len(sums) // 8
    if n_blocks == 0:
        return
    for i in np.union1d([0], chosen.choice(n_blocks, min(SAMPLED_BLOCKS, n_blocks), replace=False)).tolist():
        if _block_sum(content[i * BLOCK_BYTES : (i + 1) * BLOCK_BYTES].tobytes()) != sums[i * 8 : i * 8 + 8]:
            raise damaged(path, f"block {i} does not have its check sum")


def check_everything(folder: Path) -> None:
    """The quick checks, then the sha256 of every file, and that ids and uids are unique. Raises InputError."""
    opened = open_folder(folder)
    for entry in opened.manifest.entries:
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
    for entry in manifest.entries:
        path = folder / entry.name
        if not path.is_file() or path.is_symlink():
            raise damaged(path, "the file is missing")
        if path.stat().st_size != entry.bytes:
            raise damaged(path, f"it has {path.stat().st_size} bytes, the manifest says {entry.bytes}")
    n_bytes = manifest.n * manifest.d * 4
    if manifest.search is not None and manifest.search.sums.bytes != -(-manifest.search.structure.bytes // BLOCK_BYTES) * 8:
        raise damaged(folder / MANIFEST, "the sums of the search structure do not fit its size")
    if files.vectors.bytes != n_bytes or files.table.bytes != manifest.n * 24 or files.sums.bytes != -(-n_bytes // BLOCK_BYTES) * 8:
        raise damaged(folder / MANIFEST, f"{manifest.n} rows of {manifest.d} dimensions do not make files of the sizes it names")


def _check_sha256(folder: Path, entry: FileEntry) -> None:
    if sha256_file(folder / entry.name) != entry.sha256:
        raise damaged(folder / entry.name, "its content is not what was written (sha256)")
