"""The language model that a pretraining continues: loaded with all its weights, and saved as it came."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, Problem
from ..weights import CATALOGUE, quiet_transformers
from .bases import find_base, pooling_of


@dataclass(frozen=True)
class Base:
    """A model and its tokenizer."""

    model: Any
    tokenizer: Any
    folder: Path | None
    """Of a sentence-transformers model, whose other files a continued one keeps; else None."""
    new: tuple[str, ...]
    """Weights that the base lacks, drawn at random: a sentence encoder has no output layer that predicts tokens."""


def load_base(name: str, *, causal: bool, device: str) -> Base:
    """A catalogue name, a folder or a hub id, in fp32. Raises InputError for what is not there or is none of that kind."""
    if not causal:
        return _masked(name, device)
    if name in CATALOGUE and CATALOGUE[name].kind == "encoder":
        raise InputError(Problem(f"'{name}' is an encoder, which does not write", "Say --objective masked.", field="base"))
    from ..model.load import load_model, load_tokenizer
    from ..model.torch_lm import TorchModel

    lm: Any = load_model(name, device=device, dtype="float32")
    if not isinstance(lm, TorchModel):
        raise InputError(Problem(f"'{name}' is no causal model with weights of its own", "Use smollm2, or a folder.", field="base"))
    return Base(lm.model, load_tokenizer(name), None, ())


def _masked(name: str, device: str) -> Base:
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    if name in CATALOGUE and CATALOGUE[name].kind == "language model":
        raise InputError(Problem(f"'{name}' writes from left to right and has no mask", "Say --objective causal.", field="base"))
    folder = find_base(name)
    sentence = pooling_of(folder)
    where = sentence[0] if sentence else folder
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(str(where), **options)
            model, info = AutoModelForMaskedLM.from_pretrained(
                str(where), dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
            )
    except Exception as error:  # readers of a dozen formats, each with exceptions of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            Problem(
                f"the base '{name}' cannot be a masked language model: {reason[:300]}", "Take an encoder of the BERT kind.", field="base"
            )
        ) from None
    return Base(model.to(device), tokenizer, folder if sentence else None, tuple(sorted(info["missing_keys"])))


def save_language_model(made: Base, folder: Path) -> None:
    """Configuration, tokenizer and safetensors; what a sentence-transformers folder has beside them is copied, so that it stays one."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder
    if made.folder is not None:
        where = pooling_of(made.folder)
        assert where is not None
        target = folder / where[0].relative_to(made.folder)
        for path in made.folder.rglob("*.json"):
            if path.name not in ("weights.json", "training.json") and path.parent != where[0]:
                (folder / path.relative_to(made.folder)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / path.relative_to(made.folder))
        for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
            if (made.folder / name).is_file():
                shutil.copyfile(made.folder / name, folder / name)
    with quiet_transformers():
        made.model.save_pretrained(str(target))
        made.tokenizer.save_pretrained(str(target))


def restored(made: Base, folder: Path) -> None:
    """Put the weights that `save_language_model` wrote into the model."""
    from safetensors.torch import load_model

    where = pooling_of(made.folder) if made.folder is not None else None
    target = folder / where[0].relative_to(made.folder) if where is not None and made.folder is not None else folder
    load_model(made.model, str(target / "model.safetensors"), strict=False)
