"""At load time: does this architecture give exactly the naive numbers on the fast path, and if not, on which path?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .chunks import Room, chunks
from .flat import Kept, chunk_values
from .forward import Path, row_values, takes, text_config
from .tree import Item, Row, pack, pack_apart

FP32_TOLERANCE = 1e-4
"""Nats per continuation, in fp32."""
COARSE_TOLERANCE = 0.25
"""Nats per token in 16-bit and quantised arithmetic, where equal sums in another order differ by several hundredths."""
_WINDOW = 5


@dataclass(frozen=True, slots=True)
class Examined:
    """What the check found."""

    path: Path
    why: str
    deviation: float
    """Largest difference between the chosen path and the naive computation, in nats per continuation."""
    left_padding: bool
    """True if prompts of different lengths can be generated in one batch."""


def examine(model: Any) -> Examined:
    """Compare each path, from the fastest on, with one plain sequence at a time, on a few tokens: the first that agrees is taken."""
    items = _items(text_config(model).vocab_size)
    reasons = []
    unfit = _unfit(model)
    shared: tuple[tuple[Path, str, str], ...] = (
        ("tree", "every unique token once, attention by the prefix tree", "its attention cannot be steered"),
        ("mask", "prefixes are shared within rows, by a 4-d mask", "it does not take a 4-d attention mask"),
    )
    for path, what, refused in shared if unfit is None else ():
        try:
            deviation = _deviation(model, items, path)
        except Exception as error:  # an architecture may reject either in any way it likes; then it cannot take it
            text = (str(error).splitlines() or [""])[0][:100]
            reasons.append(f"{refused} ({type(error).__name__}: {text})")
        else:
            if deviation <= tolerance(model):
                why = f"{what}, since {'; '.join(reasons)}" if reasons else what
                return Examined(path, f"{why}; checked against plain sequences", deviation, _left_padding(model))
            reasons.append(f"on the path '{path}' its values are off by {deviation:.2g} nat")
    if unfit is not None:
        reasons.append(unfit)
    try:
        deviation = _deviation(model, items, "padded")
    except Exception as error:
        reasons.append(f"padded rows fail ({type(error).__name__})")
    else:
        if deviation <= tolerance(model):
            return Examined("padded", f"one padded row per continuation, since {'; '.join(reasons)}", deviation, _left_padding(model))
        reasons.append(f"with padding its values are off by {deviation:.2g} nat")
    return Examined("single", f"one sequence at a time, since {'; '.join(reasons)}", 0.0, False)


def tolerance(model: Any) -> float:
    """Accepted deviation of a continuation of the check, in nats."""
    import torch

    method = getattr(model, "quantization_method", None)
    quantised = method is not None and getattr(method, "value", method) != "gguf"  # those blocks are plain numbers once they are read
    return FP32_TOLERANCE if model.dtype == torch.float32 and not quantised else 4 * COARSE_TOLERANCE


def stateful(model: Any) -> bool:
    """True for state-space models and hybrids, whose state no attention mask reaches."""
    kinds = set(getattr(text_config(model), "layer_types", None) or ())
    return bool(getattr(model, "_is_stateful", False)) or bool(kinds - {"full_attention", "sliding_attention"})


def _unfit(model: Any) -> str | None:
    """Why the fast path is out of the question, as far as the configuration tells."""
    if stateful(model):
        return "it carries a state from token to token, which an attention mask does not steer"
    if not takes(model, "position_ids"):
        return "it takes no explicit positions (its positions come from places in the row)"
    return None


def _items(vocabulary: int) -> list[Item]:
    def ids(*seeds: int) -> tuple[int, ...]:
        return tuple(7 + (seed * 7919) % max(vocabulary - 8, 1) for seed in seeds)

    common = ids(*range(1, 9))
    return [
        Item(0, common + ids(20, 21), (ids(30), ids(31, 32, 33), ids(31, 34))),
        Item(1, common + ids(22, 23, 24), (ids(30), ids(35, 36, 37, 38))),
    ]


def sums(rows: list[Row], values: list[list[float]]) -> dict[tuple[int, int], float]:
    """(item, continuation) -> sum of its tokens' log-likelihoods."""
    total: dict[tuple[int, int], float] = {}
    for row, found in zip(rows, values, strict=True):
        for read, value in zip(row.reads, found, strict=True):
            key = (read.item, read.continuation)
            total[key] = total.get(key, 0.0) + value
    return total


def _tree_sums(model: Any, items: list[Item]) -> dict[tuple[int, int], float]:
    """As scoring does it, in chunks of a few tokens, so that keys and values are handed on."""
    total: dict[tuple[int, int], float] = {}
    kept: Kept = []
    for chunk in chunks(items, Room(9, 1 << 20)):
        values, kept = chunk_values(model, chunk, kept)
        for read, value in zip(chunk.reads, values, strict=True):
            key = (read.item, read.continuation)
            total[key] = total.get(key, 0.0) + value
    return total


def _deviation(model: Any, items: list[Item], path: Path) -> float:
    """Largest difference to the naive values; models with a sliding window are compared beyond it, with a narrower one."""
    with narrow_window(model) as narrowed:
        apart = pack_apart(items)
        naive = sums(apart, [row_values(model, [row], "single")[0] for row in apart])
        if path == "tree":
            found = _tree_sums(model, items)
        else:
            rows = pack(items, 10**6, min_shared=1) if path == "mask" else apart
            found = sums(rows, row_values(model, rows, path))
        deviation = max(abs(found[key] - naive[key]) for key in naive)
    if narrowed:  # the check beyond the window means something only if the window was really narrower
        wide = sums(apart, [row_values(model, [row], "single")[0] for row in apart])
        if max(abs(wide[key] - naive[key]) for key in naive) <= tolerance(model):
            return float("inf")
    return deviation


@contextlib.contextmanager
def narrow_window(model: Any) -> Iterator[bool]:
    """Give a model with a sliding window a window of a few tokens for a while, so that short texts reach beyond it."""
    config = text_config(model)
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ("sliding_attention",))
    if window is None or "sliding_attention" not in kinds or window <= _WINDOW:
        yield False
        return
    config.sliding_window = _WINDOW
    try:
        yield True
    finally:
        config.sliding_window = window


def _left_padding(model: Any) -> bool:
    """True if padding on the left, with explicit positions, leaves the next token's values as they are."""
    import torch

    from .padded import prefill

    if stateful(model):
        return False
    vocabulary = text_config(model).vocab_size
    long, short = [list(_items(vocabulary)[i].prefix) for i in (1, 0)]
    try:
        with torch.inference_mode():
            both = prefill(model, [long, short]).logits
            alone = prefill(model, [short]).logits
    except Exception:  # as above: a model that fails here is simply given prompts of one length at a time
        return False
    difference = (torch.log_softmax(both[1].float(), -1) - torch.log_softmax(alone[0].float(), -1)).abs().max()
    return bool(difference <= tolerance(model))
