"""What of a causal language model is trained: everything, its upper layers, its biases, adapters, added attention, or virtual tokens.

The model that is handed in stays as it is. What is trained is a copy of it that shares the memory of all weights that stay frozen, so an
adapter costs its own size and no more.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from ..errors import InputError, Problem
from ..values import digest
from ..weights import quiet_transformers
from .checkpoint import put_weights, trained_weights
from .layers import freeze_lower, layers_of
from .soft import soften

Kind: TypeAlias = Literal["full", "lora", "ia3", "bitfit", "added_attention", "prompt", "prefix", "freeze"]
MODEL, ADAPTER, WEIGHTS = "model", "adapter", "weights.safetensors"
"""Where `full`, PEFT's adapters, and all other kinds keep what was trained."""
_BESIDE = ("lora", "ia3")
"""PEFT's adapters of linear layers: they are kept in fp32, also beside weights of other dtypes and quantised ones."""
_ADAPTERS = (*_BESIDE, "added_attention")
"""What PEFT makes and saves."""
ATTENDED = ("llama", "mistral", "gpt2")
"""`model_type`s whose attention PEFT knows how to add to (its `TRANSFORMERS_MODEL_CONFIG`)."""
TWO_SIDED = ("lora", "full")
"""What an encoder-decoder model can be trained by: the other kinds look for one stack of layers, or for the names of a decoder's."""
_KEYS_VALUES = (("k_proj", "v_proj"), ("query_key_value",), ("qkv_proj",), ("c_attn",), ("Wqkv",))
_FEEDFORWARD = ("down_proj", "fc2", "dense_4h_to_h", "c_proj", "fc_out", "w2")


@dataclass(frozen=True)
class Form:
    """How a base is made trainable: JSON data, which is saved with the weights."""

    kind: Kind = "lora"
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    """Of LoRA's input."""
    targets: tuple[str, ...] = ()
    """Names of the layers that LoRA stands beside; none: all linear ones but the output."""
    n_virtual: int = 20
    """`prompt`, `prefix`: in front of every prompt; `added_attention`: in each layer."""
    n_frozen: int | None = None
    """`freeze`: layers, from below, that are not trained; None: two thirds of them."""


@dataclass
class Trainable:
    """A copy of a base, ready for training."""

    outer: Any
    """What is trained."""
    model: Any
    """The causal model in it, which can be scored."""
    form: Form
    virtual: tuple[int, ...] = ()
    """Ids of virtual tokens, which every prompt begins with."""
    _dtypes: dict[int, torch.dtype] = field(default_factory=dict)
    """id of a parameter -> its dtype in the base; new ones have that of the base as a whole."""

    def settle(self) -> None:
        """After training: out of the wrapping of mixed precision, and in the base's dtype, as it will be loaded."""
        from accelerate.utils import extract_model_from_parallel

        extract_model_from_parallel(self.outer, keep_fp32_wrapper=False)
        for parameter in self.model.parameters() if self._dtypes else ():
            dtype = self._dtypes.get(id(parameter), self._dtypes[0])
            if parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)
        self.model.eval()

    def fingerprint(self) -> str:
        """Of the trained weights."""
        found = trained_weights(self.outer)
        return digest([[name, digest(t.float().numpy().tobytes().hex())] for name, t in sorted(found.items())])

    def save(self, folder: Path) -> None:
        """What was trained, as safetensors: an adapter as PEFT reads it, a whole model, or the trained weights alone."""
        from safetensors.torch import save_file

        with quiet_transformers():
            if self.form.kind in _ADAPTERS:
                # Without looking for the base's configuration on a model hub.
                self.outer.save_pretrained(str(folder / ADAPTER), save_embedding_layers=False)
                (folder / ADAPTER / "README.md").unlink(missing_ok=True)  # a form to be filled in
            elif self.form.kind == "full":
                self.model.save_pretrained(str(folder / MODEL))
            else:
                names = {name for name, p in self.model.named_parameters() if p.requires_grad}
                kept = {name: t for name, t in trained_weights(self.model).items() if name in names}
                save_file(kept, folder / WEIGHTS)


def make_trainable(base: Any, form: Form, begin: Sequence[int] = (0,), *, checkpointing: bool = False) -> Trainable:
    """A copy of a language model in which what the kind says is trained. New weights are drawn from torch's generator (`seeded`).

    begin: tokens that virtual ones begin as. checkpointing: activations are computed again in the backward pass instead of kept.
    Raises InputError for a model that lacks what the kind trains.
    """
    refuse(base, form)
    model = _copy(base)
    dtypes = {0: base.dtype, **{id(p): p.dtype for p in model.parameters()}}
    virtual: tuple[int, ...] = ()
    outer = model
    if form.kind in _ADAPTERS:
        outer = _adapted(model, form)
        model = outer.get_base_model()
        if form.kind in _BESIDE:
            dtypes = {}  # PEFT keeps them in fp32 and casts what goes in and out
    elif form.kind == "freeze":
        freeze_lower(model, _n_frozen(model, form))
    elif form.kind == "bitfit":
        _only(model, _add_biases(model))
    elif form.kind in ("prompt", "prefix"):
        virtual = soften(model, form.n_virtual, begin, keys_and_values=form.kind == "prefix")
        _only(model, {name for name, _ in model.named_parameters() if name.endswith(".soft")})
    for parameter in model.parameters():
        if form.kind not in _BESIDE and parameter.is_floating_point():
            # Small steps are lost in 16 bits; frozen weights then have to match. The base's memory is shared where nothing changes.
            parameter.data = parameter.data.float().clone() if parameter.requires_grad else parameter.data.float()
    if checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable  # its name before 5.2x
        enable({"use_reentrant": False})
    return Trainable(outer, model, form, virtual, dtypes)


def load_trained(base: Any, form: Form, folder: Path) -> Trainable:
    """What `Trainable.save` wrote, on its base. For `full` the base is `folder / MODEL` itself."""
    from safetensors.torch import load_file

    if form.kind == "full":
        return Trainable(base, base, form)
    if form.kind in _ADAPTERS:
        from peft import PeftModel

        with quiet_transformers():
            outer = PeftModel.from_pretrained(_copy(base), str(folder / ADAPTER), is_trainable=True)
        trainable = Trainable(outer, outer.get_base_model(), form)
        trainable.model.eval()
        return trainable
    trainable = make_trainable(base, form)
    trainable.settle()
    put_weights(trainable.model, load_file(folder / WEIGHTS))
    return trainable


def refuse(base: Any, form: Form) -> None:
    """Raises InputError for a model that the kind cannot be had with, before it is copied."""
    problems = []
    if getattr(base, "quantization_method", None) is not None and form.kind not in _BESIDE:
        problems.append(
            Problem(f"quantised weights cannot be trained, and kind '{form.kind}' trains them", "Use lora or ia3.", field="kind")
        )
    if getattr(base.config, "is_encoder_decoder", False) and form.kind not in TWO_SIDED:
        fix = f"Use {' or '.join(TWO_SIDED)}."
        problems.append(Problem(f"kind '{form.kind}' is not for an encoder-decoder model", fix, field="kind"))
    elif form.kind in ("freeze", "bitfit", "prefix") and not layers_of(base):
        problems.append(Problem("the model has no stack of layers that is known here", "Use full or lora.", field="kind"))
    elif form.kind == "added_attention" and (reason := _closed(base)):
        problems.append(Problem(reason, "Use lora, prefix or bitfit.", field="kind"))
    if problems:
        raise InputError(problems)


def _closed(base: Any) -> str | None:
    """Why attention cannot be added to a model by PEFT, which takes the width of a head for that of the model by their number; None: it can."""
    kind, width = base.config.model_type, getattr(base.config, "head_dim", None)
    if kind not in ATTENDED:
        return f"attention can be added to models of the types {', '.join(ATTENDED)}, and this one's is {kind}"
    if width and width * base.config.num_attention_heads != base.config.hidden_size:
        return "attention can be added where all heads together are as wide as the model, and here they are not"
    return None


def _copy(base: Any) -> Any:
    """A model with modules of its own whose parameters share the base's memory. Quantised ones are the base's own."""
    shared: dict[int, Any] = {}
    for parameter in base.parameters():
        plain = type(parameter) is nn.Parameter
        shared[id(parameter)] = nn.Parameter(parameter.data, requires_grad=parameter.is_floating_point()) if plain else parameter
    return copy.deepcopy(base, shared)


def _only(model: Any, names: set[str]) -> None:
    """Train these parameters alone."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def _n_frozen(model: Any, form: Form) -> int:
    n = len(layers_of(model))
    return form.n_frozen if form.n_frozen is not None else 2 * n // 3


def _add_biases(model: Any) -> set[str]:
    """The names of all biases in the layers. Linear layers without one, of which newer models are made, get one that begins as zero
    (BitFit, Ben Zaken et al. 2022, https://arxiv.org/abs/2106.10199, is about models that have them)."""
    names = set()
    for prefix, layer in layers_of(model):
        for name, module in layer.named_modules():
            if type(module) is nn.Linear and getattr(module, "bias", None) is None:
                weight = module.weight
                module.bias = nn.Parameter(torch.zeros(module.out_features, dtype=weight.dtype, device=weight.device))
            if isinstance(getattr(module, "bias", None), nn.Parameter):
                names.add(f"{prefix}.{name}.bias")
    return names


def _adapted(model: Any, form: Form) -> Any:
    from peft import get_peft_model

    config = {"lora": _lora, "ia3": _ia3, "added_attention": _added_attention}[form.kind](model, form)
    with quiet_transformers():
        return get_peft_model(model, config)


def _lora(model: Any, form: Form) -> Any:
    from peft import LoraConfig

    linear = _linear_names(model)
    if unknown := sorted(set(form.targets) - set(linear)):
        raise InputError(
            Problem(f"the model has no linear layers named '{unknown[0]}'", f"It has: {', '.join(linear)}.", field="target_modules")
        )
    return LoraConfig(
        r=form.rank,
        lora_alpha=form.alpha,
        lora_dropout=form.dropout,
        target_modules=list(form.targets) or "all-linear",
        fan_in_fan_out=_transposed(model),
        task_type="SEQ_2_SEQ_LM" if getattr(model.config, "is_encoder_decoder", False) else "CAUSAL_LM",
    )


def _ia3(model: Any, form: Form) -> Any:
    from peft import IA3Config

    linear = _linear_names(model)
    keys_values = next((names for names in _KEYS_VALUES if set(names) <= set(linear)), ())
    feedforward = next((name for name in _FEEDFORWARD if name in linear), None)
    if not keys_values:
        raise InputError(Problem("the model has no projections of keys and values that are known here", "Use kind: lora.", field="kind"))
    inner = {"c_proj": "mlp.c_proj"}.get(str(feedforward), feedforward)  # GPT-2 has one in its attention too
    both = [*keys_values, *([inner] if inner else [])]
    return IA3Config(
        target_modules=both, feedforward_modules=both[len(keys_values) :], fan_in_fan_out=_transposed(model), task_type="CAUSAL_LM"
    )


def _added_attention(model: Any, form: Form) -> Any:
    """In every layer learned vectors that each token attends to beside the text, by a softmax of their own, times a gate that begins at zero
    (LLaMA-Adapter, Zhang et al. 2023, https://arxiv.org/abs/2303.16199). What a token gets of them depends on that token alone, so keys
    and values of a prefix are kept and shared as without them."""
    from peft import AdaptionPromptConfig

    return AdaptionPromptConfig(adapter_len=form.n_virtual, adapter_layers=len(layers_of(model)), task_type="CAUSAL_LM")


def _transposed(model: Any) -> bool:
    return any(type(module).__name__ == "Conv1D" for module in model.modules())


def _linear_names(model: Any) -> list[str]:
    """Last parts of the names of its linear layers, without the output."""
    head = model.get_output_embeddings()
    kinds = ("Linear", "Conv1D", "Linear4bit", "Linear8bitLt")
    found = [name.rsplit(".", 1)[-1] for name, m in model.named_modules() if type(m).__name__ in kinds and m is not head]
    return sorted(set(found))
