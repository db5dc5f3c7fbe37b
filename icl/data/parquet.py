"""Parquet files, by pyarrow (an extra)."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, MissingExtraError, Problem
from .rows import Rows


def read_parquet(path: Path) -> Rows:
    """Rows in batches, numbered from 1; a dictionary column comes as its values."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("pyarrow", "data", f"reading the Parquet file '{path}'") from None
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise InputError(
                    Problem(f"the column '{name}' stands more than once", "Give every column its own name.", str(path), field=name)
                    for name in twice
                )
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            Problem(f"not a readable Parquet file: {message}", "Write the file again; it may be damaged or cut short.", str(path))
        ) from None
