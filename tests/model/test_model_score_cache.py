"""The cache of scores and answers: exact, safe with many writers, never in the way, and never larger than it may be."""

import math
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.errors import InputError
from icl.model import score_cache
from icl.model.score_cache import ScoreCache, batch_key, cached_group, describe, open_cache, text_key

ROOT = Path(__file__).resolve().parent.parent.parent
WRITER = """
import sys
from pathlib import Path
from icl.model.score_cache import ScoreCache, batch_key
cache, first, rounds = ScoreCache(Path(sys.argv[1]), 1 << 30), int(sys.argv[2]), int(sys.argv[3])
for start in range(first, first + rounds):
    cache.put([(batch_key(i), [float(i)] * 40) for i in range(start * 20, start * 20 + 40)])
    assert cache.get([batch_key(start * 20)]) == [[start * 20.0] * 40]
    print(start, flush=True)
"""


@pytest.fixture
def cache(tmp_path):
    return ScoreCache(tmp_path, 1 << 30)


@pytest.fixture
def notes(monkeypatch):
    said = []
    monkeypatch.setattr(score_cache, "note", said.append)
    return said


def keys(n):
    return [batch_key(i) for i in range(n)]


def writer(folder, first, rounds):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITER, str(folder), str(first), str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

INTEGERS = st.integers(-(2**31), 2**31 - 1)
PLAIN = INTEGERS | st.text(max_size=4) | st.binary(max_size=4) | st.booleans() | st.none() | st.floats(allow_nan=False)
PARTS = st.lists(st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3), max_leaves=6), max_size=4)


def typed(part):
    """A part such that two are equal exactly if they mean the same: True is not 1, and 0.0 is not -0.0."""
    return [typed(p) for p in part] if isinstance(part, list) else (type(part).__name__, repr(part))


@settings(deadline=None, max_examples=200)
@given(PARTS, PARTS)
def test_keys_are_equal_exactly_if_the_parts_are(left, right):
    assert (batch_key(*left) == batch_key(*right)) == (typed(left) == typed(right))


def test_what_stands_next_to_each_other_is_not_mixed_up():
    alike = [
        (),
        ([],),
        ([[]],),
        ([], []),
        ("",),
        (b"",),
        (0,),
        ([0],),
        (0, 0),
        ([0, 0],),
        ([0], [0]),
        ([[0], [0]],),
        ([[0, 0]],),
        ("0",),
        (b"0",),
        (False,),
        (None,),
        ("None",),
        (0.0,),
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ([1, 2], [3]),
        ([1], [2, 3]),
        (np.zeros((2, 3), np.int32),),
        (np.zeros((3, 2), np.int32),),
        (np.zeros(6, np.int32),),
    ]
    found = [batch_key(*parts) for parts in alike]
    assert len(set(found)) == len(found)
    assert {len(key) for key in found} == {32}


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64, ">i4"])
def test_integers_of_any_width_are_the_same(dtype):
    values = [0, 1, 100, 7]
    assert batch_key(np.array(values, dtype)) == batch_key(values) == batch_key(tuple(values))
    assert batch_key(np.array([values, values], dtype)[:, ::2]) == batch_key(np.array([[0, 100]] * 2))


def test_what_a_key_cannot_be_made_of_is_refused():
    for large in ([2**31], np.array([2**31]), np.array([2**32 - 1], np.uint32), [1, -(2**31) - 1]):
        with pytest.raises(OverflowError, match="32 bits"):
            batch_key(large)
    for strange in (np.array([0.5]), np.array([True]), object(), {"a": 1}):
        with pytest.raises(TypeError, match="a key"):
            batch_key(strange)


def test_every_setting_of_a_text_is_in_its_key():
    base = {"fingerprint": "f", "dtype": "float32", "prompts": [[1, 2], [3]], "n": 2, "temperature": 0.5, "seed": 1, "max_new_tokens": 8}
    base |= {"stop": ["\n"], "constraint": None}
    other = {"fingerprint": "g", "dtype": "bfloat16", "prompts": [[1], [2, 3]], "n": 3, "temperature": 0.6, "seed": 2, "max_new_tokens": 9}
    other |= {"stop": ["\n", "."], "constraint": ["choices", [[1], [2]]]}

    def key(**settings):
        return text_key(settings.pop("fingerprint"), settings.pop("dtype"), settings.pop("prompts"), **settings)

    found = [key(**base), *(key(**{**base, name: value}) for name, value in other.items()), key(**{**base, "prompts": [[3], [1, 2]]})]
    assert len(set(found)) == len(found)
    assert key(**{**base, "temperature": 0, "seed": 1}) == key(**{**base, "temperature": 0.0, "seed": 2}), "greedy text has no seed"


# ── what is stored is found ──────────────────────────────────────────────────────────────────────────────────────────────


def test_scores_are_found_bit_for_bit(cache, tmp_path):
    rng = random.Random(0)
    odd = [0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, -1.7976931348623157e308, -12.345678901234567]
    rows = [[struct.unpack("<d", rng.randbytes(8))[0] for _ in range(rng.randrange(20))] for _ in range(1300)] + [odd]
    assert cache.get(keys(len(rows))) == [None] * len(rows)
    assert not cache.path.exists(), "nothing is made before there is something to store"
    cache.put(list(zip(keys(len(rows)), rows, strict=True)))
    for reader in (cache, ScoreCache(tmp_path, 1 << 30)):
        found = reader.get([*keys(len(rows)), b"not there".ljust(32), batch_key(3)])
        assert [struct.pack(f"<{len(row)}d", *row) for row in found[:-2]] == [struct.pack(f"<{len(row)}d", *row) for row in rows]
        assert found[-2:] == [None, found[3]]
    assert (cache.hits, cache.misses) == (len(rows) + 1, len(rows) + 1)


def test_texts_are_found_as_they_were(cache):
    texts = [["", "a\x00b", "naïve ☃", "\ud800 half a pair", "\n"], []]
    cache.put_texts(list(zip(keys(2), texts, strict=True)))
    assert cache.get_texts(keys(3)) == [*texts, None]
    assert cache.get(keys(2)) == [None, None], "texts are no scores"


def test_a_group_is_computed_once_and_an_error_is_not_stored(cache):
    calls = []

    def compute():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return [["one", "two"], ["\udfff", ""], []]

    with pytest.raises(RuntimeError):
        cached_group(cache, keys(1)[0], compute)
    assert cached_group(cache, keys(1)[0], compute) == compute()
    n_calls = len(calls)
    assert cached_group(cache, keys(1)[0], compute) == [["one", "two"], ["\udfff", ""], []]
    assert len(calls) == n_calls
    assert cached_group(None, keys(1)[0], compute) == compute()


def test_the_environment_switches_it_off_and_limits_it(tmp_path, monkeypatch):
    for off in ("0", "off", " No "):
        monkeypatch.setenv("ICL_CACHE", off)
        assert open_cache(tmp_path) is None
        assert describe(tmp_path) == "cache of scores: off (ICL_CACHE)"
    monkeypatch.setenv("ICL_CACHE", "1")
    monkeypatch.setenv("ICL_HOME", str(tmp_path / "home"))
    assert open_cache().path.is_relative_to(tmp_path / "home")
    assert open_cache().limit == 1 << 30
    monkeypatch.setenv("ICL_CACHE_LIMIT", "5 MiB")
    assert open_cache().limit == 5 << 20
    open_cache().put([(keys(1)[0], [1.0])])
    assert describe() == f"cache of scores: {tmp_path / 'home' / 'scores'}, 1 entries, 0.0 of 5 MiB"
    monkeypatch.setenv("ICL_CACHE_LIMIT", "much")
    with pytest.raises(InputError, match="'much' is no size") as caught:
        open_cache()
    assert caught.value.problems[0].field == "ICL_CACHE_LIMIT"


# ── many at once, and killed ─────────────────────────────────────────────────────────────────────────────────────────────


def test_several_processes_write_and_read_at_once(tmp_path):
    writers = [writer(tmp_path, first, 40) for first in (0, 20, 40)]
    said = [process.communicate(timeout=60) for process in writers]
    assert [(process.returncode, error) for process, (_, error) in zip(writers, said, strict=True)] == [(0, "")] * 3
    assert ScoreCache(tmp_path, 1 << 30).get(keys(81 * 20)) == [[float(i)] * 40 for i in range(81 * 20)]


def test_what_a_killed_writer_reported_is_kept(tmp_path):
    rng = random.Random(0)
    done = 0
    for _ in range(3):
        process = writer(tmp_path, done, 100_000)
        done = int(process.stdout.readline())
        time.sleep(rng.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        done = max([done, *(int(line) for line in process.communicate()[0].split())])
        n = done * 20 + 40
        assert ScoreCache(tmp_path, 1 << 30).get(keys(n)) == [[float(i)] * 40 for i in range(n)]
    assert not (tmp_path / "scores.damaged").exists()


def test_threads_share_one(cache):
    wrong = []

    def work(first):
        for i in range(first, first + 60):
            cache.put([(batch_key(i), [float(i)])])
            if cache.get([batch_key(i), batch_key(first)]) != [[float(i)], [float(first)]]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 50, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.get(keys(160)) == [[float(i)] for i in range(160)]


def test_a_forked_child_has_a_connection_of_its_own(cache):
    cache.put([(batch_key(0), [0.0])])
    child = os.fork()
    if not child:
        fine = cache.get([batch_key(0)]) == [[0.0]]
        cache.put([(batch_key(1), [1.0])])
        os._exit(0 if fine else 1)
    cache.put([(batch_key(2), [2.0])])
    assert os.waitpid(child, 0)[1] == 0
    assert cache.get(keys(3)) == [[0.0], [1.0], [2.0]]


# ── never in the way ─────────────────────────────────────────────────────────────────────────────────────────────────────


def filled(folder, n=400):
    cache = ScoreCache(folder, 1 << 30)
    cache.put([(batch_key(i), [float(i)] * 40) for i in range(n)])
    cache.close()
    return cache.path


@pytest.mark.parametrize("damage", ["no database", "empty", "cut", "folder of the log"])
def test_a_damaged_file_is_set_aside_and_begun_anew(tmp_path, notes, damage):
    path = filled(tmp_path)
    raw = path.read_bytes()
    path.write_bytes({"no database": b"not a database at all" * 500, "empty": b"", "cut": raw[: len(raw) // 2]}.get(damage, raw))
    if damage == "folder of the log":
        path.with_name(path.name + "-wal").write_bytes(random.Random(0).randbytes(100_000))
    cache = ScoreCache(tmp_path, 1 << 30)
    found = cache.get(keys(400))
    assert all(row in (None, [float(i)] * 40) for i, row in enumerate(found))
    cache.put([(batch_key(i), [float(i)] * 40) for i in range(400)])
    assert cache.get(keys(400)) == [[float(i)] * 40 for i in range(400)]
    assert len(notes) <= 1
    if damage in ("no database", "cut"):
        assert (tmp_path / "scores.damaged" / path.name).exists()
        assert "damaged" in notes[0]
        assert str(path) in notes[0]


def test_no_damage_whatever_makes_a_wrong_value(tmp_path, notes):
    """Bytes overwritten at random: what is found is right, storing works, nothing raises."""
    original = filled(tmp_path / "original").read_bytes()
    rng, given_up = random.Random(1), 0
    for n in range(50):
        path = filled(tmp_path / str(n), 1)
        raw = bytearray(original)
        for _ in range(rng.choice((1, 5, 50))):
            at = rng.randrange(len(raw) - 8)
            raw[at : at + 8] = rng.randbytes(8)
        path.write_bytes(raw)
        cache = ScoreCache(tmp_path / str(n), 1 << 30)
        assert all(row in (None, [float(i)] * 40) for i, row in enumerate(cache.get(keys(400))))
        cache.put([(batch_key(i), [-1.0]) for i in range(400, 500)])
        assert all(row in (None, [-1.0]) for row in cache.get(keys(500)[400:]))
        given_up += cache.get([batch_key(499)]) == [None]
        cache.close()
        shutil.rmtree(tmp_path / str(n))
    assert notes
    assert given_up == 0, "a damaged file is replaced, whatever SQLite calls the damage"


def test_a_value_that_was_changed_is_not_used(tmp_path, notes):
    path = filled(tmp_path, 3)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE entries SET value = zeroblob(320) WHERE key = ?", (batch_key(1),))
        db.execute("UPDATE entries SET value = 'text' WHERE key = ?", (batch_key(2),))
    db.close()
    assert ScoreCache(tmp_path, 1 << 30).get(keys(3)) == [[0.0] * 40, None, None]
    assert notes == []


def test_two_that_find_the_damage_begin_one_new_file(tmp_path, notes):
    path = filled(tmp_path)
    first, second = ScoreCache(tmp_path, 1 << 30), ScoreCache(tmp_path, 1 << 30)
    assert first.get(keys(1)) == second.get(keys(1)) == [[0.0] * 40]
    first.close()
    path.write_bytes(b"not a database at all" * 500)
    first.put([(batch_key(1000), [1.0])])
    second.put([(batch_key(1001), [2.0])])
    assert first.get([batch_key(1000), batch_key(1001)]) == second.get([batch_key(1000), batch_key(1001)]) == [[1.0], [2.0]]
    assert len(notes) == 1


def test_a_cache_that_is_deleted_meanwhile_is_begun_anew(cache, notes):
    cache.put([(batch_key(0), [0.0])])
    shutil.rmtree(cache.path.parent)
    assert cache.get(keys(2)) == [None, None]
    cache.put([(batch_key(1), [1.0])])
    assert ScoreCache(cache.path.parent.parent, 1 << 30).get(keys(2)) == [None, [1.0]]
    assert notes == []


def test_where_it_cannot_be_it_says_so_once(tmp_path, notes):
    (tmp_path / "scores").write_text("a file where the folder should be")
    cache = ScoreCache(tmp_path, 1 << 30)
    for _ in range(3):
        cache.put([(batch_key(0), [0.0])])
        assert cache.get(keys(1)) == [None]
    assert len(notes) == 1
    assert "is not used" in notes[0]


def test_a_locked_file_is_given_up(cache, notes, monkeypatch):
    monkeypatch.setattr(score_cache, "WAIT_S", 0.05)
    cache.put([(batch_key(0), [0.0])])
    other = sqlite3.connect(cache.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    cache.close()
    cache.put([(batch_key(1), [1.0])])
    other.execute("ROLLBACK")
    other.close()
    cache.put([(batch_key(2), [2.0])])
    assert cache.get(keys(3)) == [None, None, None]
    assert len(notes) == 1
    assert "locked" in notes[0]


def test_a_full_disk_is_given_up_and_what_is_there_stays_whole(cache, notes, tmp_path):
    cache.put([(batch_key(0), [0.0])])
    pages = cache._link.db.execute("PRAGMA page_count").fetchone()[0]
    cache._link.db.execute(f"PRAGMA max_page_count={pages + 2}")  # SQLite then says what it says of a full disk
    cache.put([(batch_key(i), [float(i)] * 2000) for i in range(1, 9)])
    assert len(notes) == 1
    assert "full" in notes[0]
    assert ScoreCache(tmp_path, 1 << 30).get(keys(9)) == [[0.0], *[None] * 8]


@pytest.mark.skipif(os.name == "nt" or not Path("/proc").exists(), reason="needs a user for whom files can be read-only")
def test_a_read_only_folder_is_given_up(tmp_path):
    filled(tmp_path)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom icl.model.score_cache import ScoreCache, batch_key\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "cache = ScoreCache(Path(sys.argv[1]), 1 << 30)\n"
        "print(cache.get([batch_key(0)]) in ([None], [[0.0] * 40]))\n"
        "for i in range(3): cache.put([(batch_key(1000 + i), [1.0])])\n"
    )
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in tmp_path.parents:  # so that the other user gets here
        if parent.stat().st_uid == os.getuid() and parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    environment = {k: v for k, v in os.environ.items() if k != "ICL_QUIET"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment, cwd=ROOT)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert (done.returncode, done.stdout) == (0, "True\n")
    assert done.stderr.count("is not used") == 1


# ── no larger than it may be ─────────────────────────────────────────────────────────────────────────────────────────────


def test_beyond_the_limit_what_was_used_longest_ago_goes(tmp_path, monkeypatch):
    limit = 400_000
    cache = ScoreCache(tmp_path, limit)
    now = [1_000_000_000.0]
    monkeypatch.setattr(score_cache.time, "time", lambda: now[0])
    value = [0.5] * 100
    cache.put([(batch_key("often"), value), (batch_key("once"), value)])
    for day in range(8):
        now[0] += score_cache.DAY_S
        assert cache.get([batch_key("often")]) == [value], "what is used stays"
        cache.put([(batch_key(day, i), value) for i in range(100)])
        entries, size = cache.size()
        assert size <= limit
        assert cache.path.stat().st_size <= limit + 150_000  # the log of the last transactions is beside the file, or in it
    assert cache.get([batch_key("once"), batch_key(0, 0), batch_key(7, 99)]) == [None, None, value]
    assert entries > 200, "no more is removed than has to be"


def test_a_limit_below_a_single_entry_keeps_nothing(tmp_path, notes):
    cache = ScoreCache(tmp_path, 1000)
    cache.put([(batch_key(0), [0.5] * 1000)])
    assert cache.get(keys(1)) == [None]
    assert cache.size()[0] == 0
    assert notes == []
