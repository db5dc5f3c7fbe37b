"""Confidence in the results: bins and curves, and methods that abstain: counted apart, scored on what they answered, no failures."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

import icl
from icl.errors import InputError
from icl.evaluate.confidence import Point, coverage_curve, reliability, stated
from icl.ship import export
from icl.values import Example, Prediction

SHY = '''"""A rule that knows how sure it is, and abstains."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from icl.methods._folder import save_predictor
from icl.methods._abstain import DESCRIPTION, Option, abstain_state, abstaining, evidence_of
from icl.seeds import rng_for
from icl.values import Prediction

KIND = "method"
KINDS = frozenset({"classify"})
NEEDS_LABELS = True
NEEDS_MODEL = False


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    abstain: Option = None
    wrong: bool = False


@dataclass
class Shy:
    settings: Settings
    labels: tuple
    name: str = "shy"

    def fit(self, pool, labels=(), unlabelled=()):
        made = Shy(self.settings, self.labels)
        made.abstaining = abstaining(self.settings.abstain, lambda: evidence_of(made.answers(pool), pool))
        return made

    def predict(self, queries):
        answers = self.answers(queries)
        return answers if self.abstaining is None else self.abstaining.apply(answers)

    def answers(self, queries):
        return [self.one(q) for q in queries]

    def one(self, query):
        rng = rng_for(1, query.uid)
        sure = 0.4 + 0.6 * rng.random()
        answer = query.target if rng.random() < sure else rng.choice(self.labels)
        if self.settings.wrong:
            answer = next(label for label in self.labels if label != query.target)
        rest = (1 - sure) / (len(self.labels) - 1)
        return Prediction(query.uid, answer, {label: sure if label == answer else rest for label in self.labels}, self.labels)

    def save(self, folder):
        save_predictor(folder, {"method": "shy", "kind": "classify", "inputs": ("text",), "labels": self.labels, **abstain_state(self.abstaining)})


def build(settings, context):
    return Shy(settings, context.labels)
'''


@pytest.fixture
def run(folder):
    (folder / "plugins" / "shy.py").write_text(SHY)

    def run(*methods, seeds=2, **more):
        suite = {
            "tasks": [{"name": "colours", "train": str(folder / "train.csv"), "test": str(folder / "test.csv"), "label": "colour"}],
            "methods": ["majority", *methods],
            "budgets": [40],
            "seeds": seeds,
            "metrics": ["accuracy", "macro_f1", {"ece": {"bins": 10}}, "aurc"],
            **more,
        }
        return icl.run(suite, folder / f"out{len(list(folder.glob('out*')))}", plugins=[folder / "plugins"])

    return run


def record(run, method, metric):
    return next(r for r in run.results if (r["method"], r["metric"], r["seed"]) == (method, metric, None))


# ── pure functions ───────────────────────────────────────────────────────────────────────────────────────────────────────


def answers(confidence, right):
    examples = [Example(f"{i}-0", {"text": str(i)}, "x") for i in range(len(right))]
    shares = [{"x": c, "y": 1 - c} if r else {"y": c, "x": 1 - c} for c, r in zip(confidence, right, strict=True)]
    return examples, [Prediction(e.uid, "x" if r else "y", s, ("x", "y")) for e, s, r in zip(examples, shares, right, strict=True)]


@pytest.mark.parametrize("seed", range(8))
def test_bins_add_up_to_the_metric_and_the_curve_is_that_of_every_threshold(seed):
    rng = np.random.default_rng(seed)
    n, bins = int(rng.integers(1, 200)), int(rng.integers(1, 20))
    confidence = rng.integers(0, 25, n) / 24
    right = rng.random(n) < confidence
    examples, predictions = answers(confidence, right)
    got, hits = stated(predictions, examples)
    np.testing.assert_array_equal(got, confidence)
    np.testing.assert_array_equal(hits, right)
    found = reliability(got, hits, bins)
    assert sum(each.n for each in found) == n
    gap = sum(abs(each.accuracy - each.confidence) * each.n for each in found) / n
    assert gap == pytest.approx(icl.score(examples, predictions, [{"ece": {"bins": bins}}])["ece"].value)
    every = [Point((confidence >= t).mean(), right[confidence >= t].mean(), t) for t in sorted(set(confidence), reverse=True)]
    whole = coverage_curve(got, hits, points=n)
    np.testing.assert_allclose(whole, every)
    few = coverage_curve(got, hits, points=5)
    assert len(few) <= 5
    assert set(few) <= set(whole)
    assert few[-1].coverage == 1
    for k in range(1, 6):  # the first point that covers at least each fifth is there
        assert next(p for p in every if p.coverage >= k / 5 - 1e-12).threshold in [p.threshold for p in few]


def test_the_curve_of_all_points_has_the_area_of_the_metric():
    rng = np.random.default_rng(0)
    confidence = rng.permutation(np.linspace(0.01, 0.99, 97))  # no ties
    right = rng.random(97) < confidence
    examples, predictions = answers(confidence, right)
    area = np.mean([1 - point.accuracy for point in coverage_curve(confidence, right, points=97)])
    assert area == pytest.approx(icl.score(examples, predictions, ["aurc"])["aurc"].value)


def test_without_answers_there_is_neither():
    assert reliability(np.zeros(0), np.zeros(0, dtype=bool)) == []
    assert coverage_curve(np.zeros(0), np.zeros(0, dtype=bool)) == []


def test_abstentions_are_no_failures_and_no_wrong_answers():
    examples, predictions = answers([0.9, 0.8, 0.3, 0.2], [True, False, False, True])
    held = [Prediction(p.uid, None, p.probabilities, withheld=p.answer, why="abstained") for p in predictions[2:]]
    unscored = Prediction(examples[0].uid, None, why="too long")
    found = icl.score(examples, [unscored, predictions[1], *held])["accuracy"]
    assert (found.value, found.n_scored, found.n_failed, found.n_abstained, found.coverage) == (0.0, 1, 1, 2, 1 / 3)
    assert str(found).endswith("(1 items, 2 abstained, 1 not scored)")
    nothing = icl.score(examples[2:], held)["accuracy"]
    assert (nothing.value, nothing.n_failed, nothing.n_abstained, nothing.coverage) == (None, 0, 2, 0.0)
    assert str(nothing) == "none of 2 items could be scored, 2 abstained"


# ── a suite ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_with_abstentions(run, folder):
    done = run("shy", {"name": "held", "shy": {"abstain": 0.7}}, {"name": "wished", "shy": {"abstain": {"accuracy": 0.9}}})
    assert done.exit_code == 0
    plain, held = record(done, "shy", "accuracy"), record(done, "held", "accuracy")
    assert (plain["n_abstained"], plain["coverage"]) == (0, 1.0)
    assert 0 < held["n_abstained"] < 80
    assert held["n_failed"] == held["n_unanswered"] == 0
    assert held["n_scored"] + held["n_abstained"] == 80
    assert held["coverage"] == held["n_scored"] / 80
    assert held["value"] > plain["value"]
    answered = [p for p in done.predictions("held") if not p.abstained]
    assert all(p.confidence >= 0.7 for p in answered)
    assert sum(p.withheld is not None for p in done.predictions("held")) == 40 - len(answered)
    document = json.loads((done.folder / "results.json").read_text())
    assert {tuple(entry["best"]) for entry in document["best"]} <= {
        (None, "shy"),
        (None, "majority"),
    }  # a figure about fewer items does not win
    assert all(name not in ("held", "wished") for entry in document["best"] for _, name in entry["level"])
    trust = {entry["method"]: entry for entry in document["confidence"]}
    assert {key: trust["held"][key] for key in ("bins", "curve", "n")} == {key: trust["shy"][key] for key in ("bins", "curve", "n")}
    assert (trust["shy"]["n"], trust["shy"]["n_bins"]) == (80, 10)
    both = [p for seed in (0, 1) for p in done.predictions("shy", seed=seed)]
    assert trust["shy"]["curve"][-1][:2] == [1.0, pytest.approx(plain["value"])]
    assert trust["shy"]["curve"][-1][2] == pytest.approx(min(p.confidence for p in both))
    table = done.table()
    assert f"of {held['coverage']:.0%}" in table
    assert "abstained" in table
    export(done.folder, folder / "shipped", "held")
    assert "| abstained |" in (folder / "shipped" / "README.md").read_text()


def test_an_answer_instead_is_an_answer(run):
    """The label that stands for doubt comes out of the usual metrics: every item is answered."""
    done = run("shy", {"name": "held", "shy": {"abstain": {"threshold": 0.7, "label": "red"}}})
    plain, held = done.predictions("shy"), done.predictions("held")
    assert [p.answer for p in held] == [p.answer if p.confidence >= 0.7 else "red" for p in plain]
    figure = record(done, "held", "accuracy")
    assert (figure["n_abstained"], figure["n_failed"], figure["coverage"]) == (0, 0, 1.0)
    with icl.evaluate.store.RunStore.read_only(done.folder) as store:
        tests = store.tests("colours")
    assert icl.score(tests, held)["accuracy"].value == pytest.approx(accuracy_score([e.target for e in tests], [p.answer for p in held]))
    with pytest.raises(InputError, match="has no label 'rde'") as caught:
        run({"name": "held", "shy": {"abstain": {"threshold": 0.7, "label": "rde"}}})
    assert "red" in str(caught.value)


def test_a_threshold_that_cannot_be_had_takes_nothing_with_it(run):
    done = run({"name": "vain", "shy": {"wrong": True, "abstain": {"accuracy": 0.5}}}, seeds=1)
    found = record(done, "vain", "accuracy")
    assert (found["value"], found["n_failed"], found["n_abstained"], done.exit_code) == (None, 40, 0, 4)
    assert "no threshold reaches" in done.predictions("vain")[0].why
    assert not (done.folder / "predictors" / "vain").exists()
    assert (done.folder / "predictors" / "majority").is_dir()
    assert record(done, "majority", "accuracy")["value"] is not None


@pytest.mark.parametrize(
    ("abstain", "words"),
    [(1.5, "1.5"), (True, "True"), ({"accuracy": 0.9, "coverage": 0.8}, "not accuracy and coverage"), ({}, "not none")],
)
def test_a_suite_says_what_is_wrong(run, abstain, words):
    with pytest.raises(InputError, match=words):
        run({"knn_vote": {"abstain": abstain}})
