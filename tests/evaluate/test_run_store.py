"""The run store: what goes in comes out, whole units only, one writer."""

import os
import sqlite3
import subprocess
import sys
import time

import pytest

from icl.errors import IclError, InputError
from icl.evaluate.store import STORE, RunStore, from_json, to_json
from icl.values import LabelScores, Prediction

SCORES = LabelScores(
    (" a", " b"), (-0.1234567890123456789, -float("inf")), (1, 2), (1, 1), (1, 1), start=7, straddle=True, conditioned="bos"
)
PREDICTIONS = [
    Prediction("0-0", "a", {"a": 0.1 + 0.2, "b": 5e-324}, ("a", "b"), ("x-0", "y-1"), scores=SCORES, tie=True, n_tokens=9, n_dropped=2),
    Prediction("1-0", None, why="too long: 1\ud800 <b>\0"),
    Prediction("2-0", "", text=""),
]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_prediction_keeps_every_bit(prediction):
    assert from_json(to_json(prediction)) == prediction


def test_units_are_stored_in_the_order_of_the_items(tmp_path):
    with RunStore.open(tmp_path) as store:
        store.add_unit("c", 1, 2, PREDICTIONS[2:], 0.5)
        store.add_unit("c", 0, 0, PREDICTIONS[:2], 0.25)
        store.finish_cell("c", {"n": 1}, {"s": 2.0})
    with RunStore.read_only(tmp_path) as store:
        assert store.predictions("c") == PREDICTIONS
        assert store.units("c") == {0: 0.25, 1: 0.5}
        assert store.finished() == {"c": ({"n": 1}, {"s": 2.0})}


def test_a_unit_is_stored_whole_or_not_at_all(tmp_path):
    with RunStore.open(tmp_path) as store:
        store.add_unit("c", 0, 0, PREDICTIONS[:1], 0.0)
        with pytest.raises(sqlite3.IntegrityError):  # position 0 is taken: our mistake, never a second copy
            store.add_unit("c", 1, 0, PREDICTIONS, 0.0)
        assert store.predictions("c") == PREDICTIONS[:1]
        assert store.units("c") == {0: 0.0}


def test_a_second_writer_is_refused_at_once(tmp_path):
    with RunStore.open(tmp_path):
        started = time.perf_counter()
        with pytest.raises(InputError, match=rf"process {os.getpid()} on "):
            RunStore.open(tmp_path)
        assert time.perf_counter() - started < 1
        with RunStore.read_only(tmp_path) as reader:
            assert reader.predictions("c") == []
    RunStore.open(tmp_path).close()


def test_the_lock_dies_with_its_process(tmp_path):
    code = (
        f"import os; from pathlib import Path; from icl.evaluate.store import RunStore; RunStore.open(Path({str(tmp_path)!r})); os.abort()"
    )
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (tmp_path / STORE).is_file()
    RunStore.open(tmp_path).close()


def test_a_store_that_is_none_is_a_clear_error(tmp_path):
    (tmp_path / STORE).write_bytes(b"not a database at all" * 100)
    with pytest.raises(IclError, match=STORE):
        RunStore.open(tmp_path)
    with pytest.raises(InputError, match="no store"):
        RunStore.read_only(tmp_path / "nowhere")


@pytest.mark.skipif(os.name == "nt", reason="limits the size of files by a POSIX resource limit")
def test_a_full_disk_loses_nothing(tmp_path):
    code = f"""
import resource, signal
from pathlib import Path
from icl.errors import IclError
from icl.evaluate.store import RunStore
from icl.values import Prediction
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = RunStore.open(Path({str(tmp_path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
n = 0
try:
    while n < 10_000:
        store.add_unit("c", n, n, [Prediction(str(n), "x" * 1000)], 0.0)
        n += 1
except IclError as error:
    assert "Free some space" in str(error), error
    print(n)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    with RunStore.open(tmp_path) as store:
        assert 0 < int(out) == len(store.predictions("c"))
        store.add_unit("c", int(out), int(out), PREDICTIONS[:1], 0.0)
