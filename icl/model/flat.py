"""Forward passes over chunks of the prefix tree: all tokens side by side without padding, keys and values of the open path kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .attention import planned
from .chunks import Chunk
from .far import Sinks
from .forward import gathered_logits, read_values
from .groups import Call, Places, calls, groups

if TYPE_CHECKING:
    import torch

Kept = list["tuple[torch.Tensor, torch.Tensor]"]
"""Keys and values of the open path, one pair per layer: (key-value heads, positions, size)."""


def chunk_values(model: Any, chunk: Chunk, kept: Kept, shift: int = 0, sinks: Sinks | None = None) -> tuple[list[float], Kept]:
    """Log-likelihoods in nats of `chunk.reads`, and the keys and values of the path that stays open behind the chunk.

    kept: those of the path before it, at least `chunk.n_kept` positions. shift: how far the tokens' positions lie behind their places on
    the path. sinks: tokens see the first and the last so many only. One forward pass; log-softmax in fp32.
    """
    import torch

    with torch.inference_mode():
        device = model.device
        plan = ChunkPlan(chunk, kept, device, sinks)
        inputs = {
            "input_ids": torch.tensor([chunk.tokens], device=device),
            "position_ids": torch.tensor([[depth + shift for depth in chunk.depths]], device=device),
        }
        nodes = sorted(chunk.nodes) or [0]
        place = {node: at for at, node in enumerate(nodes)}
        with planned(model, plan):
            logits = gathered_logits(
                model, inputs, torch.zeros(len(nodes), dtype=torch.long, device=device), torch.tensor(nodes, device=device)
            )
        values = read_values(logits, [place[read.node] for read in chunk.reads], [read.target for read in chunk.reads])
    return values, plan.path


def _handed_on(chunk: Chunk, kept: Kept) -> Kept | None:
    """What stays open behind a chunk, where it adds nothing to it: nothing, or a part of what was kept before. Else None."""
    if not all(run.kept for run in chunk.path):
        return None
    n = sum(run.length for run in chunk.path)
    return [(k[:, :n], v[:, :n]) for k, v in kept] if n else []


class ChunkPlan:
    """The attention of one chunk."""

    def __init__(self, chunk: Chunk, kept: Kept, device: Any, sinks: Sinks | None = None) -> None:
        self.chunk = chunk
        self.kept = kept
        self.sinks = sinks
        handed = _handed_on(chunk, kept)
        self.path: Kept = handed or []
        self._calls = [_Call(call, chunk, device, sinks) for call in calls(list(groups(chunk)))]
        self._open = self._open_places(device) if handed is None else None

    def _open_places(self, device: Any) -> torch.Tensor | None:
        import torch

        places: list[int] = []
        for run in self.chunk.path:
            start = run.start if run.kept else self.chunk.n_kept + run.start
            places += range(start, start + run.length)
        return torch.tensor(places, device=device) if places else None

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        import torch

        keys, values = key[0], value[0]
        if self.sinks is not None:
            window = self.sinks.recent
        if n := self.chunk.n_kept:
            keys = torch.cat([self.kept[layer][0][:, :n], keys], dim=1)
            values = torch.cat([self.kept[layer][1][:, :n], values], dim=1)
        if self._open is not None:
            self.path.append((keys.index_select(1, self._open), values.index_select(1, self._open)))
        if len(self._calls) == 1 and self._calls[0].whole:
            return self._calls[0].attend(query[0], keys, values, scaling, window, softcap)[0].transpose(0, 1)[None]
        out = query.new_empty(query.shape[2], query.shape[1], value.shape[-1])
        for call in self._calls:
            call.write(out, call.attend(query[0], keys, values, scaling, window, softcap))
        return out[None]


class _Call:
    """A call of groups on a device; masks are built once, not at every layer."""

    def __init__(self, call: Call, chunk: Chunk, device: Any, sinks: Sinks | None) -> None:
        self._places = Places(call, chunk, 0 if sinks is None else sinks.first)
        self._device = device
        self._single = call.groups[0] if len(call.groups) == 1 else None
        self._causal = call.causal
        self._masks: dict[int | None, torch.Tensor] = {}
        self.whole = self._single is not None and self._single.n_queries == len(chunk)
        self._n_kept = chunk.n_kept
        self._prepare()

    def _prepare(self) -> None:
        import torch

        places = self._places
        if self._single is None:
            self._queries = torch.from_numpy(places.queries.reshape(-1)).to(self._device)
            real = torch.from_numpy(places.real.reshape(-1))
            self._padded = not bool(real.all())
            self._real = real.nonzero()[:, 0].to(self._device)
            self._targets = self._queries[self._real]
        self._keys = None if self._key_range() else torch.from_numpy(places.keys.reshape(-1)).to(self._device)

    def _key_range(self) -> tuple[int, int] | None:
        """The keys as one range, where they are one."""
        group = self._single
        if group is None:
            return None
        own = (self._n_kept + group.start, self._n_kept + group.stop)
        if not group.context:
            return own
        if len(group.context) == 1 and group.context[0][1] == own[0]:
            return group.context[0][0], own[1]
        return None

    def attend(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """query: (heads, n, size), of the chunk; keys, values: (key-value heads, kept and chunk, size) -> (groups, heads, n, size)."""
        found = self._key_range()
        if self._single is not None:
            q = query[None, :, self._single.start : self._single.stop]
        else:
            q = _grouped(query, self._queries, len(self._places.call.groups))
        if found is not None:
            k, v = keys[None, :, found[0] : found[1]], values[None, :, found[0] : found[1]]
        else:
            assert self._keys is not None
            k, v = (_grouped(x, self._keys, len(self._places.call.groups)) for x in (keys, values))
        if self._causal and softcap is None and (window is None or window >= k.shape[2]):
            return _sdpa(q, k, v, None, scaling, causal=True)
        mask = self._mask(window, q.dtype)
        return _sdpa(q, k, v, mask, scaling) if softcap is None else _capped(q, k, v, mask, scaling, softcap)

    def _mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        import torch

        if window not in self._masks:
            visible = torch.from_numpy(self._places.visible(window)).to(self._device)
            mask = torch.zeros(visible.shape, dtype=dtype, device=self._device)
            self._masks[window] = mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]
        return self._masks[window]

    def write(self, out: torch.Tensor, found: torch.Tensor) -> None:
        """Put (groups, heads, n, size) in its places of (chunk, heads, size)."""
        if self._single is not None:
            out[self._single.start : self._single.stop] = found[0].transpose(0, 1)
            return
        rows = found.transpose(1, 2).reshape(-1, *out.shape[1:])
        out.index_copy_(0, self._targets, rows[self._real] if self._padded else rows)


def _grouped(tensor: torch.Tensor, places: torch.Tensor, n_groups: int) -> torch.Tensor:
    """(heads, n, size) at flat places -> (groups, heads, n per group, size)."""
    heads, _, size = tensor.shape
    return tensor.index_select(1, places).view(heads, n_groups, -1, size).transpose(0, 1)


def _sdpa(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scaling: float | None, causal: bool = False
) -> torch.Tensor:
    import torch

    share = q.shape[1] // k.shape[1]
    if share > 1 and (mask is None or q.device.type == "cpu"):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scaling, enable_gqa=True)
    if share > 1:  # on CUDA a mask and shared heads together have no fast kernel
        k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scaling)


def _capped(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scaling: float | None, softcap: float) -> torch.Tensor:
    """Attention whose scores are soft-capped (Gemma 2), written out."""
    import torch

    share = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
    scores = q @ k.transpose(-1, -2) * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    scores = torch.tanh(scores / softcap) * softcap + mask
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype) @ v
