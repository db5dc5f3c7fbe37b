"""Figures by group, the largest gap, and label bias."""

import numpy as np
import pytest
from scipy import stats

from icl.evaluate.by_group import by_group, label_bias
from icl.evaluate.metrics.macro_f1 import MacroF1
from icl.evaluate.paired import Side, side
from icl.values import Example, Prediction


def grouped(rng, abilities, n=60, n_runs=3, luck=0.0, own=0.0):
    """Values and groups: a probability of being right per group. luck: what a run does to all groups; own: to each by itself."""
    groups = [name for name in abilities for _ in range(n)]
    right = np.array([abilities[name] for name in groups])
    shift = rng.normal(0, luck, (n_runs, 1)) if luck else 0.0
    shift = shift + np.repeat(rng.normal(0, own, (n_runs, len(abilities))), n, axis=1)
    return Side((rng.random((n_runs, len(groups))) < right + shift).astype(float)), groups


def test_every_group_and_the_largest_gap():
    rng = np.random.default_rng(0)
    values, groups = grouped(rng, {"north": 0.9, "south": 0.85, "east": 0.3}, 100)
    found = by_group(values, groups, rng)
    assert [one.group for one in found.figures] == ["north", "south", "east"]
    assert [one.value for one in found.figures] == pytest.approx([values.values[:, n : n + 100].mean() for n in (0, 100, 200)])
    assert all(one.low < one.value < one.high and one.n_items == 100 for one in found.figures)
    assert (found.gap.highest, found.gap.lowest) == ("north", "east")
    assert 0.3 < found.gap.low < found.gap.value < found.gap.high
    assert found.left_out == ()


def test_a_small_group_is_shown_but_does_not_count_in_the_gap():
    rng = np.random.default_rng(0)
    values, groups = grouped(rng, {"a": 0.7, "b": 0.7}, 50)
    values = Side(np.concatenate([values.values, np.zeros((3, 3))], axis=1))
    found = by_group(values, [*groups, "c", "c", "c"], rng)
    assert found.left_out == ("c",)
    assert found.figures[2].value == 0
    assert "c" not in (found.gap.highest, found.gap.lowest)
    assert by_group(Side(np.ones((1, 20))), ["a"] * 20, rng).gap is None


def test_unscored_items_are_counted():
    rng = np.random.default_rng(0)
    values, groups = grouped(rng, {"a": 0.7, "b": 0.7}, 40)
    gone = values.values.copy()
    gone[0, :5], gone[:, 40:] = np.nan, np.nan
    found = by_group(Side(gone), groups, rng)
    assert [one.n_unscored for one in found.figures] == [5, 120]
    assert found.figures[0].value == pytest.approx(np.nanmean(gone[:, :40], axis=1).mean())
    assert found.figures[1].value is None
    assert found.left_out == ("b",)


def test_any_metric():
    rng, labels = np.random.default_rng(0), ("x", "y")
    examples = [Example(str(n), {}, labels[n % 2]) for n in range(120)]
    groups = ["a" if n < 60 else "b" for n in range(120)]
    runs = [
        [Prediction(e.uid, e.target if rng.random() < (0.95 if g == "a" else 0.5) else "x") for e, g in zip(examples, groups, strict=True)]
        for _ in range(3)
    ]
    found = by_group(side(MacroF1(), runs, examples), groups, rng)
    first = np.arange(60)[None]
    assert found.figures[0].value == pytest.approx(np.mean([MacroF1().aggregate(run, examples, first)[0] for run in runs]))
    assert found.gap.low > 0


def test_two_groups_and_one_run_are_the_two_sample_test():
    """No items that decide by being few: the interval of the gap is the textbook's of two means."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(1.0, 0.5, 400), rng.normal(0, 1.0, 300)])
    found = by_group(Side(values[None], bounds=None), ["a"] * 400 + ["b"] * 300, rng)
    low, high = stats.ttest_ind(values[:400], values[400:], equal_var=False).confidence_interval()
    assert (found.gap.low, found.gap.high) == pytest.approx((low, high), abs=0.03)


def false_gaps(trials, n_groups, n, n_runs, luck=0.0, own=0.0, right=0.8):
    rng = np.random.default_rng(n_groups * 10 + n_runs)
    abilities = {str(k): right for k in range(n_groups)}
    return sum(by_group(*grouped(rng, abilities, n, n_runs, luck, own), rng).gap.low > 0 for _ in range(trials)) / trials


@pytest.mark.parametrize(("n_groups", "n", "n_runs", "own"), [(5, 40, 1, 0.0), (12, 30, 3, 0.0), (5, 40, 3, 0.1)])
def test_equal_groups_show_no_gap(n_groups, n, n_runs, own):
    """Of few runs too, whose differences from run to run are small in some pair of groups by chance."""
    assert false_gaps(100, n_groups, n, n_runs, own=own) <= 0.09


@pytest.mark.slow
@pytest.mark.parametrize(("n_runs", "luck", "own"), [(1, 0.0, 0.0), (3, 0.0, 0.0), (3, 0.05, 0.05), (10, 0.05, 0.1)])
@pytest.mark.parametrize(("n_groups", "n"), [(2, 100), (5, 40), (12, 30)])
@pytest.mark.parametrize("right", [0.5, 0.8])
def test_equal_groups_show_a_gap_at_most_six_times_in_a_hundred(n_groups, n, n_runs, luck, own, right):
    assert false_gaps(600, n_groups, n, n_runs, luck, own, right) <= 0.06


def test_label_bias_by_hand():
    found = label_bias(np.log(np.array([[0.8, 0.1, 0.1], [0.6, 0.2, 0.2]])) - 7.0)
    assert found.shares == pytest.approx((0.7, 0.15, 0.15))
    assert found.bias == pytest.approx(0.7 - 1 / 3)
    assert label_bias(np.zeros((4, 5))).bias == 0
    assert label_bias(np.array([[0.0, -1000.0]])).bias == pytest.approx(0.5)
