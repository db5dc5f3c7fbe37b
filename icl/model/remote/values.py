"""What a remote model hands back: answers, failures that are counted and can be tried again, and what was used."""

from __future__ import annotations

from dataclasses import dataclass

from ...endpoint.meter import Usage

__all__ = ["Answer", "Failed", "Usage"]


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
    refused: bool = False
    """The server refused the request as such."""
