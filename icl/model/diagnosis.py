"""What this machine and a model can do, and whether the model's numbers are repeatable."""

from __future__ import annotations

import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..protocols import LanguageModel
    from .encoder_decoder import Seq2SeqModel
    from .torch_lm import TorchModel

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "faiss-cpu",
    "peft",
    "accelerate",
    "gguf",
    "bitsandbytes",
    "torchao",
)


def doctor(name: str | None = None, *, device: str | None = None, dtype: str | None = None) -> list[str]:
    """Lines about the machine; with a model's name also about its path, its precision and its determinism. device, dtype: as for
    `load_model`. Raises InputError as that does."""
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
        lines += _model_lines(name, device, dtype)
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


def _model_lines(name: str, device: str | None, dtype: str | None) -> list[str]:
    from .encoder_decoder import Seq2SeqModel
    from .load import load_model
    from .remote.client import RemoteModel
    from .replicas import Replicas
    from .torch_lm import TorchModel

    started = time.perf_counter()
    lm = load_model(name, device=device, dtype=dtype)
    loaded = time.perf_counter() - started
    first = lm.models[0] if isinstance(lm, Replicas) else lm
    lines = [f"model {lm.name}: {lm.dtype} on {lm.device}, window {lm.window:,}, loaded in {loaded:.1f} s; labels by {lm.estimator}"]
    if isinstance(lm, RemoteModel):
        lines += lm.described()
    if isinstance(first, TorchModel | Seq2SeqModel):
        lines += _local_lines(first)
        lines += _precision(name, first)
        lines.append(_determinism(lm))
    return lines


def _local_lines(lm: TorchModel | Seq2SeqModel) -> list[str]:
    tokens, model = lm.codec.tokens, lm.model
    chat = "none"
    if lm.codec.has_chat:
        form = lm.codec.chat_format
        system = "system turn" if form.has_system else "no system turn (merged into the first user turn)"
        chat = system + (", an explicit empty one replaces the text that the template would invent" if form.invents_system else "")
    around = f"before a plain text: {list(tokens.prefix) or 'none'}; behind it: {list(tokens.suffix) or 'none'}"
    method = getattr(model, "quantization_method", None)
    weights = f"quantised ({getattr(method, 'value', method)})" if method is not None else "not quantised"
    return [
        f"architecture: {type(model).__name__}, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {weights}",
        f"path: {lm.examined.path} ({lm.examined.why}; largest deviation {lm.examined.deviation:.1e} nat)",
        f"generation: {_generation(lm)}",
        f"control tokens: {len(tokens.controls)}; {around}; chat template: {chat}",
        f"fingerprint: {lm.fingerprint}",
    ]


def _generation(lm: TorchModel | Seq2SeqModel) -> str:
    from .torch_lm import TorchModel

    if isinstance(lm, TorchModel) and lm.writing.why_plain is None:
        return "shared beginnings are read once, texts enter and leave one by one"
    why = f", since {lm.writing.why_plain}" if isinstance(lm, TorchModel) else ""
    return ("prompts of different lengths in one batch" if lm.examined.left_padding else "prompts of one length at a time") + why


_CONTEXTS = ("The capital of France is", "Review: a moving, quiet film.\nSentiment:", "2 + 2 =")
_LABELS = ((" Paris", " a small town"), (" positive", " negative"), (" 4", " four", " fish"))
_COMPARED = 4e9
"""Parameters up to which a second copy in fp32 is loaded, to say how far 16-bit numbers are from it."""


def _precision(name: str, lm: TorchModel | Seq2SeqModel) -> list[str]:
    """For 16-bit weights: how far the scores are from those of the same weights in fp32."""
    from .load import load_model

    if lm.dtype == "float32" or getattr(lm.model, "quantization_method", None) is not None:
        return []
    if sum(p.numel() for p in lm.model.parameters()) > _COMPARED:
        return [f"precision: {lm.dtype} not compared with fp32, the model is too large for a second copy"]
    exact = load_model(name, device=lm.device, dtype="float32").loglikelihoods(_CONTEXTS, _LABELS)
    found = lm.loglikelihoods(_CONTEXTS, _LABELS)
    same = sum(max(x) == x[y.index(max(y))] for x, y in zip(found, exact, strict=True))
    return [f"precision: {lm.dtype} is up to {_largest(found, exact):.1e} nat per label away from fp32; same winner {same} of {len(exact)}"]


def _largest(a: list[list[float]], b: list[list[float]]) -> float:
    return max(abs(x - y) for left, right in zip(a, b, strict=True) for x, y in zip(left, right, strict=True))


def _determinism(lm: LanguageModel) -> str:
    """Scores of the same work twice, and in another order and batch."""
    first = lm.loglikelihoods(_CONTEXTS, _LABELS)
    again = lm.loglikelihoods(_CONTEXTS, _LABELS)
    alone = [lm.loglikelihoods([c], [x])[0] for c, x in reversed(list(zip(_CONTEXTS, _LABELS, strict=True)))][::-1]
    repeated = "bit-identical" if first == again else f"{_largest(first, again):.1e} nat apart"
    return f"determinism: repeated {repeated}; alone and in another order {_largest(first, alone):.1e} nat apart"
