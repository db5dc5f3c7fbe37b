"""Writing text with a model on this machine: which prompts are written together, with whose chance, and what happens when memory
runs out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from time import perf_counter
from typing import Any, ClassVar, cast

from ..errors import InputError, Problem
from ..seeds import rng_for
from ..values import TokenCounts, Totals, digest
from .branches import grow, unread
from .check import stateful, tolerance
from .codec import TokenizerCodec
from .continuous import write_continuously
from .decoding import Constraint, Ended, Ending, Writer
from .forward import takes
from .limits import Limits, is_out_of_memory
from .padded import write
from .stream import Stream, deviation, streams

_ROWS, _DEVICE_ROWS = 128, 256
"""Most texts written at once, on a CPU (there 128 take 20 % less time a text than 64, 256 hardly less) and on a device."""
_TRIAL = 64
"""Texts by which two ways of writing are compared on CUDA."""


@dataclass(frozen=True, slots=True)
class Chance:
    """How many texts a prompt gets, and how they are drawn."""

    n: int = 1
    temperature: float = 0.0
    """0: greedy."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """A text that was written."""

    PACKED: ClassVar = "ended, n_tokens, mean log-likelihood, text"
    """What `packed` holds; it changes when that does."""

    text: str
    ended: Ended
    n_tokens: int
    """Tokens that were written, without the one that ended it."""
    mean: float | None = field(default=None, compare=False)
    """Of a sampled text the mean log-likelihood of its tokens, the one that ended it included, in nats and at temperature 1. Its last digits
    depend on the batch."""

    def packed(self) -> str:
        """As one text, for a cache."""
        return f"{self.ended} {self.n_tokens} {'-' if self.mean is None else f'{self.mean:.9g}'} {self.text}"

    @classmethod
    def unpacked(cls, packed: str) -> Written:
        ended, n_tokens, mean, text = packed.split(" ", 3)
        return cls(text, cast(Ended, ended), int(n_tokens), None if mean == "-" else float(mean))

    @classmethod
    def of(cls, writer: Writer) -> Written:
        mean = writer.loglikelihood / writer.n_drawn if writer.n_drawn else None
        return cls(writer.text, writer.ended or "length", len(writer.ids), mean)


@dataclass(frozen=True, slots=True)
class Task:
    """Prompts as token ids, and for each the most new tokens of a text and what makes its constraint."""

    ids: Sequence[tuple[int, ...]]
    limits: Sequence[int]
    constraints: Sequence[Callable[[], Constraint]] = ()


@dataclass
class Writing:
    """The half of a TorchModel that writes."""

    model: Any
    codec: TokenizerCodec
    limits: Limits
    window: int
    left_padding: bool
    totals: Totals
    """Counts what is computed, in place."""
    _continuous_is_faster: bool | None = None
    """None: not tried yet."""

    @cached_property
    def why_plain(self) -> str | None:
        """None if texts are written with our own store of keys and values; otherwise why transformers' cache is used."""
        if self._why_by_its_kind is not None:
            return self._why_by_its_kind
        try:
            found = deviation(self.model)
        except Exception as error:  # whatever an architecture raises under an attention it does not know: then it is not used
            return f"its attention cannot be planned ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]})"
        return None if found <= tolerance(self.model) else f"with planned attention its values are off by {found:.2g} nat"

    @cached_property
    def _why_by_its_kind(self) -> str | None:
        """As far as `why_plain` is known without a forward pass."""
        if stateful(self.model):
            return "it carries a state from token to token"
        if not takes(self.model, "position_ids") or self.model.get_output_embeddings() is None:
            return "it takes no explicit positions, or has no output embeddings of its own"
        return None

    def write(self, task: Task, chance: Chance, ending: Ending) -> list[list[Written]]:
        """chance.n texts for each prompt, in order. No prompt may fill the window."""
        if chance.temperature < 0 or chance.n < 1:
            raise InputError(
                Problem(f"temperature {chance.temperature}, n {chance.n}", "Give a temperature of at least 0 and n of at least 1.")
            )
        ids = task.ids
        writers = [
            [
                Writer(
                    p, self._uniform(p, j, chance), min(limit, self.window - len(p)), task.constraints[i]() if task.constraints else None
                )
                for j in range(chance.n)
            ]
            for i, (p, limit) in enumerate(zip(ids, task.limits, strict=True))
        ]
        if max(task.limits, default=0) > 0:
            if self.why_plain is None:
                texts = [writer for group in writers for writer in group]
                self._continuously(texts, ending)
                self._stream(texts, ending)
            else:
                for group in self._groups(ids, chance.n, max(task.limits)):
                    self._write_group(ids, writers, group, ending)
            self.totals.naive += sum(len(w.prompt) + max(len(w.ids) - 1, 0) for group in writers for w in group)
        return [[Written.of(w) for w in group] for group in writers]

    def plan(self, ids: Sequence[tuple[int, ...]], n: int, max_new_tokens: int) -> TokenCounts:
        """Most tokens that `write` computes for n texts of each prompt, as far as that is known without a forward pass."""
        rooms = [n * max(min(max_new_tokens, self.window - len(p)) - 1, 0) for p in ids]
        naive = sum(n * len(p) for p in ids) + sum(rooms)
        if self.__dict__.get("why_plain", self._why_by_its_kind) is not None:
            return TokenCounts(sum(map(len, ids)) + sum(rooms), naive, sum(rooms))
        copies = Counter(ids)
        tails = grow(sorted(copies), [n * copies[prompt] for prompt in sorted(copies)])
        return TokenCounts(sum(len(s.ids) for s in unread(tails)) + sum(rooms), naive, sum(rooms))

    @staticmethod
    def _uniform(ids: Sequence[int], number: int, chance: Chance) -> random.Random | None:
        return rng_for(chance.seed, "sample", digest(list(ids)), number) if chance.temperature else None

    def _stream(self, writers: Sequence[Writer], ending: Ending) -> None:
        """Finish the texts. Out of memory, those that are not done go on with half as many at once."""
        most = self.limits.max_rows or (_ROWS if self.model.device.type == "cpu" else _DEVICE_ROWS)
        limits = self.limits
        while work := streams(writers):
            try:
                for pending in work:
                    stream = Stream(self.model, pending, limits, most)
                    try:
                        stream.run(ending)
                    finally:
                        self.totals.computed += stream.n_tokens
                        self.totals.generated += stream.n_written
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or most == 1:
                    raise
                self.totals.unplanned += 1
                most, limits = max(1, most // 2), replace(limits, batch_tokens=max(64, limits.batch_tokens // 2))

    def _continuously(self, writers: Sequence[Writer], ending: Ending) -> None:
        """On CUDA, many greedy texts without bounds of their own: by transformers' continuous batching, if on a part of them that was
        faster than our way on another part of the same size. What it leaves undone is left to `_stream`."""
        most = max((writer.limit for writer in writers), default=0)
        greedy = [w for w in writers if w.uniform is None and w.constraint is None and w.limit == most > 0]
        if self.model.device.type != "cuda" or self.limits.max_rows or len(greedy) < 4 * _TRIAL:
            return
        if self._continuous_is_faster is None:
            ours, theirs, greedy = greedy[:_TRIAL], greedy[_TRIAL : 2 * _TRIAL], greedy[2 * _TRIAL :]
            self._continuous_is_faster = _rate(self._stream, ours, ending) < _rate(self._take_continuously, theirs, ending)
        if self._continuous_is_faster:
            self._take_continuously(greedy, ending)

    def _take_continuously(self, writers: Sequence[Writer], ending: Ending) -> None:
        self.totals.unplanned += 1
        n_taken = write_continuously(self.model, writers, ending)
        self.totals.generated += n_taken
        self.totals.computed += n_taken + sum(len(p) for p in {tuple(w.prompt) for w in writers if w.ids or w.done})

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
        limits = {writer.limit for i in group for writer in writers[i]}
        if len(limits) > 1:  # one long prompt must not shorten its neighbours' texts, nor be read beyond the window for them
            for i in group:
                self._write_group(ids, writers, [i], ending)
            return
        fresh = [[replace(w, uniform=_copy(w.uniform), constraint=deepcopy(w.constraint), ids=[]) for w in writers[i]] for i in group]
        try:
            n_tokens = write(self.model, [ids[i] for i in group], fresh, ending, cached=not stateful(self.model))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(group) == 1:
                raise
        else:
            self.totals.computed += n_tokens
            self.totals.generated += sum(max(len(w.ids) - 1, 0) for texts in fresh for w in texts)
            for i, done in zip(group, fresh, strict=True):
                writers[i] = done
            return
        self.totals.unplanned += 1
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


def _rate(write_all: Callable[[Sequence[Writer], Ending], None], writers: Sequence[Writer], ending: Ending) -> float:
    """Tokens per second; of the texts that are done."""
    start = perf_counter()
    write_all(writers, ending)
    return sum(len(writer.ids) for writer in writers if writer.done) / (perf_counter() - start)


def _copy(generator: random.Random | None) -> random.Random | None:
    """A generator in the same state, so that a batch tried again draws the same numbers."""
    if generator is None:
        return None
    twin = random.Random()
    twin.setstate(generator.getstate())
    return twin
