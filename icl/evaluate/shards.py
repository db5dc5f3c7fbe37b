"""A run in pieces that other processes do: a cell, or a part of its units, done in a store of its own and put into the run's afterwards."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import replace_folder
from ..plugins import find
from .cells import Cell
from .loop import _Running, units
from .prepare import Prepared
from .store import STORE, RunStore, from_json, to_json

UNITS = 8
"""Units of a prompt method that one piece has; trained methods are one piece, since each piece fits the method anew."""


@dataclass(frozen=True)
class Piece:
    """Some units of a cell."""

    cell: Cell
    units: tuple[int, ...]
    """To be predicted."""
    is_first: bool
    """Whether it also tells the facts of the cell, and saves its predictor."""
    known: tuple[str, ...] = ()
    """Of the first piece: the predictions of unit 0 as JSON, where they are there already."""


@dataclass
class Open:
    """A cell whose pieces are not all there yet."""

    left: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)


def pieces(prepared: Prepared, store: RunStore) -> list[Piece]:
    """What is still to be done, in the order of the cells."""
    finished = store.finished()
    found: list[Piece] = []
    for cell in prepared.cells:
        if cell.key in finished:
            continue
        done = store.units(cell.key)
        ranges = units(len(prepared.tasks[cell.task].test), cell)
        todo = [number for number in range(len(ranges)) if number not in done]
        known = tuple(to_json(p) for p in store.stored(cell.key, ranges[0]).values()) if 0 in done else ()
        whole = cell.model is None or is_trained(prepared, cell)
        size = max(1, len(ranges)) if whole else UNITS
        parts = [tuple(todo[at : at + size]) for at in range(0, len(todo), size)] or [()]
        found += [Piece(cell, part, n == 0, known if n == 0 else ()) for n, part in enumerate(parts)]
    return found


def is_trained(prepared: Prepared, cell: Cell) -> bool:
    """Whether fitting a method is work of its own."""
    from ..train.settings import TrainingSettings

    module = find("method", prepared.method(cell).spec.name, prepared.loaded.plugins).load()
    return bool(getattr(module, "TRAINS", False)) or issubclass(getattr(module, "Settings", object), TrainingSettings)


def do(prepared: Prepared, piece: Piece) -> dict[str, Any]:
    """Do a piece here. Returns what `merge` takes: a store's bytes, and of the first piece facts, timing and the packed predictor."""
    with tempfile.TemporaryDirectory(prefix="icl-piece-") as name:
        folder = Path(name)
        ranges = units(len(prepared.tasks[piece.cell.task].test), piece.cell)
        with RunStore.open(folder) as store:
            if piece.known:
                store.add_unit(piece.cell.key, 0, 0, [from_json(text) for text in piece.known], 0.0)
            others = [n for n in range(len(ranges)) if n not in piece.units and not (n == 0 and piece.known)]
            store.skip_units(piece.cell.key, others)
            _Running(prepared, store, None, saves=piece.is_first).cell(piece.cell, lambda n=1: None)
            ((facts, timing),) = store.finished().values()
        path = facts["predictor"]
        packed = None
        if path is not None:
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                tar.add(folder / path, ".")
            packed = buffer.getvalue()
        return {"store": (folder / STORE).read_bytes(), "facts": facts, "timing": timing, "predictor": packed}


def merge(prepared: Prepared, store: RunStore, piece: Piece, made: Mapping[str, Any], waiting: dict[str, Open]) -> int:
    """Put what a piece made into the run's store; with the last one of its cell the cell is finished. Returns how many items it answered."""
    ranges = units(len(prepared.tasks[piece.cell.task].test), piece.cell)
    with tempfile.TemporaryDirectory(prefix="icl-piece-") as name:
        path = Path(name) / STORE
        path.write_bytes(made["store"])
        store.take(path, piece.cell.key, piece.units)
    if piece.is_first and made["predictor"] is not None:
        _unpack(made["predictor"], store.folder / made["facts"]["predictor"])
    cell = waiting[piece.cell.key]
    cell.left -= 1
    if piece.is_first:
        cell.facts, cell.timing = made["facts"], made["timing"]
    if not cell.left:
        timing = {**cell.timing, "predict_s": sum(store.units(piece.cell.key).values())}
        store.finish_cell(piece.cell.key, cell.facts, timing)
    return sum(len(ranges[n]) for n in piece.units)


def _unpack(packed: bytes, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(staging, filter="data")
    replace_folder(staging, folder)


def waiting_of(todo: Sequence[Piece]) -> dict[str, Open]:
    """Cell -> how many of its pieces are to be done."""
    found: dict[str, Open] = {}
    for piece in todo:
        found.setdefault(piece.cell.key, Open(0)).left += 1
    return found
