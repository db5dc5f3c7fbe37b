"""Self-consistency: of several answers to one question the one that most agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal

from .text import numbers_in


@dataclass(frozen=True, slots=True)
class Vote:
    """What came out of a vote."""

    answer: str
    shares: dict[str, float]
    """Answer, as it was first given -> its share of the weight of all answers. With `order`, every name of it is there."""
    tie: bool
    """Another answer has as large a share; the earlier one was taken."""


def vote(answers: Sequence[str | None], weights: Sequence[float] = (), order: Sequence[str] = ()) -> Vote | None:
    """Wang et al. 2023, https://arxiv.org/abs/2203.11171, sec. 2. None is no answer and has no vote; returns None if nobody has one.

    weights: of each answer, ≥ 0; left out, all count the same. order: the names that answers may have (labels); ties go to the earlier name,
    without it to the answer given first. Answers in words are one if `same_answer` says so.
    """
    found: dict[str, tuple[str, float]] = {name: (name, 0.0) for name in order}
    for n, answer in enumerate(answers):
        if answer is None:
            continue
        key = answer if order else answer_key(answer)
        first, weight = found.get(key, (answer, 0.0))
        found[key] = (first, weight + (weights[n] if weights else 1.0))
    total = sum(weight for _, weight in found.values())
    if not total:
        return None
    shares = {first: weight / total for first, weight in found.values()}
    top = max(shares.values())
    winners = [first for first, share in shares.items() if share >= top - 1e-12]
    return Vote(winners[0], shares, len(winners) > 1)


def answer_key(answer: str) -> str:
    """The same for answers that differ only in case, spaces, a full stop at the end, or how one number is written (`$18`, `18.00`)."""
    text = " ".join(answer.casefold().split()).rstrip(".")
    numbers = numbers_in(text)
    if len(numbers) == 1 and not any(c.isalpha() for c in text):
        exact = Context(prec=len(numbers[0]), Emax=MAX_EMAX, Emin=MIN_EMIN)  # by default only 28 digits of a number are kept
        number = exact.normalize(Decimal(numbers[0]))
        return str(number if number else abs(number))
    return text


def same_answer(one: str, other: str) -> bool:
    """Whether two answers in words are one, as `vote` takes them."""
    return answer_key(one) == answer_key(other)
