"""The plain way to write: the cache that transformers has for the model, prompts padded on the left with explicit positions.

For models whose attention cannot be planned, such as those with ALiBi or with a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .decoding import Ending, Writer, append, choose
from .forward import takes

if TYPE_CHECKING:
    import torch

COMPACT = 0.75
"""Finished rows leave the batch when fewer than this share of it are left: the cache is copied for it."""


@dataclass(slots=True)
class Prefilled:
    """A batch whose prompts have been read."""

    logits: torch.Tensor
    """(rows, vocabulary), for the next token."""
    tokens: torch.Tensor
    mask: torch.Tensor
    cache: Any


def prefill(model: Any, prompts: Sequence[Sequence[int]], *, cached: bool = True) -> Prefilled:
    """Read prompts in one pass. cached=False: for models whose state cannot be split between rows."""
    import torch

    width = max(map(len, prompts))
    tokens = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    out = model(**_step_inputs(model, tokens, mask, width), use_cache=cached)
    return Prefilled(out.logits[:, -1], tokens, mask, cache_of(out) if cached else None)


def cache_name(model: Any) -> str:
    """transformers 5.24 calls the key-value cache `cache`; before, and in models not renamed yet, it is `past_key_values`."""
    return "cache" if takes(model, "cache") else "past_key_values"


def cache_of(out: Any) -> Any:
    return out.cache if hasattr(out, "cache") else out.past_key_values


def _step_inputs(model: Any, tokens: torch.Tensor, mask: torch.Tensor, n_new: int) -> dict[str, Any]:
    inputs: dict[str, Any] = {"input_ids": tokens[:, -n_new:]}
    if n_new == tokens.shape[1] and bool((mask == 1).all()):
        return inputs | ({"logits_to_keep": 1} if takes(model, "logits_to_keep") else {})
    inputs["attention_mask"] = mask
    if takes(model, "position_ids"):
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp_min(0)[:, -n_new:]
    if takes(model, "logits_to_keep"):
        inputs["logits_to_keep"] = 1
    return inputs


def write(model: Any, prompts: Sequence[Sequence[int]], writers: Sequence[Sequence[Writer]], ending: Ending, *, cached: bool) -> int:
    """Finish the writers: `writers[i]` are the texts that continue `prompts[i]`; they share one reading of it.

    cached=False recomputes the whole sequence for every token; prompts must then be of one length. Returns the number of tokens
    computed.
    """
    import torch

    with torch.inference_mode():
        state = prefill(model, prompts, cached=cached)
        n_tokens = state.tokens.numel()
        alive = [writer for group in writers for writer in group]
        _select(state, torch.tensor([i for i, group in enumerate(writers) for _ in group], device=model.device))
        while True:
            chosen = choose(state.logits, alive, ending)
            for writer, token in zip(alive, chosen, strict=True):
                if not writer.done:
                    append(writer, token, ending)
            left = [i for i, writer in enumerate(alive) if not writer.done]
            if not left:
                return n_tokens
            state.tokens = torch.cat([state.tokens, torch.tensor(chosen, device=model.device)[:, None]], dim=1)
            state.mask = torch.cat([state.mask, torch.ones_like(state.mask[:, :1])], dim=1)
            if len(left) <= COMPACT * len(alive):
                alive = [alive[i] for i in left]
                _select(state, torch.tensor(left, device=model.device))
            if cached:
                inputs = _step_inputs(model, state.tokens, state.mask, 1)
                inputs[cache_name(model)] = state.cache
                out = model(**inputs, use_cache=True)
                state.cache = cache_of(out)
            else:
                out = model(**_step_inputs(model, state.tokens, state.mask, state.tokens.shape[1]), use_cache=False)
            state.logits = out.logits[:, -1]
            n_tokens += inputs["input_ids"].numel() if cached else state.tokens.numel()


def _select(state: Prefilled, rows: torch.Tensor) -> None:
    state.logits, state.tokens, state.mask = state.logits[rows], state.tokens[rows], state.mask[rows]
    if state.cache is not None:
        state.cache.batch_select_indices(rows)
