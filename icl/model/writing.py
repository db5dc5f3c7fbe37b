"""Writing text with a model on this machine: which prompts are written together, with whose chance, and what happens when memory
runs out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from ..seeds import rng_for
from ..values import digest
from .check import stateful
from .codec import TokenizerCodec
from .decoding import Ending, Writer, write
from .limits import Limits, is_out_of_memory


@dataclass(frozen=True, slots=True)
class Chance:
    """How many texts a prompt gets, and how they are drawn."""

    n: int = 1
    temperature: float = 0.0
    """0: greedy."""
    seed: int = 0


@dataclass(frozen=True)
class Writing:
    """The half of a TorchModel that writes."""

    model: Any
    codec: TokenizerCodec
    limits: Limits
    window: int
    left_padding: bool

    def texts(self, ids: Sequence[tuple[int, ...]], chance: Chance, ending: Ending) -> list[list[str]]:
        """chance.n texts for each prompt of token ids, in order."""
        writers = [[Writer(p, self._uniform(p, j, chance)) for j in range(chance.n)] for p in ids]
        if ending.max_new_tokens > 0:
            for group in self._groups(ids, chance.n, ending.max_new_tokens):
                self._write_group(ids, writers, group, ending)
        return [[writer.text for writer in group] for group in writers]

    @staticmethod
    def _uniform(ids: Sequence[int], number: int, chance: Chance) -> random.Random | None:
        return rng_for(chance.seed, "sample", digest(list(ids)), number) if chance.temperature else None

    def _groups(self, ids: Sequence[tuple[int, ...]], n: int, max_new_tokens: int) -> Iterator[list[int]]:
        """Prompts that are written together: of similar length, or of one length where the model takes no padding."""
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]), reverse=True)
        same = [list(found) for _, found in groupby(order, key=lambda i: len(ids[i]))]
        for candidates in [order] if self.left_padding else same:
            at = 0
            while at < len(candidates):
                rows = self.limits.writing_rows(len(ids[candidates[at]]), max_new_tokens)
                size = max(1, rows // n)
                yield candidates[at : at + size]
                at += size

    def _write_group(self, ids: Sequence[tuple[int, ...]], writers: list[list[Writer]], group: list[int], ending: Ending) -> None:
        room = min(self.window - len(ids[i]) for i in group)
        limited = Ending(min(ending.max_new_tokens, room), ending.stop, ending.end_ids, ending.decode, ending.temperature)
        if room < ending.max_new_tokens and len(group) > 1:  # one long prompt must not shorten its neighbours' texts
            for i in group:
                self._write_group(ids, writers, [i], ending)
            return
        fresh = [[Writer(w.prompt, _copy(w.uniform)) for w in writers[i]] for i in group]
        try:
            write(self.model, [ids[i] for i in group], fresh, limited, cached=not stateful(self.model))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(group) == 1:
                raise
        else:
            for i, done in zip(group, fresh, strict=True):
                writers[i] = done
            return
        self._write_group(ids, writers, group[: len(group) // 2], ending)
        self._write_group(ids, writers, group[len(group) // 2 :], ending)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a text or a turn."""
        found: set[int] = set()
        for source in (getattr(self.model, "generation_config", None), self.model.config):
            eos = getattr(source, "eos_token_id", None)
            found |= set(eos) if isinstance(eos, list | tuple) else {eos} if eos is not None else set()
        if self.codec.tokens.eos is not None:
            found.add(self.codec.tokens.eos)
        if self.codec.has_chat and (turn := self.codec.chat_format.end_of_turn) is not None:
            found.add(turn)
        return frozenset(int(i) for i in found)


def _copy(generator: random.Random | None) -> random.Random | None:
    """A generator in the same state, so that a batch tried again draws the same numbers."""
    if generator is None:
        return None
    twin = random.Random()
    twin.setstate(generator.getstate())
    return twin
