"""Encoding many texts in several processes of one thread each; as a program (`python -m icl.retrieve.encode_pool FOLDER`) one of them.

A small encoder uses a few threads badly, so a process for each core encodes more texts a second than one with all of them. Starting them
takes seconds and each holds the model, so it pays for many texts only. The workers are programs of their own, not
`multiprocessing`, whose children would run the user's script again where it has no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any

from ..errors import IclError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAYS_FROM = 20_000
"""Texts from which more processes are started."""
_SIZE = struct.Struct("<q")


def encode_chunks(
    folder: Path, chunks: Sequence[Sequence[str]], n_processes: int, advance: Callable[[int], Any]
) -> Iterator[NDArray[np.float32]]:
    """(n, d) float32 unit vectors of each chunk, in order. Raises IclError if a process ends before its work."""
    with ExitStack() as stack:
        workers: SimpleQueue[_Worker] = SimpleQueue()
        for _ in range(min(n_processes, len(chunks))):
            workers.put(stack.enter_context(_Worker(folder)))

        def encode(texts: Sequence[str]) -> NDArray[np.float32]:
            worker = workers.get()
            try:
                return worker.encode(texts)
            finally:
                workers.put(worker)

        # Entered last, so left first: the workers end when no thread waits for one any more.
        pool = stack.enter_context(ThreadPoolExecutor(n_processes))
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        for texts, vectors in zip(chunks, pool.map(encode, chunks), strict=True):
            advance(len(texts))
            yield vectors


class _Worker:
    """A process that has the model loaded."""

    def __init__(self, folder: Path) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **threads, "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *problem: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            _send(self._process.stdin, json.dumps(list(texts)).encode())
            shape, vectors = json.loads(_receive(self._process.stdout)), _receive(self._process.stdout)
        except (OSError, EOFError):
            raise IclError(f"a process that encodes texts ended (exit code {self._process.wait()}); was there enough memory?") from None
        return np.frombuffer(vectors, dtype="<f4").reshape(shape)


def _send(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(_SIZE.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    """Raises EOFError if the other side has gone."""
    return _exactly(pipe, _SIZE.unpack(_exactly(pipe, _SIZE.size))[0])


def _exactly(pipe: IO[bytes], n: int) -> bytes:
    content = pipe.read(n)
    if len(content) < n:
        raise EOFError
    return content


def work(folder: str) -> None:
    """Encode what comes in, until nothing more does."""
    import torch

    from .encoders import model_in

    torch.set_num_threads(1)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the vectors
    model = model_in(Path(folder))
    while True:
        try:
            texts = json.loads(_receive(sys.stdin.buffer))
        except EOFError:
            return
        vectors = model.encode(texts, lambda n=1: None).astype("<f4")
        _send(output, json.dumps(vectors.shape).encode())
        _send(output, vectors.tobytes())


if __name__ == "__main__":
    work(sys.argv[1])
