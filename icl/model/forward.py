"""One forward pass over packed rows: which token may see which, and logits only where a continuation is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from .tree import Row

if TYPE_CHECKING:
    import torch

_SOFTMAX_ROWS = 64
"""Positions whose vocabularies are normalised at once, so that they stay in a CPU's cache."""
Path = Literal["tree", "mask", "padded", "single"]
"""tree: everything shared, by attention of our own. mask: shared within rows, by a dense mask. padded: one row per continuation, padded on the right. single: one sequence at a time."""


def text_config(model: Any) -> Any:
    """The configuration of the language part of a model."""
    return model.config.get_text_config()


def takes(model: Any, argument: str) -> bool:
    """True if the model's forward names this argument."""
    return argument in _arguments(type(model).forward)


@cache
def _arguments(forward: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


def row_values(model: Any, rows: Sequence[Row], path: Path) -> list[list[float]]:
    """Log-likelihoods in nats of `row.reads`, one list per row, from one forward pass. Log-softmax is taken in fp32."""
    import torch

    with torch.inference_mode():
        logits, which = read_logits(model, rows, path)
        values = read_values(logits, which, [read.target for row in rows for read in row.reads])
    result, at = [], 0
    for row in rows:
        result.append(values[at : at + len(row.reads)])
        at += len(row.reads)
    return result


def read_logits(model: Any, rows: Sequence[Row], path: Path) -> tuple[torch.Tensor, list[int]]:
    """(positions, vocabulary) logits of one forward pass wherever a token is read, and for each read of the rows, in order, its position.
    Gradients flow where they are enabled."""
    import torch

    if path == "single":
        assert len(rows) == 1
    device = model.device
    nodes = [sorted({read.node for read in row.reads}) for row in rows]
    place = [{node: at for at, node in enumerate(found)} for found in nodes]
    offsets = [sum(map(len, nodes[:r])) for r in range(len(rows))]
    batch_at = torch.tensor([r for r, found in enumerate(nodes) for _ in found], dtype=torch.long, device=device)
    node_at = torch.tensor([node for found in nodes for node in found], dtype=torch.long, device=device)
    logits = gathered_logits(model, _inputs(model, rows, path), batch_at, node_at)
    return logits, [offsets[r] + place[r][read.node] for r, row in enumerate(rows) for read in row.reads]


def read_values(logits: torch.Tensor, which: Sequence[int], targets: Sequence[int]) -> list[float]:
    """Log-likelihoods in nats of the targets, each at its row of (positions, vocabulary) logits. Log-softmax is taken in fp32."""
    import torch

    if not which:
        return []
    index = torch.tensor(which, dtype=torch.long, device=logits.device)
    target = torch.tensor(targets, dtype=torch.long, device=logits.device)
    order = index.argsort()
    values = torch.empty(len(which), dtype=torch.float64)
    found = []
    starts = torch.searchsorted(index[order], torch.arange(0, len(logits) + _SOFTMAX_ROWS, _SOFTMAX_ROWS, device=logits.device))
    for block, (low, high) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        # log_softmax, not logsumexp: on a CPU the former is off by up to 2e-5 nat at a large vocabulary (it adds up in fp32), and so
        # is everybody else's reference. Agreeing with a plain fp32 computation is worth more here than the last digit.
        first = block * _SOFTMAX_ROWS
        shares = torch.log_softmax(logits[first : first + _SOFTMAX_ROWS].float(), dim=-1)
        chosen = order[low:high]
        found.append(shares[index[chosen] - first, target[chosen]])
    values[order.cpu()] = torch.cat(found).double().cpu()
    result: list[float] = values.tolist()
    return result


def gathered_logits(model: Any, inputs: dict[str, Any], batch_at: torch.Tensor, node_at: torch.Tensor) -> torch.Tensor:
    """(positions, vocabulary) logits. The head sees the gathered positions only, so whatever the model does behind its head
    (scaling, soft-capping) still happens."""

    def gather(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]  # on the device of the last layers, where a model lies on several
        return (hidden[batch_at.to(hidden.device), node_at.to(hidden.device)].unsqueeze(0), *args[1:])

    head = model.get_output_embeddings()
    if head is None:
        logits: torch.Tensor = model(**inputs, use_cache=False).logits
        return logits[batch_at, node_at]
    hook = head.register_forward_pre_hook(gather)
    try:
        gathered: torch.Tensor = model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    return gathered[0]


def _inputs(model: Any, rows: Sequence[Row], path: Path) -> dict[str, Any]:
    import torch

    device = model.device
    width = max(len(row) for row in rows)
    # Padding stands on the right and is seen by itself alone: no real token's value depends on it.
    tokens = torch.tensor([row.tokens + [0] * (width - len(row)) for row in rows], device=device)
    if path == "single":
        return {"input_ids": tokens}
    lengths = torch.tensor([len(row) for row in rows], device=device)
    if path == "padded":
        mask = torch.arange(width, device=device)[None] < lengths[:, None]
        return {"input_ids": tokens, "attention_mask": mask.long()}
    positions = torch.tensor([row.positions + [0] * (width - len(row)) for row in rows], device=device)
    ends = torch.tensor([row.end + list(range(len(row) + 1, width + 1)) for row in rows], device=device)
    return {"input_ids": tokens, "attention_mask": tree_masks(model, positions, ends), "position_ids": positions}


def tree_masks(model: Any, positions: torch.Tensor, ends: torch.Tensor) -> Any:
    """The additive 4-d mask of packed rows, or a dictionary of them where layers of the model differ.

    positions, ends: (batch, n). Token q sees token k if `k <= q < end[k]`, and in a layer with a sliding window only if its
    position is less than the window further on.
    """
    import torch

    config = text_config(model)
    places = torch.arange(ends.shape[1], device=ends.device)
    allowed = (places[None, None, :] <= places[None, :, None]) & (places[None, :, None] < ends[:, None, :])
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())

    def additive(visible: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(visible.shape, dtype=model.dtype, device=visible.device)
        return mask.masked_fill_(~visible, torch.finfo(model.dtype).min)[:, None]

    if window is None or kinds == {"full_attention"}:
        return additive(allowed)
    near = additive(allowed & (positions[:, :, None] - positions[:, None, :] < window))
    if len(kinds) > 1:
        return {"full_attention": additive(allowed), "sliding_attention": near}
    return near
