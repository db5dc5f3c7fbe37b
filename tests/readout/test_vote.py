"""The vote of several answers, against counting by hand."""

import random
from collections import Counter

import pytest

from icl.readout import answer_key, same_answer, vote


def test_the_most_frequent_answer_wins_and_its_share_is_the_confidence():
    found = vote(["18", "20", " $18.00. ", None, "18"])
    assert (found.answer, found.tie) == ("18", False)
    assert found.shares == {"18": 0.75, "20": 0.25}


def test_nobody_votes():
    assert vote([None, None]) is None
    assert vote([], order=("a", "b")) is None


def test_ties_go_to_the_first_answer_or_the_first_label():
    assert vote(["b", "a"]).answer == "b"
    found = vote(["b", "a"], order=("a", "b", "c"))
    assert (found.answer, found.tie) == ("a", True)
    assert found.shares == {"a": 0.5, "b": 0.5, "c": 0.0}


def test_a_weighted_vote_adds_the_weights():
    found = vote(["x", "y", "y", None], [0.9, 0.3, 0.4, 5.0])
    assert found.answer == "x"
    assert found.shares == {"x": pytest.approx(0.9 / 1.6), "y": pytest.approx(0.7 / 1.6)}
    assert vote(["x", "y", "y"], [1, 1, 1]) == vote(["x", "y", "y"])


def test_labels_are_compared_as_they_are():
    assert vote(["A", "a", "a"], order=("A", "a")).answer == "a"


def test_many_votes_are_counts():
    rng = random.Random(0)
    for _ in range(300):
        answers = [rng.choice(["1", "2", "three", None]) for _ in range(rng.randint(1, 9))]
        given = Counter(a for a in answers if a is not None)
        found = vote(answers)
        if not given:
            assert found is None
            continue
        assert given[found.answer] == max(given.values())
        assert found.shares == {a: pytest.approx(n / given.total()) for a, n in given.items()}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The Hague", "the  hague.", True),
        ("1,000", "1000.0", True),
        ("-0", "0", True),
        ("-5", "5", False),
        ("5 apples", "5", False),
        ("12/5", "12/6", False),
        ("100", "1e2", False),
        ("A", "B", False),
    ],
)
def test_when_two_answers_are_one(one, other, same):
    assert same_answer(one, other) is same
    assert (answer_key(one) == answer_key(other)) is same


def test_long_numbers_that_differ_are_not_one():
    one, other = "9" * 40, "9" * 39 + "8"
    assert not same_answer(one, other)
    assert same_answer(one, f"${one}.00")
    assert answer_key("0.00") == answer_key("-0")
