"""Virtual tokens: positions in front of every prompt that no word stands at and whose vectors are learned.

They have ids above the vocabulary, so to whatever plans and batches token ids they are tokens as all others: a prompt begins with them,
they are computed once where prompts share their beginning, and they take up room in the window. (PEFT hands them to the model beside the
ids, where a prefix tree does not see them.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, Problem
from ..model.codec import TokenizerCodec
from ..protocols import Encoded
from ..values import Message
from .layers import layers_of


class SoftEmbedding(nn.Module):
    """An embedding with further rows of its own. Prompt tuning (Lester et al. 2021, https://arxiv.org/abs/2104.08691) learns them."""

    soft: Tensor

    def __init__(self, embedding: Any, rows: Tensor, *, learned: bool) -> None:
        super().__init__()
        self.embedding = embedding
        if learned:
            self.soft = nn.Parameter(rows.clone())
        else:
            self.register_buffer("soft", rows.clone(), persistent=False)
        self.places: Tensor | None = None
        """(batch, n): which virtual token stands where in the pass that runs, -1 for others."""

    @property
    def weight(self) -> Any:
        return self.embedding.weight

    @property
    def first(self) -> int:
        """The id of the first virtual token."""
        return int(self.embedding.weight.shape[0])

    def forward(self, ids: Tensor) -> Tensor:
        is_virtual = ids >= self.first
        self.places = torch.where(is_virtual, ids - self.first, -1)
        found: Tensor = self.embedding(ids.masked_fill(is_virtual, 0))
        return torch.where(is_virtual.unsqueeze(-1), self.soft[self.places.clamp_min(0)].to(found.dtype), found)


class SoftProjection(nn.Module):
    """A projection whose output at virtual tokens is learned. Of the keys and values of every layer: prefix tuning (Li and Liang 2021,
    https://arxiv.org/abs/2101.00190), without the network that makes them there. Positions are put into keys behind it."""

    def __init__(self, projection: Any, embedding: SoftEmbedding, rows: Tensor) -> None:
        super().__init__()
        self.projection = projection
        self.soft = nn.Parameter(rows.clone())
        self._embedding = (embedding,)  # in a tuple it is no module of this one

    def forward(self, states: Tensor) -> Tensor:
        found: Tensor = self.projection(states)
        places = self._embedding[0].places
        assert places is not None
        return torch.where((places >= 0).unsqueeze(-1), self.soft[places.clamp_min(0)].to(found.dtype), found)


class SoftCodec(TokenizerCodec):
    """A tokenizer whose prompts begin with virtual tokens."""

    def __init__(self, codec: TokenizerCodec, virtual: Sequence[int]) -> None:
        super().__init__(codec.tokens)
        self.virtual = tuple(virtual)

    def plains(self, texts: Sequence[str]) -> list[Encoded]:
        return [self._behind(encoded) for encoded in super().plains(texts)]

    def chat(self, messages: Sequence[Message]) -> Encoded:
        return self._behind(super().chat(messages))

    def _behind(self, encoded: Encoded) -> Encoded:
        n = len(self.virtual)
        return replace(encoded, ids=self.virtual + encoded.ids, n_tokens=encoded.n_tokens + n, n_head=encoded.n_head + n)


def soften(model: Any, n: int, begin: Sequence[int], *, keys_and_values: bool) -> tuple[int, ...]:
    """Give a model n virtual tokens, in place; their ids. They begin as the tokens `begin`, from the front again where those are fewer.

    keys_and_values: what is learned is their keys and values in every layer, else their embeddings. Raises InputError for a model
    without projections of keys and values apart from each other.
    """
    embedding = model.get_input_embeddings()
    ids = torch.tensor([[begin[i % len(begin)] for i in range(n)]], device=embedding.weight.device)
    with torch.no_grad():
        soft = SoftEmbedding(embedding, embedding(ids)[0], learned=not keys_and_values)
    if keys_and_values:
        projections = _projections(model)
        rows = _outputs(model, projections, ids)
        for (parent, name, projection), values in zip(projections, rows, strict=True):
            setattr(parent, name, SoftProjection(projection, soft, values))
    model.set_input_embeddings(soft)
    return tuple(range(soft.first, soft.first + n))


def _projections(model: Any) -> list[tuple[nn.Module, str, Any]]:
    """(module, name in it, projection) of the keys and values of every layer."""
    found = []
    for _, layer in layers_of(model):
        for parent in layer.modules():
            found += [(parent, name, child) for name, child in parent.named_children() if name in ("k_proj", "v_proj")]
    if not found:
        raise InputError(
            Problem(
                "the model has no projections of keys and of values that stand apart (k_proj, v_proj), so it has no prefix to tune",
                "Use kind: prompt, lora or bitfit.",
                field="kind",
            )
        )
    return found


def _outputs(model: Any, projections: Sequence[tuple[nn.Module, str, Any]], ids: Tensor) -> list[Tensor]:
    """What each projection gives for these tokens, (n, width)."""
    found: list[Tensor] = []
    hooks = [each.register_forward_hook(lambda module, args, output: found.append(output[0].detach())) for _, _, each in projections]
    try:
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found
