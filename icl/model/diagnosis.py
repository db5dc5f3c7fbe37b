"""What this machine and a model can do, and whether the model's numbers are repeatable."""

from __future__ import annotations

import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("torch", "transformers", "tokenizers", "sentence-transformers", "faiss-cpu", "peft", "accelerate", "gguf")


def doctor(name: str | None = None) -> list[str]:
    """Lines about the machine; with a model's name also about its path and its determinism. Raises InputError as `load_model` does."""
    import torch

    from .score_cache import describe

    lines = [f"python {sys.version.split()[0]} on {platform.system()} {platform.machine()}"]
    lines.append("packages: " + ", ".join(f"{package} {_version(package)}" for package in _PACKAGES))
    lines.append(f"cpu: {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {_amx()}")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(i)
            lines.append(f"cuda:{i}: {found.name}, {found.total_memory / 2**30:.0f} GiB, bf16 {torch.cuda.is_bf16_supported()}")
    else:
        lines.append("cuda: none; models run on the CPU in fp32")
    lines.append(describe())
    if name is not None:
        lines += _model_lines(name)
    return lines


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _amx() -> str:
    import torch

    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return "bf16 fast (AMX)" if probe is not None and probe() else "bf16 slower than fp32 (no AMX)"


def _model_lines(name: str) -> list[str]:
    from .load import load_model

    started = time.perf_counter()
    lm = load_model(name)
    loaded = time.perf_counter() - started
    tokens = lm.codec.tokens
    chat = "none"
    if lm.codec.has_chat:
        form = lm.codec.chat_format
        system = "system turn" if form.has_system else "no system turn (merged into the first user turn)"
        chat = system + (", an explicit empty one replaces the text that the template would invent" if form.invents_system else "")
    lines = [
        f"model {lm.name}: {type(lm.model).__name__}, {sum(p.numel() for p in lm.model.parameters()) / 1e6:.1f} M parameters, "
        f"{lm.dtype} on {lm.device}, window {lm.window:,}, loaded in {loaded:.1f} s",
        f"path: {lm.examined.path} ({lm.examined.why}; largest deviation {lm.examined.deviation:.1e} nat)",
        f"generation: {'prompts of different lengths in one batch' if lm.examined.left_padding else 'prompts of one length at a time'}",
        f"control tokens: {len(tokens.controls)}; before a plain text: {list(tokens.prefix) or 'none'}; chat template: {chat}",
        f"fingerprint: {lm.fingerprint}",
    ]
    return [*lines, _determinism(lm)]


def _determinism(lm: object) -> str:
    """Scores of the same work twice, and in another order and batch."""
    from .torch_lm import TorchModel

    assert isinstance(lm, TorchModel)
    contexts = ["The capital of France is", "Review: a moving, quiet film.\nSentiment:", "2 + 2 ="]
    labels = [[" Paris", " a small town"], [" positive", " negative"], [" 4", " four", " fish"]]
    first = lm.loglikelihoods(contexts, labels)
    again = lm.loglikelihoods(contexts, labels)
    alone = [lm.loglikelihoods([c], [x])[0] for c, x in reversed(list(zip(contexts, labels, strict=True)))][::-1]

    def largest(a: list[list[float]], b: list[list[float]]) -> float:
        return max(abs(x - y) for left, right in zip(a, b, strict=True) for x, y in zip(left, right, strict=True))

    repeated = "bit-identical" if first == again else f"{largest(first, again):.1e} nat apart"
    return f"determinism: repeated {repeated}; alone and in another order {largest(first, alone):.1e} nat apart"
