"""Peers wherever they can run: in this process, or as a server in an environment of their own.

`open_peer` gives a peer, or the reason why there is none. The server is this file, run by the other environment's python: JSON lines on
stdin and stdout, so that its runs can be interleaved with ours; the times it answers are its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

NEEDS = {
    "lm-eval": "lm_eval", "openicl": "torch", "transformers": "torch", "generate": "torch", "generate_batch": "torch", "vllm": "vllm",
    "llama.cpp": "xllamacpp",
}  # fmt: skip
"""Peer -> the package it needs."""


@dataclass(frozen=True)
class Where:
    """What a peer is loaded from and runs on."""

    folder: str
    device: str
    dtype: str
    threads: int
    gguf: str | None = None


def made(kind: str, where: Where, loaded: Any = None) -> Any:
    """The peer itself. loaded: a model that is there already, for peers that run on transformers."""
    if kind in ("vllm", "llama.cpp"):
        import _engines

        if kind == "vllm":
            return _engines.Vllm(where.folder, where.device, where.dtype, where.threads)
        if where.gguf is None:
            raise ValueError("it reads a .gguf file: give --gguf")
        return _engines.LlamaCpp(where.gguf, where.threads)
    import _peers

    classes = {
        "lm-eval": _peers.LmEval,
        "openicl": _peers.PerLabel,
        "transformers": _peers.PlainForward,
        "generate": _peers.Generate,
        "generate_batch": _peers.GenerateBatch,
    }
    return classes[kind](loaded or _peers.Loaded(where.folder, where.device, where.dtype, where.threads))


def open_peer(kind: str, where: Where, python: str | None = None, loaded: Any = None) -> Any:
    """A peer (with `version`, and `score` or `generate`), or a str that says why it is absent. python: an environment that has it."""
    try:
        if python is None and importlib.util.find_spec(NEEDS[kind]) is not None:
            return made(kind, where, loaded)
        if python is None:
            return f"{NEEDS[kind]} is not installed here, and no other environment was named"
        return Remote(python, kind, where)
    except Exception as error:  # a peer may fail in any way its libraries know; the others still run
        return f"{type(error).__name__}: {error}"


class Remote:
    """A peer in another process."""

    def __init__(self, python: str, kind: str, where: Where) -> None:
        self._log = tempfile.TemporaryFile(mode="w+", errors="replace")  # noqa: SIM115  lives as long as the server
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(where.threads)}
        command = [python, __file__, kind, json.dumps(where.__dict__)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, encoding="utf-8", env=env
            )
        except OSError:
            self._log.close()
            raise
        try:
            self.version = self._answer()["version"]
        except RuntimeError:
            self.close()
            raise

    def score(self, *arguments: Any) -> Any:
        return self._ask("score", arguments)

    def generate(self, *arguments: Any) -> Any:
        return self._ask("generate", arguments)

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def _ask(self, call: str, arguments: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([call, *arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            lines = [text.strip() for text in self._log.read().splitlines() if text.strip()]
            raise RuntimeError(f"the server ended with code {code}: {' | '.join(lines[-3:])}")
        return json.loads(line)


def close(peer: Any) -> None:
    if isinstance(peer, Remote):
        peer.close()


def serve(kind: str, options: str) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not land between the answers
    sys.stdout = sys.stderr
    peer = made(kind, Where(**json.loads(options)))
    print(json.dumps({"version": peer.version}), file=answers, flush=True)
    for line in sys.stdin:
        call, *arguments = json.loads(line)
        print(json.dumps(getattr(peer, call)(*arguments)), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
