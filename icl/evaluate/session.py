"""One session of a run: its folder and store, its work however that ends, and what is written then."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, Problem
from ..files import read_text, write_text
from .compare import keep_tests
from .loop import Stopped
from .manifest import differences
from .pace import UntilSettled
from .partial import keep_plan
from .prepare import Prepared
from .results import MANIFEST, RESULTS, TIMING, assemble, timing, write_json
from .store import RunStore

SUITE = "suite.yaml"


@contextmanager
def opened(folder: Path) -> Iterator[RunStore]:
    """The store, open for writing. A new folder in which no run came to begin is removed again."""
    is_new = not folder.exists()
    with RunStore.open(folder) as store:
        try:
            yield store
        finally:
            has_begun = store.get("manifest") is not None
    if is_new and not has_begun:
        shutil.rmtree(folder, ignore_errors=True)


def begin(prepared: Prepared, store: RunStore, manifest: Mapping[str, Any]) -> None:
    """Begin a run, or go on with it if its manifest is the same. Raises InputError with every difference."""
    folder, loaded = store.folder, prepared.loaded
    now = json.loads(json.dumps(manifest))
    old = store.get("manifest")
    if old is not None and old != now:
        fix = "Give another --out, or bring back what it was."
        head = Problem("this folder holds a run of something else, or made under other conditions", fix, str(folder))
        raise InputError([head, *differences(old, now)])
    store.set("sessions", int(store.get("sessions") or 0) + 1)
    if old is None:
        store.set("manifest", now)
        write_json(folder / MANIFEST, now)
        file = loaded.doc.file
        write_text(
            folder / SUITE, read_text(file) if file is not None else json.dumps(loaded.as_dict(), ensure_ascii=False, indent=1) + "\n"
        )
    keep_tests(prepared, store)
    keep_plan(prepared, store)


@dataclass(frozen=True)
class Ended:
    """How the work of a session ended."""

    interrupted: bool
    stopped: str | None
    next_cost: float | None
    """The cost limit to go on with: twice as much where it was reached."""


def worked(work: Callable[[], None], store: RunStore, started: float, max_cost: float | None) -> Ended:
    """Do the work; however it ends, its seconds are added to those of the sessions before."""
    before = float(store.get("seconds") or 0.0)
    try:
        work()
    except KeyboardInterrupt:
        return Ended(True, None, max_cost)
    except Stopped as error:
        return Ended(False, str(error), 2 * max_cost if max_cost is not None and error.over_cost else max_cost)
    finally:
        store.set("seconds", before + time.perf_counter() - started)
    return Ended(False, None, max_cost)


def written(
    prepared: Prepared, store: RunStore, manifest: Mapping[str, Any], until: UntilSettled | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What results.json, which is written if the run is complete, and timing.json hold."""
    document = assemble(prepared, store, manifest)
    if until is not None and document["complete"] and (early := until.ended(store)):
        document["ended_early"] = early
    clock = {**timing(prepared, store, float(store.get("seconds") or 0.0)), "suite": prepared.loaded.source}
    if document["complete"]:
        write_json(store.folder / RESULTS, document)
    write_json(store.folder / TIMING, clock)
    return document, clock
