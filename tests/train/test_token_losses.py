"""Losses of answers that are texts, each against its paper's formula, written out on the probabilities of a few tokens."""

import math

import pytest
import torch

from icl.train.token_losses import Answers, LossForm, answers_loss, scores_of

P = [[0.5, 0.25], [0.1], [0.2, 0.9, 0.3]]
"""One row: three answers of two, one and three tokens, and the probability of each token."""
LOG_P = torch.tensor([math.log(p) for answer in P for p in answer], dtype=torch.float64)
OWNER = torch.tensor([0, 0, 1, 2, 2, 2])
PLAIN = ((0,), (1,), (2,))


def loss(*parts, right=0, groups=PLAIN, divisors=(1.0, 1.0, 1.0), **form):
    rows = [Answers(groups, right, divisors)]
    return answers_loss(LOG_P.float(), OWNER, rows, LossForm(parts, **form)).tolist()[0]


def softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


SUMS = [sum(math.log(p) for p in answer) for answer in P]
MEANS = [total / len(answer) for total, answer in zip(SUMS, P, strict=True)]


def test_cross_entropy_over_the_labels_scores():
    assert loss("labels") == pytest.approx(-math.log(softmax(SUMS)[0]), abs=1e-6)
    by_token = [total / n for total, n in zip(SUMS, (2, 1, 3), strict=True)]
    assert loss("labels", right=2, divisors=(2.0, 1.0, 3.0)) == pytest.approx(-math.log(softmax(by_token)[2]), abs=1e-6)


def test_several_words_of_a_label_add_up():
    """As in a prompt's scores: the log-sum-exp of its words."""
    scores = [math.log(math.exp(SUMS[0]) + math.exp(SUMS[2])), SUMS[1]]
    assert loss("labels", groups=((0, 2), (1,))) == pytest.approx(-math.log(softmax(scores)[0]), abs=1e-6)
    (found,) = scores_of(LOG_P.float(), OWNER, [Answers(((0, 2), (1,)), 0, (1.0,) * 3)])
    assert found.tolist() == pytest.approx(scores, abs=1e-6)


def test_language_model():
    """Liu et al. 2022, eq. 1: L_LM = -1/T Σ_t log p(y_t | x, y_<t)."""
    assert loss("language_model") == pytest.approx(-MEANS[0], abs=1e-6)
    assert loss("language_model", groups=((1, 0), (2,))) == pytest.approx(-MEANS[1], abs=1e-6)  # the first word


def test_length_normalised():
    """Eq. 2 and 3: β(x, y) = 1/T Σ_t log p(y_t | …); L_LN = -log exp β(x, y) / (exp β(x, y) + Σ_n exp β(x, ŷ_n))."""
    expected = -math.log(math.exp(MEANS[0]) / sum(math.exp(m) for m in MEANS))
    assert loss("length_normalised") == pytest.approx(expected, abs=1e-6)


def test_unlikelihood():
    """Eq. 4: L_UL = - Σ_n Σ_t log(1 - p(ŷ_t | x, ŷ_<t)) / Σ_n T_n."""
    wrong = [*P[1], *P[2]]
    assert loss("unlikelihood") == pytest.approx(-sum(math.log(1 - p) for p in wrong) / len(wrong), abs=1e-6)


def test_of_several_the_sum():
    """Eq. 5: the three have equal weights."""
    parts = ("language_model", "unlikelihood", "length_normalised")
    assert loss(*parts) == pytest.approx(sum(loss(part) for part in parts), abs=1e-6)


def test_a_token_that_is_certain_has_a_gradient():
    log_p = torch.tensor([-0.1, 0.0], requires_grad=True)
    answers_loss(log_p, torch.tensor([0, 1]), [Answers(((0,), (1,)), 0, (1.0, 1.0))], LossForm(("unlikelihood",))).sum().backward()
    assert torch.isfinite(log_p.grad).all()


@pytest.mark.parametrize("part", ["labels", "language_model", "unlikelihood", "length_normalised"])
def test_probabilities_as_targets_and_class_weights(part):
    assert loss(part, right=(0.0, 1.0, 0.0)) == pytest.approx(loss(part, right=1), abs=1e-6)
    assert loss(part, right=1, weights=(1.0, 2.5, 1.0)) == pytest.approx(2.5 * loss(part, right=1), abs=1e-5)
    if part != "unlikelihood":
        q = (0.2, 0.5, 0.3)
        assert loss(part, right=q) == pytest.approx(sum(w * loss(part, right=i) for i, w in enumerate(q)), abs=1e-6)


def test_unlikelihood_with_probabilities():
    """An answer is wrong by what is left of its probability."""
    q = (0.2, 0.5, 0.3)
    weights = [1 - share for share, answer in zip(q, P, strict=True) for _ in answer]
    terms = [-math.log(1 - p) for answer in P for p in answer]
    expected = sum(w * t for w, t in zip(weights, terms, strict=True)) / sum(weights)
    assert loss("unlikelihood", right=q) == pytest.approx(expected, abs=1e-6)


def test_smoothing_and_focal_are_of_the_comparison():
    p = softmax(SUMS)
    smooth = -sum((0.9 * (i == 0) + 0.1 / 3) * math.log(p[i]) for i in range(3))
    assert loss("labels", smoothing=0.1) == pytest.approx(smooth, abs=1e-6)
    assert loss("labels", focal=2.0) == pytest.approx(-((1 - p[0]) ** 2) * math.log(p[0]), abs=1e-6)
    assert loss("language_model", smoothing=0.1, focal=2.0) == loss("language_model")


def test_a_teachers_temperature():
    """Hinton et al. 2015: both sides' logits divided by T, times T². A row whose label is certain stays a label."""
    q, t = (0.2, 0.5, 0.3), 2.0
    wanted, p = (softmax([v / t for v in values]) for values in ([math.log(x) for x in q], SUMS))
    expected = -(t**2) * sum(w * math.log(x) for w, x in zip(wanted, p, strict=True))
    assert loss("labels", right=q, temperature=t) == pytest.approx(expected, abs=1e-5)
    assert loss("labels", right=(0.0, 1.0, 0.0), temperature=t) == pytest.approx(loss("labels", right=1), abs=1e-5)


def test_rows_with_different_numbers_of_answers():
    """Choices: each row stands for itself, in order."""
    two = Answers(((0,), (1,)), 1, (1.0, 1.0))
    rows = [two, Answers(PLAIN, 0, (1.0,) * 3), two]
    first = torch.tensor([math.log(0.5), math.log(0.25)])
    log_p = torch.cat([first, LOG_P.float(), first.flip(0)])
    owner = torch.tensor([0, 1, *(2 + OWNER).tolist(), 5, 6])
    found = answers_loss(log_p, owner, rows, LossForm()).tolist()
    assert found == pytest.approx([-math.log(1 / 3), loss("labels"), -math.log(2 / 3)], abs=1e-6)
