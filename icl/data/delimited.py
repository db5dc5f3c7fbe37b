"""CSV and TSV. Every value is the text in the file; a row with the wrong number of columns is a problem, never padded or cut."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from .rows import Rows, Trouble, text_lines

FIELD_LIMIT = 1 << 28
"""Largest field in characters; the csv module's own limit of 128 KB is too small for documents."""


def read_csv(path: Path) -> Rows:
    """Comma-separated, double quotes, header first. If the header has one column and contains `;` (or a tab), that separates."""
    with open(path, "rb") as file:
        head = file.readline()
    delimiter = ","
    if b"," not in head:
        delimiter = next((d for d in (";", "\t") if d.encode() in head), ",")
    return _read(path, delimiter, quoted=True)


def read_tsv(path: Path) -> Rows:
    """Tab-separated, header first. Quoted as in CSV; if that does not parse, quotes are plain characters.

    Many published TSV files (GLUE among them) are written without quoting, so that a field may begin with a lone quote. Such a file
    fails strict parsing as a quoted one.
    """
    return _read(path, "\t", quoted=_parses_quoted(path))


def _parses_quoted(path: Path) -> bool:
    csv.field_size_limit(FIELD_LIMIT)
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter="\t", strict=True)
        try:
            widths = {len(cells) for cells in reader if cells}
        except csv.Error:
            return False
    return len(widths) <= 1 or not _even(path)


def _even(path: Path) -> bool:
    """True if every line has the same number of tabs: then the file is whole without quoting."""
    with open(path, "rb") as file:
        return len({line.count(b"\t") for line in file if line.strip(b"\r\n")}) == 1


def _read(path: Path, delimiter: str, quoted: bool) -> Rows:
    csv.field_size_limit(FIELD_LIMIT)
    trouble = Trouble(str(path))
    header: list[str] | None = None
    for line, cells in _records(path, delimiter, quoted, trouble):
        if header is None:
            header = [name.strip() for name in cells]
            _check_header(header, line, trouble)
        elif len(cells) != len(header):
            trouble.add(
                f"the row has {len(cells)} columns, the header has {len(header)}",
                f"Quote values that contain {'a tab' if delimiter == chr(9) else repr(delimiter)} or a line end, or complete the row.",
                line,
            )
        elif not trouble.problems:
            yield line, dict(zip(header, cells, strict=True))
    trouble.raise_any()


def _records(path: Path, delimiter: str, quoted: bool, trouble: Trouble) -> Iterator[tuple[int, list[str]]]:
    """(first line, cells) of every record that is not blank."""
    lines = text_lines(path, trouble)
    reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            trouble.add(f"not valid {'TSV' if delimiter == chr(9) else 'CSV'}: {error}", _fix_for(str(error)), line)
            if "unexpected end of data" in str(error):
                return
            continue
        if cells:
            yield line, cells


def _fix_for(error: str) -> str:
    if "new-line character" in error:
        return "End lines with LF or CRLF, not with CR alone; put values that contain a CR in double quotes."
    if "field larger" in error:
        return "Look for a double quote that is never closed."
    return 'Put the whole value in double quotes, and write a double quote inside it as "".'


def _check_header(header: list[str], line: int, trouble: Trouble) -> None:
    for name in dict.fromkeys(header):
        if name and header.count(name) > 1:
            trouble.add(f"the header names the column '{name}' {header.count(name)} times", "Give every column its own name.", line, name)
