"""The cache of vectors: several writers at once, writers that are killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from icl.retrieve.embedding_cache import EmbeddingCache

ROOT = Path(__file__).resolve().parent.parent.parent
WRITER = """
import sys
from pathlib import Path
import numpy as np
from icl.retrieve.embedding_cache import EmbeddingCache
cache, first, rounds = EmbeddingCache("x", Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
for start in range(first, first + rounds):
    cache.put({i.to_bytes(16, "big"): np.full(384, i, np.float32) for i in range(start * 20, start * 20 + 40)})
    print(start, flush=True)
"""


def writer(folder, first, rounds):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(first), str(rounds)], stdout=subprocess.PIPE, text=True, env=environment
    )


def stored(folder, n):
    return EmbeddingCache("x", folder).get([i.to_bytes(16, "big") for i in range(n)])


def test_what_was_put_is_found_bit_for_bit(tmp_path):
    cache = EmbeddingCache("encoder/with:odd+name", tmp_path)
    vectors = {bytes([i]) * 16: np.random.default_rng(i).standard_normal(5).astype(np.float32) for i in range(1200 % 251)}
    assert cache.get(list(vectors)) == {}
    assert cache.dimensions() is None
    cache.put(vectors)
    found = cache.get([*vectors, b"not there", *vectors])
    assert set(found) == set(vectors)
    assert all((found[key] == vector).all() for key, vector in vectors.items())
    assert cache.dimensions() == 5
    assert EmbeddingCache("another", tmp_path).get(list(vectors)) == {}, "encoders do not share vectors"


def test_more_keys_than_a_query_takes(tmp_path):
    cache = EmbeddingCache("x", tmp_path)
    cache.put({i.to_bytes(16, "big"): np.full(3, i, np.float32) for i in range(1300)})
    assert len(stored(tmp_path, 1300)) == 1300


def test_several_processes_write_at_once(tmp_path):
    writers = [writer(tmp_path, first, 15) for first in (0, 5, 10)]
    assert [process.wait(60) for process in writers] == [0, 0, 0]
    for process in writers:
        process.stdout.close()
    found = stored(tmp_path, 26 * 20)
    assert len(found) == 26 * 20
    assert all((vector == int.from_bytes(key, "big")).all() for key, vector in found.items())


def test_what_a_killed_writer_reported_is_kept(tmp_path):
    rng = random.Random(0)
    done = 0
    for _ in range(3):
        process = writer(tmp_path, done, 100_000)
        done = int(process.stdout.readline())
        time.sleep(rng.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        done = max([done, *(int(line) for line in process.stdout.read().split())])
        process.wait()
        process.stdout.close()
        found = stored(tmp_path, done * 20 + 40)
        assert len(found) == done * 20 + 40
        assert all((vector == int.from_bytes(key, "big")).all() for key, vector in found.items())
