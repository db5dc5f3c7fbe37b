"""After how many queries a trained model has paid for its training."""

from __future__ import annotations

import math
from dataclasses import dataclass

_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Prompted:
    """A prompt's work per query, as measured."""

    tokens: float
    """Of the whole prompt."""
    prefix: float = 0.0
    """Of these, the tokens of the beginning that all queries share."""
    written: float = 0.0
    """Tokens of the answer, where the model writes one."""
    seconds: float = 0.0
    """Without prefix reuse: every prompt computed whole. 0 for a model behind an address, whose time is not ours."""
    seconds_reused: float | None = None
    """With the shared beginning computed once; None: in proportion to the tokens that are left."""
    seconds_prefix: float | None = None
    """To compute the shared beginning once; None: in proportion to its tokens."""
    money: float = 0.0
    """Paid to others per query beside the tokens of the prompt, such as for the query's vector."""

    def __post_init__(self) -> None:
        assert 0 <= self.prefix <= self.tokens, f"a beginning of {self.prefix} tokens in a prompt of {self.tokens}"

    @property
    def reused(self) -> float:
        """Seconds per query with prefix reuse."""
        if self.seconds_reused is not None:
            return self.seconds_reused
        return self.seconds * (1 - self.prefix / self.tokens) if self.tokens else self.seconds

    @property
    def beginning(self) -> float:
        """Seconds for the shared beginning, once."""
        if self.seconds_prefix is not None:
            return self.seconds_prefix
        return self.seconds * self.prefix / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model's work, as measured."""

    training_seconds: float
    """Of the training that is shipped, its search and its early stopping included."""
    seconds: float
    """Per query."""
    training_money: float = 0.0
    """Paid to others for the training, whatever it took."""
    money: float = 0.0
    """Paid to others per query, where the trained model runs elsewhere."""


@dataclass(frozen=True, slots=True)
class Prices:
    """In one currency. Tokens per million, as providers state them."""

    second: float = 0.0
    """Of the own machine: its rent, or `energy_price`, or both."""
    input: float = 0.0
    output: float = 0.0
    cache_read: float | None = None
    """Of a token of the beginning that the provider still has; None: the provider has no cache."""
    cache_write: float | None = None
    """Of a token of the beginning when it is stored; None: as any input."""
    queries_per_write: float = math.inf
    """How many queries one stored beginning serves before it lapses."""
    embedding: float = 0.0
    """Of tokens that an encoder behind an address reads, per million."""


def energy_price(watts: float, per_kwh: float) -> float:
    """Price of a second at so much power drawn and a price per kilowatt hour."""
    return watts / 3.6e6 * per_kwh


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Queries from which on the trained model is the cheaper one; 0: from the first; math.inf: never."""

    unit: str
    """`seconds` or `money`."""
    without_reuse: float
    with_reuse: float
    """A local model that computes the shared beginning once. A model behind an address does not gain by it: then as without."""
    with_cache: float | None
    """With the provider's cache prices; None where none are given."""


def break_even(prompted: Prompted, trained: Trained, prices: Prices | None = None) -> BreakEven:
    """Compare a prompt with a trained model, both at the label budget that is shipped. Labels cost both sides the same and do not count.

    prices None: in seconds of the machine. Else in money: seconds at the machine's price, tokens at the provider's. Of the provider's
    cache every `queries_per_write`-th query pays to store the beginning, the others read it.
    """
    if prices is None:
        training, query = trained.training_seconds, trained.seconds
        plain, reused = prompted.seconds, prompted.reused
        return BreakEven("seconds", _queries(training, query, plain), _queries(training - prompted.beginning, query, reused), None)
    training = trained.training_seconds * prices.second + trained.training_money
    query = trained.seconds * prices.second + trained.money
    asked = (prompted.tokens * prices.input + prompted.written * prices.output) / _MILLION + prompted.money
    plain, reused = asked + prompted.seconds * prices.second, asked + prompted.reused * prices.second
    once = prompted.beginning * prices.second
    cached = None if prices.cache_read is None else _with_cache(training, query, plain, prompted.prefix, prices)
    return BreakEven("money", _queries(training, query, plain), _queries(training - once, query, reused), cached)


def _queries(training: float, trained: float, prompted: float) -> float:
    """The smallest whole n with training + n · trained ≤ n · prompted."""
    if training <= 0 and trained <= prompted:
        return 0
    if prompted <= trained:
        return math.inf
    # A whole number may come out a hair above itself.
    return max(0, math.ceil(training / (prompted - trained) * (1 - 1e-12)))


def _with_cache(training: float, trained: float, plain: float, prefix: float, prices: Prices) -> float:
    """As `_queries`, with one query in `queries_per_write` dearer by what storing costs: the smallest n from which it always holds."""
    assert prices.cache_read is not None
    assert prices.queries_per_write >= 1, "a stored beginning serves at least the query that stored it"
    write = prices.input if prices.cache_write is None else prices.cache_write
    reading = plain - prefix * (prices.input - prices.cache_read) / _MILLION
    storing = prefix * (write - prices.cache_read) / _MILLION
    if math.isinf(prices.queries_per_write):
        return _queries(training - storing, trained, reading)
    # After n queries ceil(n / q) were stored: between n / q and n / q + 1. From the bound that holds for sure, walk back to the first.
    q = prices.queries_per_write
    if reading + storing / q <= trained:
        return math.inf if training > 0 else _queries(training - storing, trained, reading)

    def paid(n: int) -> bool:
        return training + n * trained <= n * reading + math.ceil(n / q) * storing + 1e-15

    n = math.ceil((training - min(0.0, storing)) / (reading + storing / q - trained))
    n = max(0, n)
    while n > 0 and paid(n - 1):
        n -= 1
    return n
