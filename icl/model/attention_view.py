"""What the position that answers looks at: the attention weights softmax(QKᵀ/√d_k) of one token over the prompt, by layer and head."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem
from ..values import Prompt
from .encoding import encoded_splits
from .padded import cache_name, prefill
from .replicas import Replicas
from .torch_lm import TorchModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHTS = "eager"
"""The attention of transformers that writes its weights down; the faster ones never have them."""
MOST_APART = {"float32": 1e-3, "float64": 1e-3}
"""Total variation distance between the next token's distributions under the two attentions, beyond which the weights are not those that
the model answers by; `HALF_APART` in 16 bits."""
HALF_APART = 0.05


def answer_attention(lm: Any, prompt: Prompt, continuations: Sequence[str]) -> NDArray[np.float32]:
    """(n_layers, n_heads, n) attention weights of the token that predicts the answer's first token, over itself and all before it.

    n: tokens of the prompt up to where the continuations are scored from. A layer that sees only a window has zeros before it; rows add
    up to 1, or less where a layer has attention sinks. Layers without attention (of hybrids) are left out. All tokens but the last are
    read by the model's usual attention, then the last one by the one that keeps its weights: the same weights of the model, and memory
    grows with the prompt, not with its square. That the model answers the same is checked. Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1.

    Weights say where a head looked, not what came of it (Jain and Wallace 2019, https://arxiv.org/abs/1902.10186).
    Raises InputError for models that are elsewhere, have an encoder, or give no weights.
    """
    import numpy as np
    import torch

    model = _model_of(lm)
    ids = list(encoded_splits(lm.codec, [prompt], [continuations])[0].prefix)
    try:
        with torch.inference_mode():
            cache = prefill(model, [ids[:-1]]).cache if len(ids) > 1 else None
            given = {cache_name(model): cache} if cache is not None else {}
            last = torch.tensor([ids[-1:]], device=model.device)
            with keeping_weights(model):
                out = model(input_ids=last, output_attentions=True, use_cache=True, **given)
            usual = prefill(model, [ids], cached=False).logits
    except AttributeError:  # its output has no place for keys and values
        raise _none(lm, "it keeps a state instead of keys and values") from None
    except (TypeError, ValueError, NotImplementedError) as error:  # how other architectures refuse what they cannot do
        raise _none(lm, (str(error).splitlines() or [type(error).__name__])[0][:120]) from None
    layers = [layer for layer in getattr(out, "attentions", None) or () if layer is not None]
    if not layers:
        raise _none(lm, "its layers gave none")
    apart = float((out.logits[:, -1].float().softmax(-1) - usual.float().softmax(-1)).abs().sum()) / 2
    if apart > MOST_APART.get(str(model.dtype).removeprefix("torch."), HALF_APART):
        raise _none(lm, f"with an attention that writes its weights down it answers otherwise (its probabilities move by {apart:.2g})")
    result = np.zeros((len(layers), layers[0].shape[1], len(ids)), dtype=np.float32)
    for row, layer in zip(result, layers, strict=True):
        weights = layer[0, :, -1].float().cpu().numpy()
        row[:, len(ids) - weights.shape[-1] :] = weights
    return result


def summed(weights: NDArray[np.float32], starts: Sequence[int]) -> NDArray[np.float32]:
    """(…, n) weights summed over the parts of a prompt, (…, len(starts)): from each start to the next one, the last to the end.

    starts: ascending; tokens before the first are in no part.
    """
    import numpy as np

    n = weights.shape[-1]
    ends = [*starts, n][1:]
    parts = [weights[..., min(a, n) : min(b, n)].sum(axis=-1, dtype=np.float64) for a, b in zip(starts, ends, strict=True)]
    return np.stack(parts, axis=-1).astype(np.float32) if parts else np.zeros((*weights.shape[:-1], 0), dtype=np.float32)


@contextlib.contextmanager
def keeping_weights(model: Any) -> Iterator[None]:
    """Within it, the model's attention is the plain one. A model whose attention cannot be chosen stays as it is."""
    configs = list({id(c): c for c in (model.config, model.config.get_text_config())}.values())
    before = [config._attn_implementation for config in configs]
    chosen = model._can_set_attn_implementation()
    try:
        for config in configs if chosen else ():
            config._attn_implementation_internal = WEIGHTS
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation_internal = name


def _model_of(lm: Any) -> Any:
    single = lm.models[0] if isinstance(lm, Replicas) else lm
    if not isinstance(single, TorchModel):
        raise _none(lm, "it is elsewhere, or has an encoder of its own")
    if single.sinks is not None:
        raise _none(lm, f"it was loaded with attention='{single.sinks}', an approximation of them")
    return single.model


def _none(lm: Any, why: str) -> InputError:
    message = f"the model '{getattr(lm, 'name', lm)}' gives no attention weights: {why}"
    return InputError(
        Problem(message, "Use a causal model with attention that is loaded here, or leave the attention view out.", field="attention")
    )
