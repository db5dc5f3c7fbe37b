"""Label budgets are nested, spread over the labels, and do not depend on the order of the file."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.data import Task, draw
from icl.errors import InputError
from icl.values import Example


def pool_of(sizes):
    rows = [{"text": f"{label} {i}", "label": label} for label, n in sizes.items() for i in range(n)]
    return Task.load(rows, holdout=0)


@settings(max_examples=60, deadline=None)
@given(sizes=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 9), min_size=1), seed=st.integers(0, 5), data=st.data())
def test_draws_are_nested_and_even(sizes, seed, data):
    task = pool_of(sizes)
    small, large = sorted([data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))])
    few, many = (draw(task.train, n, labels=task.labels, seed=seed) for n in (small, large))
    assert len(many) == len({e.uid for e in many}) == min(large, len(task.train))
    assert few == many[: len(few)]
    counts = Counter(e.target for e in many)
    short = [n for label, n in sizes.items() if counts[label] < n]  # labels that have rows left
    if short:
        left = [counts[label] for label, n in sizes.items() if counts[label] < n]
        assert max(counts.values()) - min(left) <= 1
    shuffled = random.Random(0).sample(task.train, len(task.train))
    assert draw(shuffled, large, labels=tuple(reversed(task.labels)), seed=seed) == many


def test_seeds_differ_and_all_is_everything():
    task = pool_of({"a": 30, "b": 30})
    draws = {tuple(e.uid for e in draw(task.train, 8, labels=task.labels, seed=seed)) for seed in range(5)}
    assert len(draws) == 5
    everything = draw(task.train, "all", labels=task.labels, seed=0)
    assert sorted(e.uid for e in everything) == sorted(e.uid for e in task.train)
    assert everything[:8] == draw(task.train, 8, labels=task.labels, seed=0)
    assert len(draw(task.train, 10_000, labels=task.labels)) == 60


def test_without_labels_the_order_is_plain():
    pool = [Example(f"u{i}", {"q": str(i)}, str(i)) for i in range(50)]
    assert draw(pool, 4, labels=(), seed=1) == draw(pool[::-1], 9, seed=1)[:4]


def test_first_label_of_a_tiny_budget_varies_with_the_seed():
    task = pool_of(dict.fromkeys("abcd", 5))
    assert {draw(task.train, 1, labels=task.labels, seed=seed)[0].target for seed in range(40)} == set("abcd")


@pytest.mark.parametrize("budget", [0, -3, 2.5, "some", True])
def test_a_budget_is_a_count(budget):
    with pytest.raises(InputError, match="label budget"):
        draw(pool_of({"a": 2}).train, budget, labels=("a",))
