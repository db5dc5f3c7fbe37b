"""Rows out of files, tables in memory, and hub data sets: `(line, {column: value})`, nothing guessed about types.

What is wrong with a file as a whole (not UTF-8, not JSON, ragged, two columns of one name) is an InputError that lists up to 20
places; what is wrong with one row's values is for `examples.py` to reject and count.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import InputError, Problem
from ..files import neighbours

MAX_PROBLEMS = 20
Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = "Iterator[tuple[int, Row]]"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Number(str):
    """A JSON number as it is written: `1.50` stays `1.50` where a label or an answer is meant."""

    __slots__ = ()


@dataclass
class Trouble:
    """The problems of one file, raised together."""

    file: str
    problems: list[Problem] = field(default_factory=list)

    def add(self, message: str, fix: str, line: int | None = None, column: str | None = None) -> None:
        """Note a problem. Raises InputError when there are 20: the rest of such a file is not worth reading."""
        self.problems.append(Problem(message, fix, self.file, line, column))
        if len(self.problems) >= MAX_PROBLEMS:
            self.problems.append(Problem(f"stopped after {MAX_PROBLEMS} problems; there may be more", "", self.file))
            raise InputError(self.problems)

    def raise_any(self) -> None:
        if self.problems:
            raise InputError(self.problems)


@dataclass(frozen=True)
class Table:
    """All rows of one source."""

    name: str
    """The file as the user wrote it, or what the rows are (`list of rows`, `dataframe`, `hf:…`)."""
    rows: list[tuple[int, Row]]
    """(line in the file, or row number from 1 where there are no lines; column -> value)."""
    columns: tuple[str, ...]
    """In the order of their first appearance."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """What the manifest records of where they came from."""


def read_rows(path: Path | str) -> Rows:
    """Stream `(line, row)` of a .csv, .tsv, .jsonl, .ndjson, .json or .parquet file. JSON numbers come as int or float.

    Lines count from 1; in .parquet, rows do. A row is yielded only while nothing is wrong with the file so far. Raises InputError
    (file, line, fix; up to 20 problems at once) for a file that is missing, empty, not UTF-8, not valid, or ragged.
    """
    for line, row in stream(path):
        yield line, {key: plain(value) for key, value in row.items()}


def plain(value: Any) -> Any:
    """Written numbers as numbers, at any depth. A number too large for a float stays text."""
    if isinstance(value, Number):
        try:
            number = float(value) if any(c in value for c in ".eE") else int(value)
        except ValueError:  # more digits than Python turns into an int
            return str(value)
        return number if abs(number) != float("inf") else str(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def stream(path: Path | str) -> Rows:
    """As `read_rows`, with JSON numbers as they are written (`Number`)."""
    from . import delimited, jsonfile, parquet

    readers = {
        ".csv": delimited.read_csv,
        ".tsv": delimited.read_tsv,
        ".jsonl": jsonfile.read_jsonl,
        ".ndjson": jsonfile.read_jsonl,
        ".json": jsonfile.read_json,
        ".parquet": parquet.read_parquet,
    }
    path = Path(path)
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            Problem(f"the ending '{path.suffix}' names no format of rows", f"Use one of {', '.join(readers)}.", str(path), field="file")
        )
    check_file(path)
    return reader(path)


def check_file(path: Path) -> None:
    """Raises InputError if the file is missing, a folder, unreadable, empty, or UTF-16."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise InputError(Problem("the file does not exist", neighbours(path), str(path))) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(Problem(f"the file cannot be read: {reason}", "Give the path of a readable file.", str(path))) from None
    if not head.removeprefix(codecs.BOM_UTF8).strip():
        raise InputError(Problem("the file is empty", "Give a file with at least one row.", str(path), 1))
    if head.startswith(_UTF16) and path.suffix.lower() != ".parquet":
        raise InputError(
            Problem("the file is UTF-16, not UTF-8", "Save it as UTF-8 (for example: iconv -f utf-16 -t utf-8).", str(path), 1)
        )


def text_lines(path: Path, trouble: Trouble) -> Iterator[str]:
    """The lines of a UTF-8 file with their line ends (split at LF alone, so that quoted CR and U+2028 survive), without a BOM.

    A line that is not UTF-8 is noted in `trouble` and comes with replacement characters, so that later problems are found too.
    """
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                yield raw.decode("utf-8")
            except UnicodeDecodeError as error:
                trouble.add(
                    f"byte 0x{raw[error.start]:02x} is not UTF-8", "Save the file as UTF-8 (for example: iconv -f latin1 -t utf-8).", number
                )
                yield raw.decode("utf-8", "replace")


def table(name: str, rows: Iterable[tuple[int, Row]], origin: Mapping[str, Any] | None = None) -> Table:
    """Collect rows. Raises InputError if there are none."""
    kept = list(rows)
    if not kept:
        raise InputError(Problem("there is no row", "Give at least one row of data (below the header line, in CSV and TSV).", name))
    columns: dict[str, None] = {}
    for _, row in kept:
        columns.update(dict.fromkeys(row))
    return Table(name, kept, tuple(columns), origin or {"file": name})
