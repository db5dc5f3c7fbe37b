"""A model as a judge: verdicts in both orders, marks, and its agreement with people, on models that judge by a known rule."""

import re

import numpy as np
import pytest
import tiny
from sklearn.metrics import cohen_kappa_score

import icl.model
from icl.errors import InputError
from icl.evaluate.judging import CRITERION, PAIR, Judge, Preference, agreement
from icl.evaluate.store import RunStore
from icl.evaluate.verdicts import keep, recall
from icl.plugins import Context, build
from icl.values import Example, Prediction

LM = tiny.lm()


class Ruled:
    """A model that writes its verdict by a rule and counts how often it is asked."""

    estimator = "generation"
    weighed = None

    def __init__(self, rule):
        self._lm, self._rule, self.asked = LM, rule, 0

    def __getattr__(self, name):
        return getattr(self._lm, name)

    def generate(self, prompts, max_new_tokens=64, stop=()):
        self.asked += len(prompts)
        return [self._rule(prompt.text) for prompt in prompts]


def parts(text):
    return re.search(r"Answer A:\n(.*?)\n\nAnswer B:\n(.*?)\n\nWhich answer", text, re.DOTALL).groups()


def longer(text):
    first, second = parts(text)
    return " A" if len(first) > len(second) else " B"


def always_first(text):
    return "A"


def marks(text):
    given = re.search(r"Answer:\n(.*?)\n\nMark", text, re.DOTALL)[1]
    return f" {min(5, len(given))}"


CASES = [("Say hi", "hello there", "hi"), ("Say hi", "hi", "hello there"), ("Count", "one two", "one")]


def test_both_orders_are_asked_and_position_is_a_tie():
    lm = Ruled(longer)
    judge = Judge(lm)
    assert [p.value for p in judge.compare(CASES)] == [1, 0, 1]
    assert all(p.consistent for p in judge.compare(CASES))
    assert lm.asked == 4  # the second case is the first in the other order, the third has its own two; nothing is asked twice
    biased = Judge(Ruled(always_first)).compare(CASES)
    assert [p.value for p in biased] == [0.5] * 3
    assert not any(p.consistent for p in biased)
    silent = Judge(Ruled(lambda text: "no idea")).compare(CASES[:1])[0]
    assert np.isnan(silent.value)
    assert not Preference(None, None).consistent


def test_marks_are_between_0_and_1():
    judge = Judge(Ruled(marks))
    assert judge.mark([("t", "a"), ("t", "abc"), ("t", "abcdefgh")]) == [0, 0.5, 1]
    assert np.isnan(Judge(Ruled(lambda text: "good")).mark([("t", "a")])[0])


def test_a_model_with_likelihoods_marks_by_its_mean_and_prefers_by_them():
    lm = LM
    (found,) = Judge(lm, top=3, format="plain").mark([("Say hi", "hello")])
    rubric = "1 is useless or wrong, the highest mark is as good as it can be"
    prompt = f"Task:\nSay hi\n\nAnswer:\nhello\n\nMark the answer from 1 to 3: {rubric}.\nMark:"
    sums = np.array(lm.loglikelihoods([prompt], [[" 1", " 2", " 3"]])[0])
    shares = np.exp(sums - np.logaddexp.reduce(sums))
    assert found == pytest.approx(float(shares @ [0, 0.5, 1]), abs=1e-5)
    (preference,) = Judge(lm, format="plain").compare([("Say hi", "hello", "go away")])
    text = f"Task:\nSay hi\n\nAnswer A:\nhello\n\nAnswer B:\ngo away\n\nWhich answer {CRITERION}? Say A or B.\nBetter:"
    first, second = lm.loglikelihoods([text], [[" A", " B"]])[0]
    assert preference.as_first == ("ours" if first >= second else "theirs")


def test_agreement_with_people():
    cases = [("t", "x" * a, "y" * b) for a, b in ((3, 1), (1, 3), (5, 2), (2, 5), (4, 1), (2, 1))]
    people = ["ours", "theirs", "theirs", "theirs", "tie", "ours"]
    found = agreement(Judge(Ruled(longer)), cases, people)
    said = ["ours", "theirs", "ours", "theirs", "ours", "ours"]
    assert found.share == 4 / 5
    assert found.kappa == pytest.approx(cohen_kappa_score(said, people))
    assert (found.consistent, found.n) == (1, 6)
    assert found.interval[0] < found.share < found.interval[1]
    assert agreement(Judge(Ruled(always_first)), cases, people).share == 0
    for wrong in (people[:3], ["tie"] * 6):
        with pytest.raises(InputError):
            agreement(Judge(Ruled(longer)), cases, wrong)


def test_the_metrics_ask_the_judge_once_and_leave_out_what_has_no_answer(monkeypatch, tmp_path):
    loaded = []

    def load_model(name):
        loaded.append(name)
        return Ruled(lambda text: longer(text) if "Answer A" in text else marks(text))

    monkeypatch.setattr(icl.model, "load_model", load_model)
    examples = [Example(f"{i}-0", {"q": "why"}, "because") for i in range(3)]
    predictions = [Prediction("0-0", "because it is so"), Prediction("1-0", "so"), Prediction("2-0", None, why="?")]
    pairwise = build("metric", {"judge_pairwise": {"model": "smollm2"}}, Context())
    assert loaded == []
    for _ in range(2):
        values = pairwise(predictions, examples)
        assert values[:2].tolist() == [1, 0]
        assert np.isnan(values[2])
    assert pairwise.judge.lm.asked == 4
    assert loaded == ["smollm2"]
    with RunStore.open(tmp_path) as store:
        keep([pairwise], store)
        again = build("metric", {"judge_pairwise": {"model": "smollm2"}}, Context())
        recall([again], store)
    assert again(predictions, examples)[:2].tolist() == [1, 0]
    assert loaded == ["smollm2"], "what a run's store knows is not asked again"
    rubric = build("metric", {"judge_rubric": {"model": "smollm2", "top": 5}}, Context())
    assert rubric(predictions, examples)[:2].tolist() == [1, 0.25]
    assert pairwise.signature(examples) == f"judge:smollm2|criterion:{CRITERION}"
    with pytest.raises(InputError, match="smollm2"):
        build("metric", {"judge_rubric": {"model": "smolm2"}}, Context())


def test_a_criterion_is_one_plain_sentence():
    assert "{criterion}" in PAIR
    for wrong in ({"criterion": "is {{ task }}"}, {"rubric": "one\ntwo"}):
        with pytest.raises(InputError):
            Judge(Ruled(longer), **wrong)
    for top in (0, 1):  # a scale of one mark
        with pytest.raises(InputError, match="tell no answers apart"):
            Judge(Ruled(longer), top=top)
