"""Texts as an encoder reads them: token ids, and what becomes of a text that is longer than the encoder reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch

Long: TypeAlias = Literal["truncate", "head_tail", "slide"]
HEAD = 0.25
"""Share of the room that the beginning of a text gets with head_tail (Sun et al. 2019, https://arxiv.org/abs/1905.05583: 128 of 512)."""
OVERLAP = 0.25
"""Share of a window that the one before it has too."""
MOST_WINDOWS = 16
"""Of one text; of a longer one, windows spread over it evenly are read."""
MAX_BATCH, MAX_BATCH_TOKENS = 64, 16_384
PLAIN_LIMIT = 512
"""Tokens read at most where neither the user nor a sentence-transformers folder says; some models could read many more."""


@dataclass(frozen=True, slots=True)
class Read:
    """A text as a model reads it."""

    windows: tuple[tuple[int, ...], ...]
    """Token ids with the model's control tokens, one tuple unless the text slides."""
    types: tuple[tuple[int, ...], ...]
    """Segment of each token, parallel."""
    n_cut: int
    """Tokens that no window has."""

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.windows))


class Reader:
    """A tokenizer, the room there is, and what is done with long texts. Fields of a row are segments, as in pairs of sentences."""

    def __init__(self, tokenizer: Any, limit: int, long: Long) -> None:
        self.tokenizer, self.limit, self.long = tokenizer, limit, long
        # What the tokenizer puts around one text and between two; found by trying, since each family has its own way.
        inner = tokenizer("a", add_special_tokens=False)["input_ids"]
        one, two = tokenizer("a")["input_ids"], tokenizer("a", "a")
        start = _find(one, inner)
        self.before, self.after = one[:start], one[start + len(inner) :]
        second = _find(two["input_ids"], inner, start + len(inner))
        self.between = two["input_ids"][start + len(inner) : second]
        types = two.get("token_type_ids") or [0] * len(two["input_ids"])
        self.second_type: int = types[second]

    def read(self, fields: Sequence[str]) -> Read:
        """fields: the texts of a row's fields, in their order."""
        parts = [
            self.tokenizer(_clean(field), add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
            for field in fields
        ]
        room = self.limit - len(self.before) - len(self.after)
        spent = len(self.between) * (len(parts) - 1)
        n = sum(map(len, parts))
        if self.long == "truncate" and n + spent > room:
            parts = _shortened(parts, room - spent)
        ids = [token for i, part in enumerate(parts) for token in (*(self.between if i else ()), *part)]
        types = [int(i > 0) * self.second_type for i, part in enumerate(parts) for _ in (*(self.between if i else ()), *part)]
        pieces = self._pieces(len(ids), room)
        covered = len({at for piece in pieces for at in piece})
        last = types[-1] if types else 0
        return Read(
            tuple((*self.before, *(ids[at] for at in piece), *self.after) for piece in pieces),
            tuple((*(0 for _ in self.before), *(types[at] for at in piece), *(last for _ in self.after)) for piece in pieces),
            n + spent - covered if self.long == "truncate" else len(ids) - covered,
        )

    def _pieces(self, n: int, room: int) -> list[list[int]]:
        """Positions of the body that each window has."""
        if n <= room:
            return [list(range(n))]
        if self.long == "truncate":
            return [list(range(room))]
        if self.long == "head_tail":
            head = int(room * HEAD)
            return [[*range(head), *range(n - (room - head), n)]]
        step = max(1, room - int(room * OVERLAP))
        starts = [*range(0, n - room, step), n - room]
        if len(starts) > MOST_WINDOWS:
            starts = [starts[round(i * (len(starts) - 1) / (MOST_WINDOWS - 1))] for i in range(MOST_WINDOWS)]
        return [list(range(start, start + room)) for start in starts]


def padded(windows: Sequence[tuple[Sequence[int], Sequence[int]]], pad: int) -> dict[str, torch.Tensor]:
    """(ids, types) of some windows as tensors (n, longest), padded on the right."""
    width = max(1, *(len(ids) for ids, _ in windows))
    return {
        "input_ids": torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids, _ in windows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in windows]),
        "token_type_ids": torch.tensor([[*types, *[0] * (width - len(types))] for _, types in windows]),
    }


def equal_lengths(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Positions in batches of one length each, longest first: nothing is padded, so what is computed for a text does not depend on what
    it is computed beside."""
    groups: Mapping[int, list[int]] = defaultdict(list)
    for i, n in enumerate(lengths):
        groups[n].append(i)
    for n in sorted(groups, reverse=True):
        size = max(1, min(MAX_BATCH, MAX_BATCH_TOKENS // max(1, n)))
        for start in range(0, len(groups[n]), size):
            yield groups[n][start : start + size]


def _shortened(parts: list[list[int]], room: int) -> list[list[int]]:
    """The end of the longest part goes first, token by token."""
    lengths = [len(part) for part in parts]
    excess = max(0, sum(lengths) - max(0, room))
    while excess:
        longest = max(lengths)
        at = lengths.index(longest)
        below = max((n for n in lengths if n < longest), default=0)
        ties = lengths.count(longest)
        take = min(excess, max(1, (longest - below) if ties == 1 else 1))
        lengths[at] -= take
        excess -= take
    return [part[:n] for part, n in zip(parts, lengths, strict=True)]


def _find(ids: Sequence[int], inner: Sequence[int], start: int = 0) -> int:
    for at in range(start, len(ids) - len(inner) + 1):
        if list(ids[at : at + len(inner)]) == list(inner):
            return at
    raise ValueError("the tokenizer does not keep a text together")


def _clean(text: str) -> str:
    """Half a surrogate pair, as broken JSON gives, is no text for a tokenizer: it becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
