"""What, besides the model and the tokens, can change the last digits of a number: versions, instruction set, threads, kernel switches."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__

SETTINGS = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE")
"""Variables that choose between kernels; noted only if set."""
FLAGS = ("amx_tile", "avx512_bf16", "avx512_vnni", "avx512f", "avx2", "sve", "asimd")
"""Of the CPU, those that choose between kernels."""


@cache
def instructions() -> tuple[str, ...]:
    """The CPU's instruction sets that choose between kernels; where the system does not list them, the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return (platform.processor(),)
    words = next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith(("flags", "Features"))), set())
    return tuple(flag for flag in FLAGS if flag in words)


def settings() -> dict[str, str]:
    """The variables of SETTINGS that are set."""
    return {name: os.environ[name] for name in SETTINGS if name in os.environ}


def conditions(device: str) -> list[str]:
    """For keys of cached numbers: two processes with equal lists compute the same bits from the same model and batch.

    Read it anew for every call of the model: the thread count and torch's switches can be changed at any time.
    """
    import torch

    kind = torch.device(device).type
    found = [
        f"icl {__version__}",
        *(f"{name} {_version(name)}" for name in ("torch", "transformers", "bitsandbytes")),
        f"{platform.system()} {platform.machine()} {' '.join(instructions())}",
        f"{torch.backends.cpu.get_cpu_capability()} threads {torch.get_num_threads()}",
        f"{kind} precision {torch.get_float32_matmul_precision()} deterministic {torch.are_deterministic_algorithms_enabled()}",
        *(f"{name}={value}" for name, value in settings().items()),
    ]
    if kind == "cuda":
        found.append(f"{torch.cuda.get_device_name(device)} cuda {torch.version.cuda}")
    return found


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
