"""The encoder that a training starts from: catalogue name, folder or hub id. Configuration, tokenizer and safetensors, never a pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import InputError, Problem
from ..files import sha256_file
from ..progress import note
from ..values import digest
from ..weights import CATALOGUE, fetch

_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
_OTHERS = ["onnx/*", "openvino/*", "*/onnx/*"]


def find_base(name: str | Path) -> Path:
    """The folder of an encoder.

    Raises InputError: nothing of that name, a language model of the catalogue, a folder that lacks configuration, weights or tokenizer.
    """
    text = str(name)
    if text in CATALOGUE:
        if CATALOGUE[text].kind != "encoder":
            raise InputError(
                Problem(
                    f"'{text}' is a language model, and a classification head goes on an encoder",
                    "Use the method finetune for it, or base: minilm, a BERT folder or a hub id such as bert-base-uncased.",
                    field="base",
                )
            )
        return fetch(text)
    if "://" in text:
        raise InputError(
            Problem("an encoder behind an address has no weights to train", "Say base: minilm, or a folder.", text, field="base")
        )
    folder = Path(text).expanduser()
    if not folder.is_dir():
        if text.startswith((".", "/", "~")) or text.count("/") > 1:
            raise InputError(Problem("there is no such folder", "Give a folder, a hub id, or minilm.", text, field="base"))
        folder = _from_hub(text)
    if lacks := [what for what, patterns in _NEEDED.items() if not any(p for pattern in patterns for p in folder.rglob(pattern))]:
        raise InputError(
            Problem(
                f"the model lacks {' and '.join(lacks)}",
                "Give a folder that save_pretrained wrote for model and tokenizer; weights are read from safetensors files only.",
                str(folder),
                field="base",
            )
        )
    return folder


_NEEDED = {
    "its configuration (config.json)": ["config.json"],
    "weights (*.safetensors)": ["*.safetensors"],
    "a tokenizer": ["tokenizer.json", "vocab.txt", "vocab.json", "*.model"],
}


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    note(f"looking for the model '{name}' on the model hub, or in its cache …")
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES, ignore_patterns=_OTHERS))
    except Exception as error:  # huggingface_hub raises a dozen unrelated classes, those of its HTTP client among them
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            Problem(
                f"the base '{name}' is no folder here and could not be fetched from the model hub: {reason}",
                "Check the name and the network; minilm comes through the package index.",
                field="base",
            )
        ) from None


def pooling_of(folder: Path) -> tuple[Path, str, int | None] | None:
    """(folder of the transformer, `mean` or `cls`, tokens it reads at most) of a sentence-transformers folder; None for another one."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return None
    parts = json.loads(modules.read_text(encoding="utf-8"))
    first = folder / str(parts[0]["path"])
    pooling: dict[str, Any] = {}
    for part in parts:
        path = folder / str(part["path"]) / "config.json"
        if str(part["type"]).endswith("Pooling") and path.is_file():
            pooling = json.loads(path.read_text(encoding="utf-8"))
    is_cls = bool(pooling.get("pooling_mode_cls_token")) or pooling.get("pooling_mode") == "cls"
    limits = first / "sentence_bert_config.json"
    limit = json.loads(limits.read_text(encoding="utf-8")).get("max_seq_length") if limits.is_file() else None
    return first, "cls" if is_cls else "mean", limit


def fingerprint_of(folder: Path) -> str:
    """Changes with the files that a training starts from."""
    files = sorted(p for pattern in _FILES for p in folder.rglob(pattern) if p.name not in ("weights.json", "training.json"))
    return digest([[p.relative_to(folder).as_posix(), sha256_file(p)] for p in files])
