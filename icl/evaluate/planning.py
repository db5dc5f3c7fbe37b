"""How much to compare in the time there is: test items, label budgets, draws of the labels and methods. Pure; `probe.py` measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

STEPS: tuple[tuple[int, int, int], ...] = (
    (20, 1, 1), (30, 1, 1), (30, 2, 1), (40, 2, 1), (50, 2, 1), (60, 2, 1), (70, 2, 1), (85, 2, 1), (100, 2, 1), (100, 3, 1), (100, 3, 2),
    (125, 3, 2), (150, 3, 2), (150, 3, 3), (200, 3, 3), (200, 4, 3), (250, 4, 3), (300, 4, 3), (300, 4, 4), (300, 4, 5), (400, 4, 5), (500, 4, 5), (500, 6, 7), (500, 6, 10), (1000, 6, 10),
)  # fmt: skip
"""(test items, label budgets, draws): each step adds to one thing what the last one lacks most, so that no figure is far less sure than
the others."""
SHARE, LATE_SHARE, MANY = 2, 5, (150, 3, 3)
"""A method joins where all of it takes at most so many times as long as without it; from the step `MANY` on the latter: more draws of cheap
methods alone would not say whether to train. What takes still longer waits for the end, since nothing would grow before there is time for it."""
FIRST_BUDGET = 256
"""The label budget that is compared first is the largest up to this; then smaller ones, then larger ones."""
MORE_DRAWS = 5
"""Draws of the labels that are made where cells took less time than expected and the draws were not named: they are what figures lack most
once the plan is done."""
RESERVE = 0.15
"""Share of the time that is not planned for: figures, intervals, saving, and what the estimate misses."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a method is expected to take."""

    method: str
    item: float
    """Seconds to answer one test item."""
    fit: Mapping[int, float]
    """Label budget -> seconds of one fit, for every budget that may be chosen; empty for a method that needs no labels: it runs once."""
    money: float = 0.0
    """To answer one test item."""
    optional: bool = False
    """Joins where it takes no longer than all others together (`SHARE`), and there are two label budgets; the others are always compared."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What there is to plan with."""

    estimates: tuple[Estimate, ...]
    budgets: tuple[int, ...]
    """Rising. All of them are compared if `fixed_budgets`."""
    n_test: int
    n_train: int
    n_dev: int = 0
    fixed_budgets: bool = False
    seeds: int | None = None
    """None: as many as fit."""
    embed: float = 0.0
    """Seconds to embed one text. Each is embedded once, whichever methods and runs need it."""
    overhead: float = 0.0
    """Seconds that any plan takes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be compared."""

    methods: tuple[str, ...]
    n_items: int
    """Test items."""
    budgets: tuple[int, ...]
    """Rising."""
    seeds: int
    """Draws of the labelled examples."""
    seconds: float
    """Expected."""
    money: float
    """Expected to be paid for answers."""
    left_out: tuple[tuple[str, float], ...] = ()
    """Methods that would take too long beside these, with the seconds they would take."""

    @property
    def n_predictions(self) -> int:
        return self.n_items * len(self.methods) * len(self.budgets) * self.seeds


def plan(offer: Offer, seconds: float) -> Plan | None:
    """The largest plan on one ladder of plans that takes at most `seconds`, by the estimate; None if even the smallest takes longer.

    The ladder does not depend on the time: with more of it nothing becomes less.
    """
    found = None
    for step in ladder(offer):
        if step.seconds > seconds:
            break
        found = step
    if found is None:
        return None
    missing = [e for e in offer.estimates if e.method not in found.methods]
    whole = [(e.method, _cost(offer, replace(found, methods=(e.method,)))[0] - offer.overhead) for e in missing]
    return replace(found, left_out=tuple(whole))


def smallest(offer: Offer) -> Plan:
    """The first step of the ladder."""
    return next(iter(ladder(offer)))


def ladder(offer: Offer) -> Iterator[Plan]:
    """Plans, each with more than the one before and less of nothing."""
    methods = tuple(e.method for e in offer.estimates if not e.optional)
    waiting = [e for e in offer.estimates if e.optional]
    last: Plan | None = None
    for items, n_budgets, seeds in STEPS:
        now = _priced(offer, Plan(methods, min(items, offer.n_test), _budgets(offer, n_budgets), offer.seeds or seeds, 0.0, 0.0))
        if last is None or _size(now) != _size(last):
            yield now
            last = now
        if len(now.budgets) < min(2, len(offer.budgets)):
            continue  # without a second label budget there is no crossover, so that comes first
        for one in sorted(waiting, key=lambda e: _cost(offer, replace(now, methods=(e.method,)))[0]):
            joined = _priced(offer, replace(now, methods=(*methods, one.method)))
            if joined.seconds <= (LATE_SHARE if (items, n_budgets, seeds) >= MANY else SHARE) * now.seconds:
                waiting.remove(one)
                methods, now, last = joined.methods, joined, joined
                yield now
    for one in waiting:
        methods = (*methods, one.method)
        assert last is not None
        last = _priced(offer, replace(last, methods=methods))
        yield last


def _size(one: Plan) -> tuple[int, tuple[int, ...], int, tuple[str, ...]]:
    return one.n_items, one.budgets, one.seeds, one.methods


def _budgets(offer: Offer, n: int) -> tuple[int, ...]:
    if offer.fixed_budgets:
        return offer.budgets
    below = [b for b in offer.budgets if b <= FIRST_BUDGET][::-1]
    above = [b for b in offer.budgets if b > FIRST_BUDGET]
    return tuple(sorted([*below, *above][:n]))


def _priced(offer: Offer, one: Plan) -> Plan:
    seconds, money = _cost(offer, one)
    return replace(one, seconds=seconds, money=money)


def _cost(offer: Offer, one: Plan) -> tuple[float, float]:
    """Seconds and money of a plan. With items to choose on, the methods also answer as many of those, once."""
    dev = min(offer.n_dev, one.n_items)
    seconds = offer.overhead + offer.embed * (one.n_items + dev + min(offer.n_train, one.seeds * one.budgets[-1]))
    money = 0.0
    for estimate in offer.estimates:
        if estimate.method in one.methods:
            runs = len(one.budgets) * one.seeds if estimate.fit else 1
            n = runs * one.n_items + dev
            seconds += n * estimate.item + one.seeds * sum(estimate.fit.get(b, 0.0) for b in one.budgets)
            money += n * estimate.money
    return seconds, money


def label_budgets(n_train: int, n_labels: int, given: Sequence[int] | None = None) -> tuple[int, ...]:
    """The label budgets to choose from: those given, or powers of four with an example of each label, and the whole pool if it is small."""
    if given is not None:
        return tuple(sorted(set(given)))
    powers = [b for b in (16, 64, 256, 1024) if max(8, n_labels) <= b <= n_train]
    whole = not powers or (n_train < 1024 and n_train >= 1.5 * powers[-1])
    return (*powers, n_train) if whole else tuple(powers)
