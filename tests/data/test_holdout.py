"""A held-out test set: its size, its strata, and no text on both sides."""

import random
from collections import Counter

import pytest

from icl.data import Task
from icl.data.holdout import test_size as size_of_test
from icl.data.leaks import text_key


def rows_of(n, labels="abc", weights=(6, 3, 1)):
    rng = random.Random(1)
    return [{"text": f"message number {i}", "label": rng.choices(labels, weights)[0]} for i in range(n)]


@pytest.mark.parametrize(("n", "size"), [(1, 0), (10, 5), (60, 30), (120, 50), (400, 120), (1000, 300), (5000, 500)])
def test_thirty_per_cent_between_fifty_and_five_hundred_and_never_more_than_half(n, size):
    assert size_of_test(n, 0.3) == size


def test_it_is_stratified_seeded_and_recorded():
    rows = rows_of(600)
    task = Task.load(rows)
    counts, held = Counter(r["label"] for r in rows), Counter(e.target for e in task.test)
    assert len(task.test) == 180
    assert all(abs(held[label] - 0.3 * n) <= 1 for label, n in counts.items())
    assert task.holdout == 0.3
    assert task.source["holdout"] == {"share": 0.3, "seed": 0, "rows": 180}
    assert Task.load(rows).test == task.test
    assert {e.uid for e in Task.load(rows, seed=1).test} != {e.uid for e in task.test}
    assert {e.uid for e in Task.load(rows[::-1]).test} == {e.uid for e in task.test}


def test_a_given_test_set_is_left_alone():
    task = Task.load(rows_of(100), test=rows_of(7))
    assert (task.holdout, len(task.train), len(task.test)) == (None, 100, 7)
    assert Task.load(rows_of(100), holdout=0).test == ()


def test_the_same_text_never_stands_on_both_sides():
    rng = random.Random(2)
    variants = [str.upper, str.title, lambda t: t + "!!", lambda t: "  " + t]
    rows = [{"text": rng.choice(variants)(f"this is message {rng.randrange(120)}"), "label": rng.choice("ab")} for _ in range(500)]
    task = Task.load(rows)
    assert len(task.train) + len(task.test) == 500
    assert not {text_key(e) for e in task.train} & {text_key(e) for e in task.test}
    assert abs(len(task.test) - 150) <= 10
    for split in (task.train, task.test):
        assert len({e.uid for e in split}) == len(split)


def test_no_label_loses_more_than_half_of_its_rows():
    rows = [{"text": f"t{i}", "label": f"rare {i}" if i < 5 else "ab"[i % 2]} for i in range(200)]
    task = Task.load(rows)
    assert all(f"rare {i}" in {e.target for e in task.train} for i in range(5))
