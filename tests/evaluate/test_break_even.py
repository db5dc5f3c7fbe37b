"""Break-even by hand, and against counting query by query."""

import itertools
import math

import numpy as np
import pytest

from icl.evaluate.break_even import Prices, Prompted, Trained, break_even, energy_price


def test_seconds_by_hand():
    prompted = Prompted(tokens=1000, prefix=900, seconds=0.5)
    trained = Trained(training_seconds=120, seconds=0.02)
    found = break_even(prompted, trained)
    assert found.unit == "seconds"
    assert found.without_reuse == math.ceil(120 / 0.48) == 250
    # With reuse a query takes 0.05 s, and the beginning 0.45 s once: 120 - 0.45 = 119.55 s at 0.03 s a query.
    assert found.with_reuse == 3985
    assert found.with_cache is None
    measured = Prompted(tokens=1000, prefix=900, seconds=0.5, seconds_reused=0.1, seconds_prefix=0.4)
    assert break_even(measured, trained).with_reuse == math.ceil(119.6 / 0.08)


def test_never_and_at_once():
    fast = Prompted(tokens=10, seconds=0.001)
    assert break_even(fast, Trained(10, 0.01)).without_reuse == math.inf
    assert break_even(Prompted(tokens=10, seconds=0.01), Trained(0, 0.01)).without_reuse == 0
    assert break_even(Prompted(tokens=10, seconds=0.02), Trained(0.05, 0.01)).without_reuse == 5


def test_money_of_a_provider_by_hand():
    prompted = Prompted(tokens=2000, prefix=1800, written=10)
    trained = Trained(training_seconds=3600, seconds=0.01)
    prices = Prices(second=1 / 3600, input=2.5, output=10.0, cache_read=0.25, cache_write=3.125)
    found = break_even(prompted, trained, prices)
    plain = (2000 * 2.5 + 10 * 10) / 1e6
    assert found.without_reuse == math.ceil(1 / (plain - 0.01 / 3600))
    assert found.with_reuse == found.without_reuse
    cached = plain - 1800 * (2.5 - 0.25) / 1e6
    assert found.with_cache == math.ceil((1 - 1800 * (3.125 - 0.25) / 1e6) / (cached - 0.01 / 3600))
    assert found.with_cache > found.without_reuse
    assert break_even(prompted, trained, Prices(input=2.5, output=10)).with_cache is None


def test_energy():
    assert energy_price(300, 0.30) * 3600 == pytest.approx(0.09)
    found = break_even(Prompted(tokens=100, seconds=2.0), Trained(1000, 0.5), Prices(second=energy_price(300, 0.3)))
    assert found.without_reuse == math.ceil(1000 / 1.5)


def test_against_counting_query_by_query():
    rng = np.random.default_rng(0)
    for _ in range(200):
        q = int(rng.integers(1, 20))
        prompted = Prompted(tokens=1000, prefix=float(rng.integers(0, 1000)), written=float(rng.integers(0, 20)))
        training, query = float(rng.random() * 0.5), float(rng.random() * 0.002)
        write = float(rng.choice([0.5, 1.0, 1.25]))
        prices = Prices(input=1.0, output=4.0, cache_read=0.1, cache_write=write, queries_per_write=q)
        found = break_even(prompted, Trained(0, 0, training, query), prices).with_cache
        spent, ours = 0.0, training
        gaps = []
        for n in itertools.count(1):
            first = (n - 1) % q == 0
            rate = write if first else 0.1
            spent += (prompted.prefix * rate + (1000 - prompted.prefix) * 1.0 + prompted.written * 4) / 1e6
            ours += query
            gaps.append(ours - spent)
            if n >= 6000:
                break
        dear = [n for n, gap in enumerate(gaps, 1) if gap > 1e-12]
        if found == math.inf:
            assert gaps[-1] > 0
        elif found < 5000:
            assert found == 0 or gaps[int(found) - 1] <= 1e-12
            assert found <= 1 or gaps[int(found) - 2] > -1e-12 or int(found) - 1 in dear
