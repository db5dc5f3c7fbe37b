"""Tokens and money: reserved before a request is sent, counted when its answer is there."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, Problem, suggest

_PER = 1_000_000
_BYTES_PER_TOKEN = 3
"""English has about 4 bytes a token, most other languages fewer: what is estimated should rather be too much."""


def estimated_tokens(text: str) -> int:
    """Tokens of a text for which no tokenizer is at hand, estimated from its length."""
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class Prices:
    """Money per million tokens, in the user's currency."""

    input: float
    output: float
    cached: float
    """Of input tokens that the provider had in its cache."""
    cache_write: float | None = None
    """Of input tokens that the provider stores in its cache; None: as any input. Answers do not count them, so it serves `break_even` alone."""

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Prices | None:
        """From `{"input": …, "output": …}`, with `"cached"` where cached input is cheaper, `"cache_write"` where storing it is dearer. Raises
        InputError."""
        if given is None:
            return None
        known = ("input", "output", "cached", "cache_write")
        problems = [
            Problem(f"there is no price for '{name}'", suggest(str(name), known), field=f"prices.{name}")
            for name in given
            if name not in known
        ]
        problems += [
            Problem("the price is missing", "Give it per million tokens.", field=f"prices.{name}")
            for name in ("input", "output")
            if name not in given
        ]
        problems += [
            Problem(f"{value!r} is no price", "Give a number of at least 0, per million tokens.", field=f"prices.{name}")
            for name, value in given.items()
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0
        ]
        if problems:
            raise InputError(problems)
        write = given.get("cache_write")
        cached = float(given.get("cached", given["input"]))
        return cls(float(given["input"]), float(given["output"]), cached, None if write is None else float(write))

    def cost(self, n_input: int, n_output: int, n_cached: int = 0) -> float:
        return (self.input * (n_input - n_cached) + self.cached * n_cached + self.output * n_output) / _PER


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one request."""

    input: int
    output: int
    cached: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What has been sent to an address since it was opened, a probe included."""

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
    saved: float | None = None
    """What the tokens in the provider's cache cost less than others; None without prices."""
    replaced: int = 0
    """Pieces of personal data that were replaced before they were sent, counted in every prompt they stand in."""
    unheld: int = 0
    """Records that were asked for without their schema, since the server does not hold to it."""


@dataclass
class Meter:
    """What has been used, and how much may still be spent."""

    prices: Prices | None = None
    max_cost: float | None = None
    requests: int = 0
    retries: int = 0
    failed: int = 0
    tokens: list[int] = field(default_factory=lambda: [0, 0, 0])
    estimated: int = 0
    cost: float = 0.0
    reserved: float = 0.0
    saved: float = 0.0
    replaced: int = 0
    unheld: int = 0

    def usage(self) -> Usage:
        n_input, n_output, n_cached = self.tokens
        cost, saved = (self.cost, self.saved) if self.prices is not None else (None, None)
        return Usage(
            self.requests, self.retries, self.failed, n_input, n_output, n_cached, self.estimated, cost, saved, self.replaced, self.unheld
        )

    def price(self, tokens: Tokens) -> float:
        return self.prices.cost(tokens.input, tokens.output, tokens.cached) if self.prices is not None else 0.0

    async def reserve(self, worst: Tokens, settled: asyncio.Condition) -> bool:
        """Set the worst case of a request aside. False: it does not fit, even after all requests under way are settled."""
        price = self.price(worst)
        async with settled:
            while self.max_cost is not None and self.cost + self.reserved + price > self.max_cost:
                if self.reserved <= 0:
                    return False
                await settled.wait()
            self.reserved += price
        return True

    async def settle(self, worst: Tokens, settled: asyncio.Condition) -> None:
        """Give back what was set aside for a request that has ended one way or the other."""
        async with settled:
            self.reserved = max(0.0, self.reserved - self.price(worst))
            if self.reserved < 1e-12:  # sums of floats do not come back to zero by themselves, and `reserve` waits for it
                self.reserved = 0.0
            settled.notify_all()

    def count(self, tokens: Tokens) -> None:
        for place, n in enumerate((tokens.input, tokens.output, tokens.cached)):
            self.tokens[place] += n
        self.estimated += tokens.estimated
        self.cost += self.price(tokens)
        self.saved += self.price(Tokens(tokens.input, tokens.output)) - self.price(tokens)

    def count_lost(self, worst: Tokens) -> None:
        """An attempt that broke off after it was sent: it may have been billed, so its worst case is."""
        self.cost += self.price(worst)
