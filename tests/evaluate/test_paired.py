"""Paired comparisons: closed forms, scipy, brute force, and how often they are wrong when there is nothing to find."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from icl.evaluate.intervals import resamples
from icl.evaluate.metrics.macro_f1 import MacroF1
from icl.evaluate.paired import Side, holm, interaction, mcnemar, paired, side
from icl.values import Example, Prediction


def rng(seed=0):
    return np.random.default_rng(seed)


def two_sides(generator, n_runs, n, run_luck, ability=0.7):
    """Two methods equally good in truth, on the same items."""
    difficulty = generator.normal(0, 1.0, n)
    sides = []
    for _ in range(2):
        own = generator.normal(0, run_luck, (n_runs, 1)) if run_luck else 0.0
        logit = math.log(ability / (1 - ability)) + difficulty + own
        sides.append(Side((generator.random((n_runs, n)) < 1 / (1 + np.exp(-logit))).astype(float)))
    return sides[0], sides[1]


def test_a_clear_difference():
    ours, theirs = Side(np.ones((3, 200))), Side(np.tile([0.0, 1.0], (3, 100)))
    found = paired([(ours, theirs)], rng())
    assert found.value == 0.5
    assert found.low < 0.5 < found.high
    assert found.differs
    assert found.p < 0.01
    assert found.more_items == 0
    assert found.more_runs == 0
    assert (found.n_items, found.n_runs, found.n_unscored) == (200, 3, 0)
    assert (found.floor, found.ceiling) == (0.5, 0.5)
    turned = paired([(theirs, ours)], rng())
    assert turned.value == -0.5
    assert turned.low == pytest.approx(-found.high, abs=0.01)


def test_the_interval_of_one_run_is_that_of_the_textbook():
    """Bonett and Price's adjusted Wald interval for paired shares, where nothing is discrete enough to matter."""
    ours = np.repeat([1.0, 0.0, 1.0, 0.0], [60, 30, 210, 100])
    theirs = np.repeat([0.0, 1.0, 1.0, 0.0], [60, 30, 210, 100])
    found = paired([(Side(ours[None]), Side(theirs[None]))], rng(), 20_000)
    a, b = 61 / 402, 31 / 402
    half = 1.96 * math.sqrt((a + b - (a - b) ** 2) / 402)
    assert found.value == pytest.approx(30 / 400)
    assert (found.low, found.high) == pytest.approx((a - b - half, a - b + half), abs=0.004)
    assert found.mcnemar == pytest.approx(stats.binomtest(60, 90).pvalue)


def test_five_items_for_one_side_are_no_proof():
    theirs = np.zeros(100)
    for n, proof in ((5, False), (9, True)):
        ours = theirs.copy()
        ours[:n] = 1
        found = paired([(Side(ours[None]), Side(theirs[None]))], rng())
        assert found.differs == proof
        assert (found.mcnemar < 0.05) == proof


def test_what_never_differs_is_not_certain():
    same = Side(np.tile([0.0, 1.0], (3, 50)))
    found = paired([(same, same)], rng())
    assert found.value == 0
    assert found.low < 0 < found.high
    assert found.high < 0.03
    assert found.p == 1


def test_runs_widen_the_interval_as_the_t_distribution_says():
    """Items that never differ within a run: the runs alone are left, and the interval is the t test's."""
    runs = np.array([0.02, 0.05, 0.03, 0.06])
    ours = Side(np.repeat(runs[:, None], 500, axis=1))
    found = paired([(ours, Side(np.zeros((4, 500))))], rng(), 20_000)
    low, high = stats.t.interval(0.95, 3, runs.mean(), stats.sem(runs))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.002)
    assert found.p == pytest.approx(stats.ttest_1samp(runs, 0).pvalue, rel=0.15)
    assert found.more_runs is not None


def test_runs_that_are_not_paired_are_welch_s():
    a, b = np.array([0.30, 0.36, 0.33]), np.array([0.20, 0.26, 0.28, 0.23, 0.25])
    sides = [Side(np.repeat(runs[:, None], 500, axis=1)) for runs in (a, b)]
    found = paired([(sides[0], sides[1])], rng(), 20_000)
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.004)


def test_a_single_run_stands_for_all():
    generator = rng(3)
    theirs = generator.random((4, 100))
    one = generator.random((1, 100))
    spread, repeated = (paired([(Side(ours), Side(theirs))], rng()) for ours in (one, np.repeat(one, 4, axis=0)))
    assert spread == repeated


def test_unscored_items_are_counted_and_bounded():
    ours = np.array([[1.0, np.nan, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    theirs = np.array([[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, np.nan]])
    found = paired([(Side(ours), Side(theirs))], rng())
    assert found.n_unscored == 2
    assert found.value == pytest.approx((1 / 3 + 1 / 3) / 2)
    every = [
        np.where(np.isnan(ours), a, ours).mean() - np.where(np.isnan(theirs), b, theirs).mean()
        for a, b in itertools.product((0.0, 1.0), (0.0, 1.0))
    ]
    assert (found.floor, found.ceiling) == pytest.approx((min(every), max(every)))
    assert paired([(Side(ours, bounds=None), Side(theirs, bounds=None))], rng()).floor is None


def test_nothing_scored_in_a_run_is_no_figure():
    ours = np.array([[1.0, 0.0], [np.nan, np.nan]])
    found = paired([(Side(ours), Side(np.zeros((2, 2))))], rng())
    assert found.value is found.low is found.p is found.more_items is None
    assert not found.differs
    assert not found.level(1)
    assert found.n_unscored == 2
    assert found.ceiling == 0.75


def test_any_metric_through_its_own_statistic():
    generator, labels = rng(1), ("a", "b", "c")
    examples = [Example(str(i), {}, labels[i % 3]) for i in range(150)]

    def run(right, unscored=0):
        answers = [e.target if generator.random() < right else labels[generator.integers(3)] for e in examples]
        return [Prediction(e.uid, None if n < unscored else a) for n, (e, a) in enumerate(zip(examples, answers, strict=True))]

    metric = MacroF1()
    better, worse = [run(0.8) for _ in range(3)], [run(0.5) for _ in range(3)]
    ours, theirs = (side(metric, runs, examples) for runs in (better, worse))
    found = paired([(ours, theirs)], rng())
    everything = np.arange(150)[None]
    expected = np.mean(
        [
            metric.aggregate(a, examples, everything)[0] - metric.aggregate(b, examples, everything)[0]
            for a, b in zip(better, worse, strict=True)
        ]
    )
    assert (found.value, found.floor, found.ceiling) == pytest.approx((expected,) * 3)
    assert found.low < expected < found.high
    assert found.differs
    assert found.mcnemar is None
    assert found.n_items == 150
    partly = paired([(side(metric, [run(0.8, 5)], examples), side(metric, [run(0.5)], examples))], rng())
    assert (partly.n_items, partly.n_unscored) == (145, 5)
    assert (partly.floor, partly.ceiling) == (-1.0, 1.0)


def test_several_tasks_are_pooled_with_equal_weight():
    generator = rng(5)
    small, large = two_sides(generator, 3, 50, 0.3), two_sides(generator, 3, 400, 0.3)
    parts = [paired([task], rng()) for task in (small, large)]
    both = paired([small, large], rng())
    assert both.value == pytest.approx(np.mean([part.value for part in parts]))
    assert both.n_items == 450
    assert both.detectable < math.hypot(*(part.detectable for part in parts)) / 2 * 1.1
    widths = [part.high - part.low for part in parts]
    assert both.high - both.low < math.hypot(*widths) / 2 * 1.3


def test_the_same_generator_gives_the_same_interval():
    task = two_sides(rng(2), 3, 80, 0.2)
    assert paired([task], rng(9)) == paired([task], rng(9))


def test_mcnemar_is_the_binomial_test():
    for one, other in itertools.product(range(8), range(8)):
        ours, theirs = np.repeat([1.0, 0.0, 1.0], [one, other, 5]), np.repeat([0.0, 1.0, 1.0], [one, other, 5])
        expected = stats.binomtest(one, one + other).pvalue if one + other else 1.0
        assert mcnemar(ours, theirs) == pytest.approx(expected)
    assert mcnemar(np.array([1.0, np.nan]), np.array([0.0, 0.0])) == 1.0


def test_holm_by_its_definition():
    generator = rng(0)
    for _ in range(50):
        p = list(generator.random(6) ** 3)
        adjusted = holm(p)
        for level in (0.01, 0.05, 0.2):
            # Step down: go through the p-values from the smallest, stop at the first that is too large.
            rejected = set()
            for rank, n in enumerate(sorted(range(6), key=lambda n: p[n])):
                if p[n] > level / (6 - rank):
                    break
                rejected.add(n)
            assert {n for n in range(6) if adjusted[n] <= level} == rejected
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@pytest.mark.parametrize("n_runs", [1, 4])
def test_the_detectable_difference_is_detected_four_times_in_five(n_runs):
    generator, found, n, trials = rng(1), 0, 150, 250
    between = 0.02 if n_runs > 1 else 0.0

    def trial(true):
        values = true + generator.normal(0, 0.3, n) + generator.normal(0, between, (n_runs, 1)) + generator.normal(0, 0.1, (n_runs, n))
        return paired([(Side(values, bounds=None), Side(np.zeros((n_runs, n)), bounds=None))], generator, 1000)

    typical = float(np.mean([trial(0.0).detectable for _ in range(60)]))
    found = sum(trial(typical).differs for _ in range(trials))
    assert 0.72 <= found / trials <= 0.9


def test_as_many_more_as_it_says_settle_it():
    """Copies of the same items behave as new ones; the promised number is enough, and two thirds of it are not."""
    generator = rng(4)
    values = 0.03 + generator.normal(0, 0.3, (1, 100)) * 1.0
    values += 0.03 - values.mean()
    found = paired([(Side(values, bounds=None), Side(np.zeros((1, 100)), bounds=None))], rng())
    assert not found.differs
    assert found.more_runs is None
    sd = values.std()
    expected = ((1.96 + 0.8416) * sd / 0.03) ** 2 - 100
    assert found.more_items == pytest.approx(expected, rel=0.15)


def test_no_number_of_items_makes_up_for_runs_that_differ():
    runs = np.array([0.5, -0.4, 0.1])[:, None] + rng().normal(0, 0.05, (3, 300))
    found = paired([(Side(runs, bounds=None), Side(np.zeros((3, 300)), bounds=None))], rng())
    assert found.more_items is None
    assert found.more_runs > 10


def test_items_that_behave_differently_in_every_run_count_once():
    """Nothing but noise of item and run together: its variance is e / (n n_runs), found by resampling the items."""
    runs = rng(8).normal(0, 0.4, (10, 400))
    means = np.stack([runs[:, sample].mean(axis=2).T for sample in resamples(400, rng(), 3000)][:1])[0]
    assert interaction(means) == pytest.approx(0.16 / 4000, rel=0.15)
    shifted = runs + rng(9).normal(0, 0.4, 400)
    means = np.stack([shifted[:, sample].mean(axis=2).T for sample in resamples(400, rng(), 3000)][:1])[0]
    assert interaction(means) == pytest.approx(0.16 / 4000, rel=0.3)
    assert interaction(means[:, :1]) == 0


@pytest.mark.parametrize(("n_runs", "n", "run_luck", "ability"), [(1, 100, 0.0, 0.95), (3, 150, 0.4, 0.7)])
def test_error_under_the_null(n_runs, n, run_luck, ability):
    assert error(n_runs, n, run_luck, ability, 500) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("ability", [0.5, 0.8, 0.97])
@pytest.mark.parametrize("n", [50, 300])
@pytest.mark.parametrize(("n_runs", "run_luck"), [(1, 0.0), (3, 0.0), (3, 0.5), (5, 0.0), (5, 0.5), (10, 0.3)])
def test_error_under_the_null_is_at_most_six_per_cent(n_runs, n, run_luck, ability):
    assert error(n_runs, n, run_luck, ability, 2000) <= 0.06


def error(n_runs, n, run_luck, ability, trials):
    generator = rng(n_runs * 1000 + n)
    return sum(paired([two_sides(generator, n_runs, n, run_luck, ability)], generator, 1000).differs for _ in range(trials)) / trials
