"""One text being written: its next token, and when it ends. Thoughts (`<think>…</think>`) stay in the text; the read-out cuts them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch

Ended = Literal["end", "stop", "length", "complete"]
"""end: the model ended the text or its turn. stop: a stop string came. length: it was cut. complete: a constraint allows nothing more."""
_ANCHOR = 4
"""Tokens of the prompt that are decoded along with new ones, since some tokenizers drop a leading space at the start of a text."""
_SLACK = 8
"""Tokens decoded before those that a stop string can reach over: their first characters may come out wrong without what precedes."""


class Constraint(Protocol):
    """What one text may be; it follows the text token by token."""

    def restrict(self, logits: torch.Tensor) -> None:
        """logits: (vocabulary,). Tokens that may not come become -inf, in place."""

    def take(self, token: int) -> Literal["on", "complete", "end"]:
        """A token was chosen. complete: the text is whole with it. end: it was whole before, and the token is no part of it."""

    @property
    def whole(self) -> bool:
        """True if the text so far is a complete one."""

    @property
    def text(self) -> str | None:
        """The text, where the constraint knows it better than the tokenizer does."""


@dataclass(slots=True)
class Writer:
    """One text being written."""

    prompt: Sequence[int]
    uniform: random.Random | None
    """Its own source of chance; None: greedy."""
    limit: int
    """Most new tokens."""
    constraint: Constraint | None = None
    ids: list[int] = field(default_factory=list)
    text: str = ""
    """Filled in when it ends."""
    ended: Ended | None = None
    loglikelihood: float = 0.0
    """Of the tokens drawn so far, the one that ended it included, in nats and at temperature 1; 0 for a greedy text."""
    n_drawn: int = 0
    """Tokens that it is the sum of."""

    @property
    def done(self) -> bool:
        return self.ended is not None


@dataclass(frozen=True, slots=True)
class Ending:
    """What ends a text before its limit, and how tokens become text."""

    stop: tuple[str, ...]
    end_ids: frozenset[int]
    """End of text and end of turn."""
    decode: Callable[[Sequence[int]], str]
    temperature: float = 1.0

    @property
    def reach(self) -> int:
        """Tokens at the end of a text in which a stop string is looked for: one per byte, and some before."""
        return max((len(stop.encode()) for stop in self.stop), default=0) + _SLACK


def choose(logits: torch.Tensor, writers: Sequence[Writer], ending: Ending) -> list[int]:
    """The next token of every row of logits. Chance comes from each text's own generator, so it does not depend on the batch."""
    import torch

    for row, writer in zip(logits, writers, strict=True):
        if writer.constraint is not None and not writer.done:
            writer.constraint.restrict(row)
    if all(writer.uniform is None for writer in writers):
        greedy: list[int] = logits.argmax(-1).tolist()
        return greedy
    totals = torch.softmax(logits.double() / ending.temperature, dim=-1).cumsum(-1)
    draws = [writer.uniform.random() if writer.uniform is not None else 0.0 for writer in writers]
    points = torch.tensor(draws, dtype=torch.float64, device=logits.device)[:, None] * totals[:, -1:]
    places = torch.searchsorted(totals, points, right=True).clamp_max(logits.shape[-1] - 1)
    values: list[float] = (logits.gather(1, places)[:, 0].double() - logits.double().logsumexp(-1)).tolist()
    for writer, value in zip(writers, values, strict=True):
        if writer.uniform is not None and not writer.done:
            writer.loglikelihood, writer.n_drawn = writer.loglikelihood + value, writer.n_drawn + 1
    found: list[int] = places[:, 0].tolist()
    return found


def append(writer: Writer, token: int, ending: Ending) -> None:
    """Take one chosen token, and see whether the text ends with it."""
    if writer.constraint is not None:
        taken = writer.constraint.take(token)
        if taken != "end":
            writer.ids.append(token)
        writer.ended = "complete" if taken == "complete" else "end" if taken == "end" else None
    elif token in ending.end_ids:
        writer.ended = "end"
    else:
        writer.ids.append(token)
        if ending.stop:
            recent = ending.decode(writer.ids[-ending.reach :])
            if any(stop in recent for stop in ending.stop) and _cut(written(writer, ending), ending.stop) is not None:
                writer.ended = "stop"
    if writer.ended is None and len(writer.ids) >= writer.limit:
        writer.ended = "complete" if writer.constraint is not None and writer.constraint.whole else "length"
    if writer.ended is not None:
        _finish(writer, ending)


def _finish(writer: Writer, ending: Ending) -> None:
    writer.text = written(writer, ending)
    if writer.constraint is not None:
        known = writer.constraint.text
        writer.text = writer.text if known is None else known
    elif (cut := _cut(writer.text, ending.stop)) is not None:
        writer.text, writer.ended = writer.text[:cut], "stop"


def _cut(text: str, stops: Sequence[str]) -> int | None:
    """Where the first stop string begins."""
    return min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)


def written(writer: Writer, ending: Ending) -> str:
    """The new text alone, with the leading space it has behind the prompt."""
    anchor = list(writer.prompt[-_ANCHOR:])
    before = ending.decode(anchor)
    joined = ending.decode(anchor + writer.ids)
    return joined[len(before) :] if joined.startswith(before) else ending.decode(writer.ids)
