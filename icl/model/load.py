"""Where models come from: the catalogue, a folder, a .gguf file, a model hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MissingExtraError, Problem, UnknownNameError, suggest
from ..files import sha256_file
from ..progress import note
from ..values import digest
from ..weights import CATALOGUE, fetch, quiet_transformers
from .far import sinks_of
from .remote.load import is_address, load_remote, refuse_remote_options
from .replicas import Replicas, devices

if TYPE_CHECKING:
    from ..protocols import LanguageModel, PromptCodec
    from .encoder_decoder import Seq2SeqModel
    from .torch_lm import TorchModel

_DTYPES = {
    "float32": "float32", "fp32": "float32", "float": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16",
    "float16": "float16", "fp16": "float16", "half": "float16",
}  # fmt: skip
_QUANTISATIONS = ("8bit", "4bit")
_LANGUAGE_MODELS = tuple(name for name, entry in CATALOGUE.items() if entry.kind == "language model")


def load_model(
    name: str | Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    memory: str | int = "4GiB",
    max_batch: int | None = None,
    revision: str | None = None,
    adapter: str | Path | None = None,
    quantization: str | None = None,
    attention: str | None = None,
    cache: bool = False,
    **remote: Any,
) -> LanguageModel:
    """Load a language model: causal, or an encoder-decoder (T5, BART).

    name: a catalogue name (`smollm2`), a folder, a .gguf file, a hub id, or the address of a server, `https://host/v1#model-name`, with
    `remote` its options: those of `icl.model.remote.RemoteOptions`. device: `cpu`, `cuda`, `cuda:1`, …; by default CUDA if
    there is any. Several (`cuda:0,cuda:1`, or `all` for every CUDA device): the model is loaded on each, and items are spread over
    them. `auto`: one model over all devices, for one that is larger than a single device. dtype: fp32 on a CPU and bf16 on CUDA,
    unless given. memory: budget of one batch on one device; max_batch: most rows of one. attention: `sink:4+2048` lets each token see the
    first 4 and the last 2,048 alone, so that long prompts stay within a small memory budget: an approximation, for scores. revision: of a
    hub id. adapter: a PEFT folder.
    quantization: `8bit` or `4bit`, with bitsandbytes; a checkpoint that is already quantised is loaded as it is. cache: take whole
    batches that were computed before from disk, and put those there that are computed (see `score_cache`); off by default, so that
    what is measured or repeated on purpose is computed.

    Raises InputError for what cannot be loaded, MissingExtraError without the package that an option needs, FetchError if
    catalogue weights cannot be had.
    """
    local = {
        "device": device, "dtype": dtype, "revision": revision, "adapter": adapter, "quantization": quantization, "max_batch": max_batch,
        "attention": attention,
    }  # fmt: skip
    if is_address(str(name)):
        return load_remote(str(name), local, remote, load_codec)
    refuse_remote_options(str(name), remote)
    problems = _option_problems(dtype, quantization, revision, str(name))
    if problems:
        raise InputError(problems)
    source = _Source(str(name), *_located(str(name)), revision, _adapter_folder(adapter), quantization)
    given = {
        "device": device, "dtype": dtype, "revision": revision, "adapter": str(source.adapter) if source.adapter else None,
        "quantization": quantization, "max_batch": max_batch, "memory": memory if memory != "4GiB" else None,
        "attention": attention,
    }  # fmt: skip
    reference = {"name": _absolute(str(name), source.where), **{key: value for key, value in given.items() if value is not None}}
    sinks_of(attention)  # what is misspelt is said before anything is loaded
    options = {"memory": memory, "max_batch": max_batch, "reference": reference, "attention": attention}
    loaded = [_loaded(source, place, dtype, options) for place in devices(device)]
    if cache:
        from .score_cache import open_cache

        for lm in loaded:
            lm.cache = open_cache()
    if len(loaded) == 1:
        return loaded[0]
    return Replicas(loaded, reference=reference)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a model lies, and how it is to be read."""

    name: str
    folder: str
    """Or a hub id."""
    gguf: str | None
    where: str
    revision: str | None
    adapter: Path | None
    quantization: str | None


def _loaded(source: _Source, device: str, dtype: str | None, options: Mapping[str, Any]) -> TorchModel | Seq2SeqModel:
    """One model on one device (or `auto`)."""
    import torch

    chosen_dtype = getattr(torch, _DTYPES[dtype]) if dtype else _default_dtype(device)
    found = {"gguf_file": source.gguf, "revision": source.revision}
    arguments: dict[str, Any] = {key: value for key, value in found.items() if value is not None}
    config = _read_config(source, arguments)
    arguments["dtype"] = chosen_dtype
    if getattr(config.get_text_config(), "attn_logit_softcapping", None):
        arguments["attn_implementation"] = "eager"  # some releases (5.17) take one for Gemma 2 that leaves the cap out
    if source.quantization is not None:
        arguments["quantization_config"] = _quantised(source.quantization, chosen_dtype)
    # Quantised weights are put in their place while they are read: some cannot be moved afterwards.
    placed = device == "auto" or source.quantization is not None or getattr(config, "quantization_config", None) is not None
    if placed:
        arguments["device_map"] = "auto" if device == "auto" else {"": device}
    seq2seq = bool(getattr(config, "is_encoder_decoder", False))
    if not seq2seq:
        _refuse_encoder(source, config)
    model = _from_pretrained(source, arguments, seq2seq)
    if not placed:
        model = model.to(device)
    if source.adapter is not None:
        model = _adapted(model, source.adapter)
    tokenizer = load_tokenizer(source.name, revision=source.revision)
    from .check import FP32_TOLERANCE, tolerance

    if seq2seq:
        from .encoder_decoder import Seq2SeqModel as Kind

        if options["attention"] is not None:
            raise InputError(Problem("an encoder-decoder model takes no attention=", "Leave it out.", field="attention"))
        options = {key: value for key, value in options.items() if key != "attention"}
    else:
        from .torch_lm import TorchModel as Kind  # type: ignore[assignment]
    lm = Kind(model, tokenizer, name=source.name, identity=_identity(source, model), **options)
    if tolerance(model) > FP32_TOLERANCE:
        how = f"{lm.dtype}, quantised" if getattr(model, "quantization_method", None) is not None else lm.dtype
        note(f"'{source.name}' ({how}): equal work in other batches gave scores up to {lm.examined.deviation:.1g} nat apart")
    return lm


def load_codec(tokenizer: str | Path | Callable[[str], int | Sequence[int]]) -> PromptCodec:
    """The tokenizer side alone: a catalogue name, a folder, a .gguf file, a hub id, or a function that counts tokens.

    No language model is loaded.
    """
    from .codec import CountingCodec, TokenizerCodec
    from .light import light_tokenization
    from .tokenizer import from_transformers

    if callable(tokenizer):
        return CountingCodec(tokenizer)
    if is_address(str(tokenizer)):
        return load_remote(str(tokenizer), {}, {}, load_codec).codec
    folder, gguf, where = _located(str(tokenizer), what="tokenizer")
    if where != "hub" and not gguf and (light := light_tokenization(Path(folder))) is not None:
        return TokenizerCodec(light)
    return TokenizerCodec(from_transformers(load_tokenizer(str(tokenizer))))


def load_tokenizer(name: str, *, revision: str | None = None) -> Any:
    """The transformers tokenizer of a model named as in `load_model`."""
    folder, gguf, where = _located(name, what="tokenizer")
    from transformers import AutoTokenizer

    arguments = {key: value for key, value in (("gguf_file", gguf), ("revision", revision)) if value}
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, **arguments)
    except Exception as error:  # as for models below
        raise InputError(_unloadable("tokenizer", name, where, error)) from None


def _option_problems(dtype: str | None, quantization: str | None, revision: str | None, name: str) -> list[Problem]:
    problems = []
    if dtype is not None and dtype not in _DTYPES:
        problems.append(Problem(f"'{dtype}' is no dtype for a model", suggest(dtype, ("float32", "bfloat16", "float16")), field="dtype"))
    if quantization is not None and quantization not in _QUANTISATIONS:
        problems.append(Problem(f"'{quantization}' is no quantisation", suggest(quantization, _QUANTISATIONS), field="quantization"))
    if revision is not None and (name in CATALOGUE or Path(name).expanduser().exists()):
        problems.append(Problem(f"'{name}' has no revisions", "Give a revision with hub ids only.", field="revision"))
    return problems


def _located(name: str, what: str = "model") -> tuple[str, str | None, str]:
    """(folder or hub id, .gguf file in it, 'catalogue' | 'folder' | 'hub')."""
    if is_address(name):
        raise InputError(Problem(f"an address gives no {what} files", "Name a hub id, a folder or a catalogue name.", field=what))
    if name in CATALOGUE:
        if CATALOGUE[name].kind != "language model" and what == "model":
            raise InputError(Problem(f"'{name}' is a sentence encoder, not a language model", suggest("", _LANGUAGE_MODELS), field="model"))
        return str(fetch(name)), None, "catalogue"
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise InputError(Problem(f"the {what} file '{name}' does not exist", _nearby(path), field=what))
        return str(path.parent), path.name, "folder"
    if path.is_dir():
        if not (path / "config.json").is_file() and not (path / "tokenizer_config.json").is_file():
            held = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
            raise InputError(
                Problem(f"the folder '{name}' holds no {what}: no config.json (found: {held})", "Name the folder that has it.", field=what)
            )
        return str(path), None, "folder"
    if path.is_file():
        raise InputError(Problem(f"'{name}' is a file of no known kind", "Give a model folder or a .gguf file.", field=what))
    if name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1 or "\\" in name or not name:
        raise InputError(Problem(f"the {what} folder '{name}' does not exist", _nearby(path), field=what))
    if "/" not in name and get_close_matches(name.casefold(), _LANGUAGE_MODELS, n=1, cutoff=0.8):
        # A slip of the pen in a catalogue name: said at once, not after the hub was asked in vain for a minute.
        raise UnknownNameError("model", name, _LANGUAGE_MODELS, field=what)
    note(f"looking for the {what} '{name}' on the model hub, or in its cache …")
    return name, None, "hub"


def _nearby(path: Path) -> str:
    """What does exist beside a path that does not."""
    there = path
    while not there.is_dir() and there != there.parent:
        there = there.parent
    names = sorted(p.name for p in there.iterdir() if p.is_dir() or p.suffix == ".gguf")[:20] if there.is_dir() else []
    listing = f"'{there}' holds: {', '.join(names)}." if names else f"'{there}' holds no folder or .gguf file."
    return f"{listing} Or use a catalogue name: {', '.join(_LANGUAGE_MODELS)}."


def _absolute(name: str, where: str) -> str:
    return str(Path(name).expanduser().resolve()) if where == "folder" else name


def _default_dtype(device: str) -> Any:
    import torch

    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float32


def _quantised(quantization: str, dtype: Any) -> Any:
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", "quantize", f"quantization='{quantization}'")
    from transformers import BitsAndBytesConfig

    # It says at every layer that it computes in float16; the check at load time measures what that does.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype, bnb_4bit_quant_type="nf4")


def _read_config(source: _Source, arguments: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(source.folder, **arguments)
    except Exception as error:  # as for models below
        raise InputError(_unloadable("model", source.name, source.where, error)) from None


def _refuse_encoder(source: _Source, config: Any) -> None:
    """Raises InputError for an encoder, such as BERT: transformers makes a model that writes of it, which sees the words to come."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    writes = getattr(config, "is_decoder", False) or getattr(config, "causal", False)
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not writes:
        message = f"'{source.name}' is an encoder ({config.model_type}), which sees the words to come, and no language model that writes"
        fix = "Take a causal or an encoder-decoder language model, or train the encoder: the method classifier, icl train classifier."
        raise InputError(Problem(message, fix, field="model"))


def _from_pretrained(source: _Source, arguments: Mapping[str, Any], seq2seq: bool) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from .limits import is_out_of_memory

    try:
        with quiet_transformers():
            return (AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM).from_pretrained(source.folder, **arguments)
    except Exception as error:  # damaged files fail in whatever way their reader has: safetensors, pickle, json, shapes
        if is_out_of_memory(error):
            raise
        raise InputError(_unloadable("model", source.name, source.where, error)) from None


def _unloadable(what: str, name: str, where: str, error: Exception) -> Problem:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if where == "hub":
        fix = (
            "If it is a folder, check its path. If it is a hub id, check its spelling, the network, and HF_TOKEN and HF_HUB_OFFLINE. "
            f"Catalogue: {', '.join(_LANGUAGE_MODELS)}."
        )
        return Problem(f"there is no {what} '{name}': no such folder here, and the hub gave: {reason}", fix, field=what)
    return Problem(
        f"the {what} '{name}' cannot be loaded: {reason}",
        "Check that the folder is complete and holds a causal or an encoder-decoder language model.",
        field=what,
    )


def _adapter_folder(adapter: str | Path | None) -> Path | None:
    if adapter is None:
        return None
    folder = Path(adapter).expanduser()
    if not (folder / "adapter_config.json").is_file():
        raise InputError(
            Problem(f"'{adapter}' is no adapter folder: it has no adapter_config.json", "Name a folder that PEFT wrote.", field="adapter")
        )
    return folder.resolve()


def _adapted(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    try:
        with quiet_transformers():
            adapted = PeftModel.from_pretrained(model, str(folder))
            # Attention that is added (AdaptionPrompt) is no part of any weight, and those of few bits lose what is merged.
            merges = getattr(model, "quantization_method", None) is None and hasattr(adapted, "merge_and_unload")
            return adapted.merge_and_unload() if merges else adapted.get_base_model()
    except Exception as error:  # as for models above
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(
            Problem(f"the adapter '{folder}' does not fit the model: {reason}", "Use the base model it was trained on.", field="adapter")
        ) from None


def _identity(source: _Source, model: Any) -> Callable[[], str]:
    """A function that digests the weights, called when somebody asks: hashing a large model takes a while."""
    name, folder, gguf, where, adapter = source.name, source.folder, source.gguf, source.where, source.adapter

    def weights() -> Any:
        if where != "hub":
            return _weights(name, folder, gguf, where)
        from .torch_lm import _state_digest

        # A name without a commit may mean other weights tomorrow, and scores are kept by this.
        return [name, getattr(model.config, "_commit_hash", None) or _state_digest(model)]

    def digested() -> str:
        parts = {p.name: sha256_file(p) for p in sorted(adapter.iterdir()) if p.is_file()} if adapter else None
        return digest([weights(), parts, source.quantization])

    return digested


def weights_digest(name: str | Path) -> str:
    """Of the weights of a model on this machine, which is not loaded; of a hub id the name alone."""
    folder, gguf, where = _located(str(name))
    return digest(str(name) if where == "hub" else _weights(str(name), folder, gguf, where))


def _weights(name: str, folder: str, gguf: str | None, where: str) -> Any:
    """What changes with the files of a model that is not on a hub."""
    if where == "catalogue":
        return [CATALOGUE[name].tensors, dict(CATALOGUE[name].files)]
    if gguf:
        return sha256_file(Path(folder) / gguf)
    files = [p for p in Path(folder).iterdir() if p.suffix in (".safetensors", ".bin") or p.name == "config.json"]
    return {p.name: sha256_file(p) for p in sorted(files)}
