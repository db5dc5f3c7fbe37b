"""Training an encoder with the embeddings of those tokens alone that its texts have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class _Used(nn.Module):
    """Rows of a table of embeddings under their old numbers."""

    def __init__(self, table: nn.Embedding, used: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(table.weight.detach()[used].clone())
        place = torch.full((table.num_embeddings,), -1, dtype=torch.long, device=used.device)
        place[used] = torch.arange(len(used), device=used.device)
        self.place: Tensor
        self.register_buffer("place", place, persistent=False)
        self.padding_idx = None if table.padding_idx is None else int(place[table.padding_idx])

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(self.place[ids], self.weight, self.padding_idx)


@contextmanager
def only_used_words(module: Any, ids: Iterable[int]) -> Iterator[None]:
    """In the block a SentenceTransformer has the embeddings of these tokens alone, and may be shown no others; then they are put back among
    the others, which are as they were.

    Else each step takes gradients and moments of the whole vocabulary along, half the weights of a small encoder, to change nothing there
    but by the decay of weights. An encoder whose embeddings are no plain table stays as it is.
    """
    model = getattr(module[0], "auto_model", None)
    table = model.get_input_embeddings() if model is not None else None
    if model is None or type(table) is not nn.Embedding or table.max_norm is not None or table.scale_grad_by_freq:
        yield
        return
    padding = () if table.padding_idx is None else (table.padding_idx,)
    used = torch.tensor(sorted({*ids, *padding}), device=table.weight.device)
    small = _Used(table, used)
    model.set_input_embeddings(small)
    try:
        yield
    finally:
        with torch.no_grad():
            table.weight[used] = small.weight
        model.set_input_embeddings(table)
