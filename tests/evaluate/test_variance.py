"""The split of the variance: tables by hand, known components, and what more seeds do."""

import numpy as np
import pytest
from scipy import stats

from icl.evaluate.variance import split_variance


def test_one_factor_and_items_by_the_textbook():
    """Two factors: scipy's one-way analysis of the centred table gives the same F for the runs."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (4, 1)) + rng.normal(0, 2, 30) + rng.normal(0, 0.5, (4, 30))
    found = split_variance(values, ("train", "item"))
    centred = values - values.mean(axis=0)
    # f_oneway divides by 4 * 29 degrees of freedom where the table has 3 * 29.
    f = stats.f_oneway(*centred).statistic * (3 * 29) / (4 * 29)
    rest = found.components["rest",]
    assert found.components["train",] == pytest.approx((f - 1) * rest / 30)
    assert found.sizes == {"train": 4, "item": 30}
    assert not found.clipped


def test_a_table_by_hand():
    """(2, 2): mean squares 16 (rows), 4 (columns), 1 (rest)."""
    values = np.array([[0.0, 3.0], [5.0, 6.0]])
    found = split_variance(values, ("draw", "item"))
    assert found.components == pytest.approx({("draw",): (16 - 1) / 2, ("item",): (4 - 1) / 2, ("rest",): 1.0})
    assert found.error == pytest.approx(np.sqrt(7.5 / 2 + 1.5 / 2 + 1 / 4))


def test_known_components_are_found_on_average():
    rng, sizes = np.random.default_rng(1), (4, 3, 2, 3, 25)
    names = ("draw", "demonstrations", "order", "train", "item")
    true = {("draw",): 0.09, ("demonstrations",): 0.04, ("order",): 0.01, ("train",): 0.0, ("item",): 0.16, ("draw", "item"): 0.05}
    true |= {("demonstrations", "order"): 0.02}
    rest, estimates, negative = 0.1, [], 0
    for _ in range(400):
        values = rng.normal(0, np.sqrt(rest), sizes)
        for factors, variance in true.items():
            shape = [size if name in factors else 1 for name, size in zip(names, sizes, strict=True)]
            values = values + rng.normal(0, np.sqrt(variance), shape)
        found = split_variance(values, names)
        negative += ("train",) in found.clipped
        assert all(value >= 0 for value in found.components.values())
        assert all(found.components[clipped] == 0 for clipped in found.clipped)
        estimates.append({**found.components})
    means = {key: np.mean([one[key] for one in estimates]) for key in estimates[0]}
    assert means["draw",] == pytest.approx(0.09, rel=0.2)
    assert means["demonstrations",] == pytest.approx(0.04, rel=0.3)
    assert means["item",] == pytest.approx(0.16, rel=0.1)
    assert means["draw", "item"] == pytest.approx(0.05, rel=0.1)
    assert means["rest",] == pytest.approx(0.1, rel=0.02)
    assert 0.3 < negative / 400 < 0.8


def test_the_error_is_that_of_other_draws_and_items():
    rng, means, errors = np.random.default_rng(2), [], []
    for _ in range(800):
        values = rng.normal(0, 0.3, (5, 1)) + rng.normal(0, 0.4, (1, 40)) + rng.normal(0, 0.5, (5, 40))
        means.append(values.mean())
        errors.append(split_variance(values, ("draw", "item")).error ** 2)
    assert np.sqrt(np.mean(errors)) == pytest.approx(np.std(means), rel=0.08)


def test_what_one_more_would_narrow():
    values = np.array([[0.0, 3.0], [5.0, 6.0]])
    found = split_variance(values, ("draw", "item"))
    parts = [7.5 / 2, 1.5 / 2, 1 / 4]
    assert found.narrower("draw") == pytest.approx(1 - np.sqrt((parts[0] * 2 / 3 + parts[1] + parts[2] * 2 / 3) / sum(parts)))
    assert found.narrower("draw", 10**9) == pytest.approx(1 - np.sqrt(parts[1] / sum(parts)), abs=1e-4)
    assert found.share("draw") == pytest.approx(parts[0] / sum(parts))


def test_a_factor_with_one_value_has_no_variance():
    values = np.random.default_rng(0).normal(0, 1, (3, 1, 20))
    found = split_variance(values, ("draw", "order", "item"))
    assert found.components == split_variance(values[:, 0], ("draw", "item")).components
    assert found.narrower("order") > 0  # what is left over may shrink with any factor
    same = split_variance(np.ones((2, 3)), ("draw", "item"))
    assert (same.error, same.narrower("draw"), same.share("draw")) == (0, 0, 0)


def test_what_was_not_scored_is_left_out_first():
    with pytest.raises(AssertionError, match="leave out items"):
        split_variance(np.array([[0.0, np.nan]]), ("draw", "item"))
