"""Whatever `Task.load` is given, as a table: a path, `hf:…`, a list of dicts, a dataframe, a hub data set in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, Problem
from .rows import Row, Rows, Table, stream, table

_EXPECTED = "Give a path (.csv, .tsv, .jsonl, .json, .parquet), 'hf:owner/name', a list of dicts, or a dataframe."


def load_table(source: Any, *, split: str, data_root: Path | str | None = None) -> Table:
    """All rows of a source.

    split: which part is meant (train, test, dev, unlabelled): names tables in memory, and picks the hub split where the source
    names none. Raises InputError.
    """
    if isinstance(source, Table):
        return source
    if isinstance(source, str) and source.startswith("hf:"):
        from .hub import load_hub

        return load_hub(source, split=split, data_root=data_root)
    if isinstance(source, str | Path):
        return table(str(source), stream(source))
    if hasattr(source, "column_names") and hasattr(source, "features"):
        from .hub import dataset_rows

        return table(
            f"{split} data set", dataset_rows(source), {"data set": str(getattr(source, "info", None) and source.info.dataset_name)}
        )
    if hasattr(source, "__dataframe__") or hasattr(source, "columns") or hasattr(source, "__arrow_c_stream__"):
        return table(f"{split} dataframe", _frame_rows(source, split), {"dataframe": type(source).__module__.split(".")[0]})
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        return table(f"{split} rows", _mapping_rows(source, split), {"rows": "list"})
    raise InputError(Problem(f"{split}= is a {type(source).__name__}, which holds no rows", _EXPECTED, field=split))


def _mapping_rows(rows: Iterable[Any], split: str) -> Iterator[tuple[int, Row]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise InputError(
                Problem(f"is a {type(row).__name__}, not a dict of columns", _EXPECTED, f"{split} rows", number),
            )
        yield number, {str(key): value for key, value in row.items()}


def _frame_rows(frame: Any, split: str) -> Rows:
    import narwhals as nw

    try:
        wrapped: Any = nw.from_native(frame)
        if isinstance(wrapped, nw.LazyFrame):
            wrapped = wrapped.collect()
        names = [str(name) for name in wrapped.columns]
    except Exception as error:
        # Each dataframe library refuses tables (two columns of one name, above all) by exceptions of its own.
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(Problem(f"not a usable dataframe: {message}", _EXPECTED, f"{split} dataframe")) from None
    for number, values in enumerate(wrapped.iter_rows(), 1):
        yield number, dict(zip(names, values, strict=True))
