"""Crossed seeds: which runs there are, that each source of chance is varied by itself, the split, intervals, and comparisons by draw."""

import math

import numpy as np
import pytest
import tiny

import icl
from icl.audit import compare
from icl.evaluate.crossed import FACTORS, _interval, indices, judge_crossed, levels_of, merged, replicate_of
from icl.evaluate.metrics.accuracy import Accuracy
from icl.evaluate.metrics.macro_f1 import MacroF1
from icl.evaluate.paired import Side
from icl.evaluate.variance import split_variance
from icl.values import Example, Prediction

SIZES = {"draw": 3, "demonstrations": 2, "order": 4, "train": 5}


def test_numbers_of_runs_and_their_values_are_one_to_one():
    every = list(indices(SIZES, frozenset(FACTORS)))
    assert every == list(range(120))
    assert len({tuple(levels_of(n, SIZES).values()) for n in every}) == 120
    some = [levels_of(n, SIZES) for n in indices(SIZES, frozenset({"draw", "train"}))]
    assert len(some) == 15
    assert {(each["demonstrations"], each["order"]) for each in some} == {(0, 0)}
    assert [replicate_of(each, SIZES) for each in some] == [n // 5 for n in range(15)]
    assert replicate_of({"draw": 0, "demonstrations": 1, "order": 2, "train": 0}, {**SIZES, "draw": 1}) == 1


def test_runs_of_one_draw_are_averaged():
    side = Side(np.arange(12.0).reshape(4, 3), tuple(lambda at, n=n: at.mean(axis=1) + n for n in range(4)))
    two = merged(side, [0, 0, 1, 1])
    assert two.values.tolist() == [[1.5, 2.5, 3.5], [7.5, 8.5, 9.5]]
    assert [f(np.array([[0, 2]]))[0] for f in two.functions] == [1.5, 3.5]
    assert merged(side, [None] * 4) is side
    assert merged(side, [0, 1, 2, 3]) is side


def made(values, levels):
    """values: (n_runs, n_items) of 0 and 1, as predictions of examples that are all "a"."""
    examples = [Example(f"x-{n}", {"text": str(n)}, "a") for n in range(values.shape[1])]
    runs = [[Prediction(e.uid, "a" if right else "b") for e, right in zip(examples, row, strict=True)] for row in values]
    return runs, levels, examples


def test_the_figure_and_its_split():
    rng = np.random.default_rng(0)
    levels = [levels_of(n, {**SIZES, "demonstrations": 1, "order": 1}) for n in range(15)]
    shift = rng.normal(0, 0.1, 3)
    values = rng.random((15, 200)) < 0.6 + np.array([shift[each["draw"]] for each in levels])[:, None]
    order = rng.permutation(15)  # whatever order the runs come in
    runs, shuffled, examples = made(values[order], [levels[n] for n in order])
    figure, split = judge_crossed(Accuracy(), runs, shuffled, examples, rng)
    assert figure.value == pytest.approx(values.mean())
    expected = split_variance(values.reshape(3, 5, 200).astype(float), ["draw", "train", "item"])
    assert split.components == pytest.approx(dict(expected.components))
    assert split.share("draw") > 0.5 > split.share("train")
    assert figure.low < figure.value < figure.high
    figure, split = judge_crossed(MacroF1(), runs, shuffled, examples, rng)
    assert split is None
    assert figure.low < figure.value < figure.high


def test_the_interval_covers_at_few_values():
    """What it is for: the mean over all draws, demonstrations and items there could be."""
    rng, n_hit, n = np.random.default_rng(1), 0, 300
    for _ in range(n):
        noise = (0.04 * rng.normal(size=(3, 1, 1)), 0.03 * rng.normal(size=(1, 3, 1)), 0.01 * rng.normal(size=(3, 3, 1)))
        values = 0.6 + sum(noise) + 0.3 * rng.normal(size=(1, 1, 100)) + 0.2 * rng.normal(size=(3, 3, 100))
        low, high = _interval(float(values.mean()), split_variance(values, ["draw", "demonstrations", "item"]))
        n_hit += low <= 0.6 <= high
    assert n_hit / n >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / n)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("crossed")
    model = tiny.save(root / "tiny", "llama")
    rows = [{"text": f"word{n % 7} thing{n % 5} number {n}", "label": "good" if n % 3 else "bad"} for n in range(70)]
    suite = {
        "models": [str(model)],
        "tasks": [{"name": "t", "train": rows[:40], "test": rows[40:]}],
        "methods": ["majority", {"few_shot": {"retriever": "random", "order": "shuffled", "shots": 4}}],
        "budgets": [16],
        "seeds": {"draw": 2, "demonstrations": 2, "order": 2, "train": 3},
        "metrics": ["accuracy"],
    }
    patch = pytest.MonkeyPatch()
    patch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})  # nothing is embedded here
    yield icl.run(suite, root / "run")
    patch.undo()


def test_a_method_has_the_runs_that_chance_gives_it(run):
    cells = {name: [c for c in run.document["cells"] if c["method"] == name] for name in ("majority", "few_shot")}
    assert [c["seeds"]["draw"] for c in cells["majority"]] == [0, 1]
    assert len(cells["few_shot"]) == 8
    assert {c["seeds"]["train"] for c in cells["few_shot"]} == {0}
    assert len({c["seed"] for c in cells["few_shot"]}) == 8


def test_each_source_of_chance_is_varied_by_itself(run):
    shown = {}
    for cell in run.document["cells"]:
        if cell["method"] == "few_shot":
            levels = tuple(cell["seeds"][name] for name in ("draw", "demonstrations", "order"))
            shown[levels] = run.predictions("few_shot", seed=cell["seed"])[0].demonstrations
    for draw in (0, 1):
        for demonstrations in (0, 1):
            one, other = (shown[draw, demonstrations, order] for order in (0, 1))
            assert set(one) == set(other)
            assert one != other
        assert set(shown[draw, 0, 0]) != set(shown[draw, 1, 0])


def test_the_split_stands_in_the_results_and_the_table(run):
    (split,) = (r for r in run.document["variance"] if r["method"] == "few_shot")
    assert split["sizes"] == {"draw": 2, "demonstrations": 2, "order": 2, "item": 30}
    assert sum(part["of_mean"] for part in split["components"]) == pytest.approx(split["error"] ** 2)
    (record,) = (r for r in run.results if r["method"] == "few_shot" and r["seed"] is None)
    each = [r["value"] for r in run.results if r["method"] == "few_shot" and r["seed"] is not None]
    assert record["value"] == pytest.approx(sum(each) / 8)
    text = run.table()
    assert "variance of the mean owed to" in text
    assert "draw of labels: 2, demonstrations: 2, order: 2" in text, text[-1500:]


def test_comparisons_take_draws_as_the_runs(run):
    (record,) = (r for r in compare(run.folder, "few_shot", "majority").records if r["seed"] is None)
    assert record["n_runs"] == 2
