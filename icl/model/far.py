"""What a chunk sees of the path before it, where that is not simply all of it at the positions of one text.

Two cases, one mechanism: keys and values keep the positions they were computed at, the chunk is told by how much its own positions differ
from the places of what it sees.

- Parallel context windows (Ratner et al. 2023, https://arxiv.org/abs/2212.10947): windows of demonstrations are computed apart, each from
  the same position on; the query sees all of them, and its positions go on behind the longest. What all windows begin with (BOS, the
  instruction) stands there once; the authors keep BOS once in the same way.
- Attention sinks (StreamingLLM, Xiao et al. 2024, https://arxiv.org/abs/2309.17453): a token sees the first few tokens and the last so
  many. Departure: positions stay those of the text (the authors count them within the cache), so that wherever the text is shorter than
  what is seen, scores are those of the whole attention; it saves memory and does not lengthen what the model can read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem
from .chunks import Chunk, Run
from .forward import Path, text_config

if TYPE_CHECKING:
    from .flat import Kept


@dataclass(frozen=True, slots=True)
class Sinks:
    """Tokens that are seen: the first `first`, and the last `recent`, the token itself among them."""

    first: int
    recent: int

    def __str__(self) -> str:
        return f"sink:{self.first}+{self.recent}"

    @property
    def n_kept(self) -> int:
        """Most positions of the path that a token behind it sees."""
        return self.first + self.recent - 1

    def seen(self, chunk: Chunk) -> tuple[Chunk, int]:
        """The chunk over what is left of the path before it, and how many positions of that path are gone.

        All of its tokens must descend from the path's last one.
        """
        gone = max(chunk.n_kept - self.n_kept, 0)
        n_left = chunk.n_kept - gone
        whole = sum(run.length for run in chunk.path if run.kept) == chunk.n_kept
        # Where the path was cut to before this chunk, whoever goes on there has kept what it needs.
        path = [run for run in chunk.path if not run.kept] if whole else []
        if path and n_left:
            path = [Run(0, 0, n_left, True), *path]
        depths = [depth - gone for depth in chunk.depths]
        return Chunk(n_left, chunk.tokens, depths, chunk.ends, chunk.reads, chunk.nodes, tuple(path), chunk.items), gone

    def left(self, kept: Kept) -> Kept:
        """Of a path's keys and values those that tokens behind it see."""
        import torch

        if not kept or kept[0][0].shape[1] <= self.n_kept:
            return kept
        start = kept[0][0].shape[1] - self.recent + 1

        def both(tensor: torch.Tensor) -> torch.Tensor:
            return torch.cat([tensor[:, : self.first], tensor[:, start:]], dim=1)

        return [(both(keys), both(values)) for keys, values in kept]


def sinks_of(attention: str | None) -> Sinks | None:
    """What `attention=` means: None, or `sink:FIRST+RECENT`. Raises InputError."""
    if attention is None:
        return None
    found = re.fullmatch(r"sink:(\d+)\+(\d+)", attention)
    if found is None or int(found[2]) < 1:
        raise InputError(
            Problem(
                f"'{attention}' is no attention",
                "Write attention='sink:4+2048' (each token sees the first 4 and the last 2,048), or leave it out.",
                field="attention",
            )
        )
    return Sinks(int(found[1]), int(found[2]))


def cannot_see_far(model: Any, path: Path) -> str | None:
    """Why neither sinks nor parallel windows can be had with a model; None: they can."""
    if path != "tree":
        return "the model's attention is not planned here (see `icl doctor`)"
    config = text_config(model)
    kinds = set(getattr(config, "layer_types", None) or ("sliding_attention",))
    if getattr(config, "sliding_window", None) is not None and "sliding_attention" in kinds:
        return "the model has a sliding window of its own"
    return None


@dataclass(frozen=True, slots=True, order=True)
class Abreast:
    """Windows that stand side by side behind what they all begin with."""

    head: tuple[int, ...]
    windows: tuple[tuple[int, ...], ...]
    """Each without the head; the query stands in none of them."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Head and windows, as their keys lie in memory."""
        return (*self.head, *(token for window in self.windows for token in window))

    @property
    def n_positions(self) -> int:
        """Where the query's positions begin."""
        return len(self.head) + max(map(len, self.windows))

    @property
    def shift(self) -> int:
        """What a place in memory differs from a position by."""
        return self.n_positions - len(self.ids)
