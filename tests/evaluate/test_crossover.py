"""The crossover: published figures, closed forms, brute force, and how often its interval holds what it should."""

import csv
import math
import warnings

import numpy as np
import pytest

import icl
from icl.errors import InputError
from icl.evaluate.crossover import crossover

ALONE = pytest.mark.filterwarnings("ignore:no items were given")
PROMPT_N, TRAINED_N = (1, 4, 16, 32, 64, 128, 256, 512), (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
SCENES = {
    # Flat from 64 labels on; training rises through it.
    "plateau": ((0.4, 0.55, 0.65, 0.70, 0.75, 0.75, 0.75, 0.75), (0.3, 0.4, 0.5, 0.6, 0.69, 0.77, 0.84, 0.88, 0.9)),
    # Both rise.
    "rising": ((0.3, 0.4, 0.52, 0.57, 0.62, 0.66, 0.69, 0.71), (0.2, 0.3, 0.4, 0.5, 0.58, 0.65, 0.72, 0.77, 0.81)),
    # Close to each other everywhere.
    "shallow": ((0.5, 0.6, 0.70, 0.72, 0.74, 0.76, 0.77, 0.78), (0.6, 0.65, 0.69, 0.72, 0.745, 0.765, 0.785, 0.80, 0.81)),
}


def rows_of(method, labels, curve, luck):
    """luck: (n_runs, n_labels)"""
    return [
        (method, n, run, value + luck[run][k]) for k, (n, value) in enumerate(zip(labels, curve, strict=True)) for run in range(len(luck))
    ]


def exact(method, labels, curve, n_runs=2):
    return rows_of(method, labels, curve, np.zeros((n_runs, len(labels))))


def anchor(shared, name):
    with (shared / "anchors" / "long_context_icl" / f"{name}.csv").open() as file:
        return [(r["method"], int(r["n_labels"]), int(r["run"]), float(r["accuracy"])) for r in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("name", "estimate", "low", "high"), [("trec", 237, 176, 378), ("trecfine", 696, 568, 853), ("banking77", 4839, 4011, 5838)]
)
def test_the_published_runs_give_their_figures(shared, name, estimate, low, high):
    found = crossover(anchor(shared, name), prompt={"icl"}, trained={"finetune"}, resample="runs")
    assert found.estimate == pytest.approx(estimate, rel=0.05)
    assert found.interval == (pytest.approx(low, rel=0.15), pytest.approx(high, rel=0.15))
    assert found.share_beyond == 0
    assert found.n_runs == (10, 5)
    with pytest.warns(UserWarning, match="no items were given"):
        default = icl.crossover(anchor(shared, name), prompt={"icl"}, trained={"finetune"})
    assert default.estimate == found.estimate
    assert default.interval[0] < found.interval[0]
    assert default.interval[1] > found.interval[1]


def read_off(values):
    """The rule again, on a fine grid of label numbers instead of by its corners. values: method -> n_labels -> mean."""
    prompt, trained = (sorted(values[method].items()) for method in ("icl", "finetune"))
    grid = np.exp(np.linspace(math.log(max(prompt[0][0], trained[0][0])), math.log(trained[-1][0]), 4000))
    ours, theirs = (np.log([n for n, _ in side]) for side in (prompt, trained))
    best = np.interp(np.log(grid), ours, np.maximum.accumulate([v for _, v in prompt]))
    behind = np.flatnonzero(np.interp(np.log(grid), theirs, [v for _, v in trained]) <= best)
    if not len(behind):
        return float(grid[0])
    return math.inf if behind[-1] == len(grid) - 1 else float(grid[behind[-1] + 1])


def test_the_rule_holds_on_every_data_set_of_the_publication(shared):
    files = [path for path in sorted((shared / "anchors" / "long_context_icl").glob("*.csv")) if not path.stem.endswith("_items")]
    if not files:
        pytest.skip("the published runs are not there")
    for path in files:
        rows = anchor(shared, path.stem)
        runs = {}
        for method, n, _, value in rows:
            runs.setdefault(method, {}).setdefault(n, []).append(value)
        found = crossover(rows, prompt={"icl"}, trained={"finetune"}, resample="runs")
        estimate = read_off({m: {n: np.mean(v) for n, v in points.items()} for m, points in runs.items()})
        assert found.estimate == pytest.approx(estimate, rel=0.01) if math.isfinite(estimate) else found.estimate is None, path.stem
        rng = np.random.default_rng(1)
        drawn = [
            read_off({m: {n: rng.choice(v, len(v)).mean() for n, v in points.items()} for m, points in runs.items()}) for _ in range(1000)
        ]
        for end, expected in zip(found.interval, np.quantile(drawn, (0.025, 0.975), method="inverted_cdf"), strict=True):
            assert end == (pytest.approx(expected, rel=0.1) if math.isfinite(expected) else math.inf), path.stem
        assert found.share_beyond == pytest.approx(np.isinf(drawn).mean(), abs=0.05), path.stem


@ALONE
def test_by_hand():
    """Lines in log N: the trained one goes from -0.2 at 100 to +0.2 at 400, so it crosses at 200."""
    rows = exact("p", (10, 100), (0.5, 0.6)) + exact("t", (100, 400, 1000), (0.4, 0.8, 0.9))
    found = crossover(rows, {"p"}, {"t"})
    assert found.estimate == pytest.approx(200)
    assert found.interval == pytest.approx((200, 200))
    assert (found.first, found.last, found.share_beyond, found.share_before) == (100, 1000, 0, 0)
    assert str(found) == "200 labels (95 % interval 200 to 200; beyond in 0% of the resamples)"


@ALONE
def test_the_prompt_may_show_fewer_than_it_owns():
    """Its best so far counts, at every number of labels above, also where it fell since."""
    prompt = exact("p", (10, 100, 1000), (0.5, 0.7, 0.4))
    rows = prompt + exact("t", (100, 1000, 10_000), (0.5, 0.6, 0.8))
    assert crossover(rows, {"p"}, {"t"}).estimate == pytest.approx(math.sqrt(1000 * 10_000))


@ALONE
def test_the_last_crossing_counts_and_equal_is_not_above():
    rows = exact("p", (1,), (0.5,)) + exact("t", (10, 100, 1000, 10_000), (0.6, 0.5, 0.7, 0.8))
    assert crossover(rows, {"p"}, {"t"}).estimate == pytest.approx(100)


@ALONE
def test_without_a_crossing():
    found = crossover(exact("p", (10, 100), (0.5, 0.9)) + exact("t", (10, 100), (0.4, 0.6)), {"p"}, {"t"})
    assert found.estimate is None
    assert found.interval == (math.inf, math.inf)
    assert found.share_beyond == 1
    assert "not within 100 labels" in str(found)
    ahead = crossover(exact("p", (10, 100), (0.5, 0.9)) + exact("t", (10, 100), (0.6, 1.0)), {"p"}, {"t"})
    assert (ahead.estimate, ahead.interval, ahead.share_before) == (10, (10, 10), 1)


@ALONE
def test_a_method_that_needs_no_labels_counts_from_the_start():
    rows = [("zero", None, 0, 0.65), *exact("p", (50, 100), (0.5, 0.6)), *exact("t", (10, 100, 1000), (0.5, 0.6, 0.7))]
    found = crossover(rows, {"zero", "p"}, {"t"})
    assert found.first == 10
    assert found.estimate == pytest.approx(math.sqrt(100 * 1000))
    assert crossover(rows, {"p"}, {"t"}).first == 50


@ALONE
def test_of_several_methods_the_best_counts():
    prompt = exact("p", (1,), (0.5,))
    steady, late = exact("a", (10, 100, 1000), (0.3, 0.45, 0.6)), exact("b", (100, 1000), (0.1, 0.9))
    alone = [crossover(prompt + steady + late, {"p"}, {name}).estimate for name in ("a", "b")]
    both = crossover(prompt + steady + late, {"p"}, {"a", "b"})
    assert both.estimate == pytest.approx(min(alone), rel=1e-6)
    assert alone == pytest.approx([100 * 10 ** (1 / 3), 100 * 10**0.5])
    short = exact("c", (10, 100), (0.3, 0.55))
    assert crossover(prompt + steady + short, {"p"}, {"a", "c"}).estimate == pytest.approx(10 ** (1 + 0.2 / 0.25), rel=0.01)


@ALONE
def test_a_metric_of_which_less_is_better():
    rows = exact("p", (10, 100), (0.5, 0.6)) + exact("t", (100, 400, 1000), (0.4, 0.8, 0.9))
    turned = [(m, n, run, -value) for m, n, run, value in rows]
    assert crossover(turned, {"p"}, {"t"}, higher_is_better=False) == crossover(rows, {"p"}, {"t"})


@ALONE
def test_the_estimate_by_brute_force():
    """Against a walk down a fine grid, on curves of noise."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        p, t = rng.normal(0.5, 0.1, 4), rng.normal(0.45, 0.1, 5) + np.linspace(0, 0.3, 5)
        p_n, t_n = (2, 10, 60, 300), (5, 20, 100, 400, 2000)
        found = crossover(exact("p", p_n, p) + exact("t", t_n, t), {"p"}, {"t"}).estimate
        grid = np.linspace(math.log(5), math.log(2000), 40_001)
        gap = np.interp(grid, np.log(t_n), t) - np.interp(grid, np.log(p_n), np.maximum.accumulate(p))
        behind = np.flatnonzero(gap <= 0)
        if not len(behind):
            assert found == 5
        elif behind[-1] == len(grid) - 1:
            assert found is None
        else:
            assert found == pytest.approx(math.exp(grid[behind[-1]]), rel=1e-3)


def test_the_same_generator_gives_the_same_interval(shared):
    rows = anchor(shared, "trec")
    first, second, other = (
        crossover(rows, {"icl"}, {"finetune"}, resample="runs", rng=np.random.default_rng(seed)).interval for seed in (1, 1, 2)
    )
    assert first == second != other


def test_a_run_that_stands_there_twice_counts_once(shared):
    rows = anchor(shared, "trec")
    with pytest.warns(UserWarning, match="10 repeated rows"):
        again = crossover(rows + rows[:10], {"icl"}, {"finetune"}, resample="runs")
    assert again == crossover(rows, {"icl"}, {"finetune"}, resample="runs")
    with pytest.raises(InputError, match="two values"):
        crossover([*rows, (*rows[0][:3], 0.0)], {"icl"}, {"finetune"}, resample="runs")


@ALONE
def test_runs_that_are_missing_somewhere(shared):
    """One run of one point less: drawn apart, the figure hardly moves."""
    rows = anchor(shared, "banking77")
    gone = [row for row in rows if row[:3] != ("finetune", 4096, 2)]
    for resample in ("runs", "runs+items"):
        whole, less = (crossover(r, {"icl"}, {"finetune"}, resample=resample) for r in (rows, gone))
        assert less.estimate == pytest.approx(whole.estimate, rel=0.1)
        assert less.interval == (pytest.approx(whole.interval[0], rel=0.2), pytest.approx(whole.interval[1], rel=0.2))
        assert less.n_runs == (10, 4)


def simulate(scene, n_runs, noise, shared_luck, rng, n_items=0):
    """rows, items of one experiment. A share of each run's luck is the same at every number of labels."""
    rows, items = [], []
    difficulty = rng.normal(0, 0.15, n_items)
    for method, labels, curve in (("p", PROMPT_N, SCENES[scene][0]), ("t", TRAINED_N, SCENES[scene][1])):
        own, common = rng.normal(0, noise, (n_runs, len(labels))), rng.normal(0, noise, (n_runs, 1))
        luck = math.sqrt(1 - shared_luck) * own + math.sqrt(shared_luck) * common
        for method_, n, run, value in rows_of(method, labels, curve, luck):
            if n_items:
                right = rng.random(n_items) < np.clip(value + difficulty, 0, 1)
                items += [(method_, n, run, i, float(r)) for i, r in enumerate(right)]
                value = right.mean()
            rows.append((method_, n, run, float(value)))
    return rows, items or None


def truth(scene):
    rows = exact("p", PROMPT_N, SCENES[scene][0]) + exact("t", TRAINED_N, SCENES[scene][1])
    return crossover(rows, {"p"}, {"t"}, resample="runs").estimate


def coverage(scene, n_runs, noise, shared_luck, trials, n_items=0):
    """Share of intervals that hold the true crossover, the median of high / low, the share that ends beyond."""
    rng, true, found = np.random.default_rng(n_runs), truth(scene), []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="no items were given")
        for _ in range(trials):
            rows, items = simulate(scene, n_runs, noise, shared_luck, rng, n_items)
            found.append(crossover(rows, {"p"}, {"t"}, items, rng=rng).interval)
    low, high = np.array(found).T
    width = np.divide(high, low, out=np.full(trials, np.inf), where=np.isfinite(high))
    return float(((low <= true) & (true <= high)).mean()), float(np.median(width)), float(np.isinf(high).mean())


@pytest.mark.parametrize("n_runs", [3, 5, 10])
def test_the_interval_covers(n_runs):
    assert coverage("plateau", n_runs, 0.02, 0.5, 60)[0] >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.01, 0.03])
@pytest.mark.parametrize("shared_luck", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("scene", sorted(SCENES))
@pytest.mark.parametrize("n_runs", [3, 5, 10])
def test_the_interval_covers_at_least_93_per_cent(scene, n_runs, noise, shared_luck):
    covered, width, beyond = coverage(scene, n_runs, noise, shared_luck, 1000)
    print(f"| {scene} | {n_runs} | {noise} | {shared_luck} | {covered:.1%} | {width:.2f} | {beyond:.0%} |")
    assert covered >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("n_runs", [3, 5, 10])
def test_with_items_the_interval_covers_other_items_too(n_runs):
    covered, width, beyond = coverage("rising", n_runs, 0.015, 0.5, 300, 150)
    print(f"| rising, 150 items | {n_runs} | 0.015 | 0.5 | {covered:.1%} | {width:.2f} | {beyond:.0%} |")
    assert covered >= 0.93


def test_items_widen_the_interval_as_far_as_they_differ():
    """The same rows: with items of much difficulty and few of them, the sides answering alike or not."""
    rng = np.random.default_rng(2)
    rows, items = simulate("rising", 4, 0.005, 0.5, rng, 60)
    with_items = crossover(rows, {"p"}, {"t"}, items)
    with pytest.warns(UserWarning, match="others would widen it"):
        alone = crossover(rows, {"p"}, {"t"})
    assert with_items.n_items == 60
    assert alone.n_items is None
    assert with_items.estimate == alone.estimate
    assert with_items.interval[0] <= alone.interval[0] * 1.1
    assert with_items.interval[1] >= alone.interval[1] * 0.9
    one_run = [row for row in rows if row[2] == 0]
    single = crossover(one_run, {"p"}, {"t"}, [item for item in items if item[2] == 0])
    assert single.interval[0] < single.interval[1]
    fewer = crossover(rows, {"p"}, {"t"}, [(*i[:4], None if i[3] == 0 and i[2] == 1 else i[4]) for i in items])
    assert fewer.n_unscored == len(PROMPT_N) + len(TRAINED_N)


def test_what_is_wrong_is_said_at_once():
    rows = exact("p", (10,), (0.5,)) + exact("t", (10, 20), (0.4, 0.6))
    with pytest.raises(InputError, match="names of methods") as both:
        crossover(rows, "p", set())
    assert len(both.value.problems) == 2
    with pytest.raises(InputError, match="either a prompt or trained"):
        crossover(rows, {"p", "t"}, {"t"})
    with pytest.raises(InputError, match="no row of 'q'"):
        crossover(rows, {"q"}, {"t"})
    with pytest.raises(InputError, match="'bootstrap' is not known"):
        crossover(rows, {"p"}, {"t"}, resample="bootstrap")
    with pytest.raises(InputError, match="4 fields") as wrong:
        crossover([("p", 1, 0), *rows, ("t", 1.5, 0, 0.1), ("t", 30, 0, math.nan)], {"p"}, {"t"})
    assert [problem.field for problem in wrong.value.problems] == ["rows.0", "rows.7", "rows.8"]
    with pytest.raises(InputError, match="no scored item of t, 20 labels, run 1"):
        crossover(rows, {"p"}, {"t"}, [(m, n, run, 0, 1.0) for m, n, run, _ in rows[:-1]])
    with pytest.raises(InputError, match="twice in the same run"):
        crossover(rows, {"p"}, {"t"}, [(m, n, run, 0, 1.0) for m, n, run, _ in [*rows, rows[0]]])
    with pytest.raises(InputError, match="nothing says how sure"):
        crossover([("p", 10, 0, 0.5), ("t", 10, 0, 0.6)], {"p"}, {"t"}, resample="runs")
    with pytest.raises(InputError, match="the prompts start at 50"):
        crossover([*exact("p", (50,), (0.5,)), *rows[2:]], {"p"}, {"t"}, resample="runs")
    with pytest.raises(InputError, match="without labels"):
        crossover([*rows, ("t", 0, 0, 0.5)], {"p"}, {"t"}, resample="runs")


def test_rows_of_other_methods_are_passed_over(shared):
    rows = anchor(shared, "trec")
    others = [("majority", None, None, None), ("other", "all", 0, math.nan)]
    found = crossover([*others, *rows], {"icl"}, {"finetune"}, resample="runs")
    assert found == crossover(rows, {"icl"}, {"finetune"}, resample="runs")


def test_rows_may_be_mappings(shared):
    rows = anchor(shared, "trec")
    named = [dict(zip(("method", "n_labels", "run", "value"), row, strict=True)) for row in rows]
    assert crossover(named, {"icl"}, {"finetune"}, resample="runs") == crossover(rows, {"icl"}, {"finetune"}, resample="runs")
