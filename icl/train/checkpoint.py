"""Checkpoints: working files of a training that may be interrupted. They go when it is over.

A checkpoint holds the trained weights and the best ones so far as safetensors, the curve as JSON, and the optimiser's and scheduler's
state as the Trainer writes them. Those two are torch files; they are read back with `weights_only=True`, which runs no code, and only
from the folder that this training wrote. Nothing of them gets into a saved predictor.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_text
from .cost import check_disk

if TYPE_CHECKING:
    import torch

WEIGHTS, BEST, STATE, DONE, KEY = "weights.safetensors", "best.safetensors", "training.json", "done", "key.txt"
PREFIX = "checkpoint-"


def open_work(folder: Path, key: str, n_bytes: int) -> Path | None:
    """Prepare a folder for checkpoints; the newest whole one that is in it already for the same key, else None.

    n_bytes: of the trained weights. What another training left there goes. Raises InputError where the disk has no room for two
    checkpoints, each the weights, the best weights and two moments.
    """
    last = newest(folder) if _key_in(folder) == key else None
    if last is None:
        shutil.rmtree(folder, ignore_errors=True)
        check_disk(folder, 2 * 4 * n_bytes, "the checkpoints")
        folder.mkdir(parents=True)
        write_text(folder / KEY, key)
    return last


def _key_in(folder: Path) -> str | None:
    path = folder / KEY
    return path.read_text(encoding="utf-8") if path.is_file() else None


def newest(folder: Path) -> Path | None:
    """The last checkpoint that was written whole."""
    whole = [path for path in folder.glob(f"{PREFIX}*") if (path / DONE).is_file()]
    return max(whole, key=lambda path: int(path.name.removeprefix(PREFIX)), default=None)


def finish(folder: Path, checkpoint: Path) -> None:
    """Mark a checkpoint as whole, and remove the older ones."""
    write_text(checkpoint / DONE, "")
    for path in folder.glob(f"{PREFIX}*"):
        if path != checkpoint:
            shutil.rmtree(path, ignore_errors=True)


def write_state(folder: Path, model: torch.nn.Module, best: Mapping[str, torch.Tensor] | None, state: Mapping[str, Any]) -> None:
    """Weights, the best ones, and what else is known, into a checkpoint."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(trained_weights(model), folder / WEIGHTS)
    if best is not None:
        save_file(dict(best), folder / BEST)
    write_text(folder / STATE, json.dumps(state))


def read_state(folder: Path, model: torch.nn.Module) -> tuple[dict[str, torch.Tensor] | None, dict[str, Any]]:
    """The other half: puts the weights into the model; returns the best ones and the rest."""
    from safetensors.torch import load_file

    put_weights(model, load_file(folder / WEIGHTS))
    best = load_file(folder / BEST) if (folder / BEST).is_file() else None
    return best, dict(json.loads((folder / STATE).read_text(encoding="utf-8")))


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy on the CPU of all that training changes: parameters with gradients, and buffers such as those of batch normalisation."""
    import torch

    found: dict[str, torch.Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    kept = model.state_dict()
    found |= {name: b for name, b in model.named_buffers() if name in kept and isinstance(b, torch.Tensor)}
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in found.items()}


def put_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """The other half of `trained_weights`."""
    import torch

    with torch.no_grad():
        places = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name, tensor in weights.items():
            places[name].copy_(tensor)
