"""Writing text: greedy and sampled, many prompts at once, with a key-value cache.

Prompts are padded on the left with explicit positions, so that the real tokens stand side by side at the end of every row.
Thoughts (`<think>…</think>`) stay in the text; the read-out cuts them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .forward import takes

if TYPE_CHECKING:
    import torch

_ANCHOR = 4
"""Tokens of the prompt that are decoded along with new ones, since some tokenizers drop a leading space at the start of a text."""
_COMPACT = 0.75
"""Finished rows leave the batch when fewer than this share of it are left: the cache is copied for it."""


@dataclass(slots=True)
class Writer:
    """One text being written."""

    prompt: Sequence[int]
    uniform: random.Random | None
    """Its own source of chance; None: greedy."""
    ids: list[int] = field(default_factory=list)
    text: str = ""
    done: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """When a text ends."""

    max_new_tokens: int
    stop: tuple[str, ...]
    end_ids: frozenset[int]
    """End of text and end of turn."""
    decode: Callable[[Sequence[int]], str]
    temperature: float = 1.0


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
    return Prefilled(out.logits[:, -1], tokens, mask, _cache_of(out) if cached else None)


def _cache_name(model: Any) -> str:
    """transformers 5.24 calls the key-value cache `cache`; before, and in models not renamed yet, it is `past_key_values`."""
    return "cache" if takes(model, "cache") else "past_key_values"


def _cache_of(out: Any) -> Any:
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


def write(model: Any, prompts: Sequence[Sequence[int]], writers: Sequence[Sequence[Writer]], ending: Ending, *, cached: bool) -> None:
    """Fill the writers: `writers[i]` are the texts that continue `prompts[i]`; they share one reading of it.

    cached=False recomputes the whole sequence for every token; prompts must then be of one length.
    """
    import torch

    with torch.inference_mode():
        state = prefill(model, prompts, cached=cached)
        alive = [writer for group in writers for writer in group]
        spread = torch.tensor([i for i, group in enumerate(writers) for _ in group], device=model.device)
        _select(state, spread)
        while True:
            chosen = _choose(state.logits, alive, ending)
            for writer, token in zip(alive, chosen, strict=True):
                if not writer.done:
                    _append(writer, token, ending)
            left = [i for i, writer in enumerate(alive) if not writer.done]
            if not left:
                return
            state.tokens = torch.cat([state.tokens, torch.tensor(chosen, device=model.device)[:, None]], dim=1)
            state.mask = torch.cat([state.mask, torch.ones_like(state.mask[:, :1])], dim=1)
            if len(left) <= _COMPACT * len(alive):
                alive = [alive[i] for i in left]
                _select(state, torch.tensor(left, device=model.device))
            if cached:
                inputs = _step_inputs(model, state.tokens, state.mask, 1)
                inputs[_cache_name(model)] = state.cache
                out = model(**inputs, use_cache=True)
                state.cache = _cache_of(out)
            else:
                out = model(**_step_inputs(model, state.tokens, state.mask, state.tokens.shape[1]), use_cache=False)
            state.logits = out.logits[:, -1]


def _select(state: Prefilled, rows: torch.Tensor) -> None:
    state.logits, state.tokens, state.mask = state.logits[rows], state.tokens[rows], state.mask[rows]
    if state.cache is not None:
        state.cache.batch_select_indices(rows)


def _choose(logits: torch.Tensor, alive: Sequence[Writer], ending: Ending) -> list[int]:
    """The next token of every row. Chance comes from each text's own generator, so it does not depend on the batch."""
    import torch

    if all(writer.uniform is None for writer in alive):
        return [int(i) for i in logits.argmax(-1)]
    totals = torch.softmax(logits.double() / ending.temperature, dim=-1).cumsum(-1)
    draws = [writer.uniform.random() if writer.uniform is not None else 0.0 for writer in alive]
    points = torch.tensor(draws, dtype=torch.float64, device=logits.device)[:, None] * totals[:, -1:]
    found = torch.searchsorted(totals, points, right=True).clamp_max(logits.shape[-1] - 1)
    return [int(i) for i in found[:, 0]]


def _append(writer: Writer, token: int, ending: Ending) -> None:
    if token in ending.end_ids:
        writer.done = True
        return
    writer.ids.append(token)
    writer.text = _written(writer, ending)
    cuts = [at for stop in ending.stop if (at := writer.text.find(stop)) >= 0]
    if cuts:
        writer.text = writer.text[: min(cuts)]
    writer.done = bool(cuts) or len(writer.ids) >= ending.max_new_tokens


def _written(writer: Writer, ending: Ending) -> str:
    """The new text alone, with the leading space it has behind the prompt."""
    anchor = list(writer.prompt[-_ANCHOR:])
    before = ending.decode(anchor)
    joined = ending.decode(anchor + writer.ids)
    return joined[len(before) :] if joined.startswith(before) else ending.decode(writer.ids)
