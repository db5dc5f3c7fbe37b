"""What more labels are expected to bring."""

import math

import numpy as np
import pytest
from scipy import stats

from icl.errors import InputError
from icl.evaluate.gain import expected_gain


def line(method, labels, start, slope, noise=0.0, n_runs=3, seed=0):
    rng = np.random.default_rng(seed)
    return [(method, n, run, start + slope * math.log2(n / labels[0]) + rng.normal(0, noise)) for n in labels for run in range(n_runs)]


def test_a_line_in_log_n_goes_on():
    found = expected_gain(line("t", (16, 32, 64, 128), 0.5, 0.05), {"t"}, 128)
    assert (found.method, found.n_labels, found.more) == ("t", 128, 128)
    assert (found.value, found.low, found.high) == pytest.approx((0.05,) * 3)
    assert expected_gain(line("t", (16, 64), 0.5, 0.05), {"t"}, 32).value == pytest.approx(0.05 * math.log2(1.5))


def test_only_the_end_of_the_curve_counts():
    rows = [*line("t", (2, 4), 0.1, 0.3), *line("t", (16, 32, 64), 0.7, 0.01)]
    assert expected_gain(rows, {"t"}, 64).value == pytest.approx(0.01)


def test_the_best_method_of_the_side_counts():
    rows = line("a", (16, 32, 64), 0.5, 0.1) + line("b", (16, 32, 64), 0.8, 0.02) + [("zero", None, 0, 0.99)]
    assert expected_gain(rows, {"a", "b", "zero"}, 64).method == "b"
    assert expected_gain(rows, {"a", "b"}, 64, higher_is_better=False).method == "a"


def test_the_interval_covers():
    covered = 0
    for seed in range(200):
        found = expected_gain(line("t", (16, 32, 64, 128), 0.5, 0.04, 0.02, seed=seed), {"t"}, 128)
        covered += found.low <= 0.04 <= found.high
    assert covered >= 186


def test_the_slope_is_that_of_least_squares():
    rows = line("t", (10, 30, 100), 0.5, 0.04, 0.03)
    slope = stats.linregress(np.log([10, 30, 100]), [np.mean([r[3] for r in rows if r[1] == n]) for n in (10, 30, 100)]).slope
    assert expected_gain(rows, {"t"}, 50).value == pytest.approx(slope * math.log(1.5))


def test_what_cannot_be_said():
    with pytest.raises(InputError, match="64 labels only"):
        expected_gain(line("t", (64,), 0.5, 0.05), {"t"}, 10)
    with pytest.raises(InputError, match="at least 1"):
        expected_gain(line("t", (16, 64), 0.5, 0.05), {"t"}, 0)
    with pytest.raises(InputError, match="no method of this side learns"):
        expected_gain([("zero", None, 0, 0.5)], {"zero"}, 10)
