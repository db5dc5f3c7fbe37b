"""What a remote model hands back: answers, failures that are counted and can be tried again, and what was used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failed:
    """One item that could not be scored. Never a zero, never a guess."""

    why: str
    lost: bool = False
    """The server gave no answer: asking again may give one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The texts that were written for one prompt, or the reason why there are none."""

    texts: tuple[str, ...]
    """As many as were asked for; empty if the item failed."""
    why: str | None = None
    """None: it worked."""
    lost: bool = False
    """As of Failed."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a remote model has used since it was loaded, its probe included."""

    requests: int = 0
    """Requests sent, those tried again included."""
    retries: int = 0
    failed: int = 0
    """Requests given up: their items failed."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Input tokens that the server says it had in its cache."""
    estimated: int = 0
    """Answers whose tokens the server did not report: counted with the tokenizer, or without one estimated from the text's length."""
    cost: float | None = None
    """In the currency of `prices`; None without prices. An attempt that broke off after it was sent counts at its worst case, since
    it may have been billed."""
