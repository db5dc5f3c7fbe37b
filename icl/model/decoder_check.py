"""What an encoder-decoder model is like: where its decoder starts, how much it reads, and whether sharing changes its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InputError, Problem
from .check import tolerance
from .codec import TokenizerCodec
from .decoder_rows import Ids, continuation_values, decoder_rows, first_values, open_prompts, plain_value
from .forward import text_config

_NO_LIMIT = 1 << 20
_WINDOWS = {
    "encoder": ("max_encoder_position_embeddings", "max_source_positions", "max_position_embeddings", "n_positions"),
    "decoder": ("max_decoder_position_embeddings", "max_target_positions", "max_position_embeddings", "n_positions"),
}


@dataclass(frozen=True, slots=True)
class SharingExamined:
    """What the check at load time found."""

    path: Literal["rows", "single"]
    """rows: a prompt is read once, its continuations are rows behind it. single: one pass per prompt and continuation."""
    why: str
    deviation: float
    """Largest difference between the chosen path and one plain pass per continuation, in nats per continuation."""
    left_padding: bool
    """True if prompts of different lengths can be generated in one batch."""


def examine_sharing(model: Any, first: Ids) -> SharingExamined:
    """Compare shared, padded passes with one plain pass per continuation, on a few tokens.

    Raises InputError if the model's numbers are not finite, as T5's are in float16.
    """
    import torch

    prompts, asked = _work(text_config(model).vocab_size)
    with torch.inference_mode():
        naive = [[plain_value(model, prompt, first, ids) for ids in found] for prompt, found in zip(prompts, asked, strict=True)]
        if not all(math.isfinite(value) for found in naive for value in found):
            raise InputError(
                Problem(f"the model gives no finite numbers in {model.dtype}", "Use dtype='float32' or 'bfloat16'.", field="dtype")
            )
        try:
            state = open_prompts(model, prompts, first)
            found = first_values(state, asked)
            work = [(p, row) for p, continuations in enumerate(asked) for row in decoder_rows(continuations)]
            for (p, i), value in continuation_values(model, state, work, asked).items():
                found[p][i] += value
        except Exception as error:  # an architecture may reject a cache or an encoder's output in any way it likes
            reason = str(error).splitlines()[0][:100] if str(error) else ""
            return _single(f"its decoder cannot go on from what was read once ({type(error).__name__}: {reason})")
    deviation = max(abs(a - b) for x, y in zip(found, naive, strict=True) for a, b in zip(x, y, strict=True))
    if not deviation <= tolerance(model):
        return _single(f"with a prompt read once and padding its values are off by {deviation:.2g} nat")
    return SharingExamined("rows", "a prompt is read once for all its continuations; checked against plain passes", deviation, True)


def _single(reason: str) -> SharingExamined:
    return SharingExamined("single", f"one pass per prompt and continuation, since {reason}", 0.0, False)


def _work(vocabulary: int) -> tuple[list[Ids], list[tuple[Ids, ...]]]:
    def ids(*seeds: int) -> Ids:
        return tuple(7 + (seed * 7919) % max(vocabulary - 8, 1) for seed in seeds)

    prompts = [ids(*range(1, 12)), ids(*range(5, 10))]
    return prompts, [(ids(30), ids(31, 32, 33), ids(31, 32, 34, 35)), (ids(36, 37), ids(36, 37, 38))]


def decoder_start(model: Any, prefix: Ids) -> Ids:
    """The tokens a decoder starts with: the model's start token, then the one that its checkpoint forces, else what the tokenizer puts
    in front of a text."""
    start = _setting(model, "decoder_start_token_id", "bos_token_id", "pad_token_id")
    forced = _setting(model, "forced_bos_token_id")
    behind = prefix if forced is None else (forced,)
    return behind or (0,) if start is None or behind[:1] == (start,) else (start, *behind)


def _setting(model: Any, *names: str) -> int | None:
    for name in names:
        for source in (getattr(model, "generation_config", None), model.config):
            value = getattr(source, name, None)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return None


def window(model: Any, side: Literal["encoder", "decoder"]) -> int:
    """Most tokens that one side reads. Relative positions (T5) know no limit; what a checkpoint was trained on may be far less."""
    own = getattr(model.config, side, None)
    config = own if hasattr(own, "vocab_size") else model.config
    if hasattr(config, "relative_attention_num_buckets"):
        return _NO_LIMIT
    return next((value for name in _WINDOWS[side] if isinstance(value := getattr(config, name, None), int) and value > 0), _NO_LIMIT)


def end_ids(model: Any, codec: TokenizerCodec) -> frozenset[int]:
    """Tokens that end a text."""
    found: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config):
        eos = getattr(source, "eos_token_id", None)
        found |= set(eos) if isinstance(eos, list | tuple) else {eos} if eos is not None else set()
    if codec.tokens.eos is not None:
        found.add(codec.tokens.eos)
    return frozenset(found)
