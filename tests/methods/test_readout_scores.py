"""Label scores to probabilities and picks, against hand-computed values."""

import math

import numpy as np
import pytest

from icl.errors import InputError
from icl.readout import LENGTHS, READOUTS, ambiguous, group_scores, pick, probabilities, readouts_of, tie_tolerance
from icl.values import LabelScores


def scores(sums, n_tokens=None, n_bytes=None, n_chars=None, **more):
    ones = (1,) * len(sums)
    return LabelScores(tuple(f" c{i}" for i in range(len(sums))), tuple(sums), n_tokens or ones, n_bytes or ones, n_chars or ones, **more)


def test_words_of_a_label_are_joined_by_log_sum_exp():
    raw = scores([math.log(0.2), math.log(0.1), math.log(0.25)])
    grouped = group_scores(raw, [("bad", (0, 1)), ("good", (2,))], "sum")
    np.testing.assert_allclose(np.exp(grouped), [0.3, 0.25], atol=1e-12)
    np.testing.assert_allclose(probabilities(grouped), [0.3 / 0.55, 0.25 / 0.55], atol=1e-12)


@pytest.mark.parametrize(
    ("readout", "expected"),
    [("sum", [-6.0, -4.0]), ("per_token", [-2.0, -4.0]), ("per_byte", [-0.5, -2.0]), ("per_char", [-1.0, -2.0])],
)
def test_each_readout_divides_by_its_own_count(readout, expected):
    raw = scores([-6.0, -4.0], n_tokens=(3, 1), n_bytes=(12, 2), n_chars=(6, 2))
    np.testing.assert_allclose(group_scores(raw, [("a", (0,)), ("b", (1,))], readout), expected, atol=1e-12)


def test_the_readouts_can_disagree_about_the_winner():
    raw = scores([-6.0, -4.0], n_tokens=(3, 1), n_bytes=(12, 2), n_chars=(6, 2))
    winners = {r: pick(group_scores(raw, [("a", (0,)), ("b", (1,))], r), 1e-6)[0] for r in LENGTHS}
    assert winners == {"sum": 1, "per_token": 0, "per_byte": 0, "per_char": 0}


def test_a_continuation_of_white_space_alone_is_not_divided_by_zero():
    assert np.isfinite(group_scores(scores([-1.0], n_bytes=(0,), n_chars=(0,)), [("a", (0,))], "per_char")).all()


def test_very_small_likelihoods_do_not_underflow():
    grouped = group_scores(scores([-9000.0, -9001.0]), [("a", (0, 1))])
    assert grouped[0] == pytest.approx(-9000 + math.log1p(math.exp(-1)))
    np.testing.assert_allclose(probabilities(np.array([-9000.0, -9001.0])).sum(), 1.0)


def test_impossible_labels_get_no_probability():
    np.testing.assert_allclose(probabilities(np.array([-math.inf, -2.0])), [0.0, 1.0])
    np.testing.assert_allclose(probabilities(np.array([-math.inf, -math.inf])), [0.5, 0.5])


def test_near_ties_go_to_the_first_label_and_are_marked():
    assert pick(np.array([-1.00005, -1.0]), 1e-4) == (0, True)
    assert pick(np.array([-1.0, -1.00005]), 1e-4) == (0, True)
    assert pick(np.array([-1.001, -1.0]), 1e-4) == (1, False)


def test_the_tolerance_is_in_the_unit_of_the_readout():
    raw = scores([-6.0, -4.0], n_tokens=(36, 1), n_bytes=(50, 10), n_chars=(50, 10))
    assert tie_tolerance(raw, "sum") == pytest.approx(1e-4 + 20 * 1e-5)
    assert tie_tolerance(raw, "per_char") == pytest.approx((1e-4 + 20 * 1e-5) / 10)
    assert tie_tolerance(raw, "sum", "torch.bfloat16") > 50 * tie_tolerance(scores([-1.0]), "sum", "float32")


def test_an_unknown_readout_is_named_with_the_nearest_one():
    with pytest.raises(InputError, match="Did you mean 'per_char'"):
        group_scores(scores([-1.0]), [("a", (0,))], "per_chars")


def test_a_premise_divides_out_how_likely_the_words_are_by_themselves():
    raw = scores(
        [math.log(0.2), math.log(0.1), math.log(0.25)],
        premise=(math.log(0.4), math.log(0.1), math.log(0.1)),
        domain_premise=(math.log(0.05), math.log(0.05), math.log(0.5)),
    )
    groups = [("bad", (0, 1)), ("good", (2,))]
    np.testing.assert_allclose(np.exp(group_scores(raw, groups, "pmi")), [0.3 / 0.5, 0.25 / 0.1], atol=1e-12)
    np.testing.assert_allclose(np.exp(group_scores(raw, groups, "pmi_domain")), [0.3 / 0.1, 0.25 / 0.5], atol=1e-12)
    # Two sums are subtracted, so twice the rounding.
    assert tie_tolerance(raw, "pmi") == tie_tolerance(raw, "pmi_domain") == 2 * tie_tolerance(raw, "sum")


def test_the_first_tokens_of_a_label_count_once_each():
    raw = scores([-9.0, -8.0, -7.0], n_tokens=(40, 40, 40), first=(math.log(0.3), math.log(0.3), math.log(0.2)), first_of=(0, 0, 2))
    np.testing.assert_allclose(np.exp(group_scores(raw, [("a", (0, 1)), ("b", (2,))], "first_token")), [0.3, 0.2], atol=1e-12)
    np.testing.assert_allclose(np.exp(group_scores(raw, [("a", (0, 2)), ("b", (1,))], "first_token")), [0.5, 0.3], atol=1e-12)
    assert tie_tolerance(raw, "first_token") == 1e-4  # one token, however long the labels


def test_labels_that_begin_alike_are_marked_by_their_first_token_alone():
    raw = scores([-9.0, -8.0, -7.0], first=(-1.0, -1.0, -2.0), first_of=(0, 0, 2))
    alike = [("a", (0, 2)), ("b", (1,))]
    assert pick(group_scores(raw, alike, "first_token"), 1e-4) == (0, False)
    assert ambiguous(raw, alike, 0, "first_token")
    assert ambiguous(raw, alike, 1, "first_token")
    assert not ambiguous(raw, alike, 0, "sum")
    apart = [("a", (0, 1)), ("b", (2,))]
    assert not ambiguous(raw, apart, 0, "first_token")


def test_a_channel_takes_the_mean_over_the_words_of_a_label():
    raw = scores([math.log(0.2), math.log(0.4), math.log(0.3)], conditioned="answer")
    np.testing.assert_allclose(np.exp(group_scores(raw, [("a", (0, 1)), ("b", (2,))], "channel")), [0.3, 0.3], atol=1e-12)


def test_scores_allow_what_they_hold():
    assert readouts_of(scores([-1.0])) == LENGTHS
    assert readouts_of(scores([-1.0], first=(-1.0,), first_of=(0,), domain_premise=(-2.0,))) == (*LENGTHS, "first_token", "pmi_domain")
    assert readouts_of(scores([-1.0], conditioned="answer", first=(-1.0,), first_of=(0,))) == ("channel",)
    for readout in set(READOUTS) - set(LENGTHS):
        with pytest.raises(InputError, match=f"do not allow the read-out '{readout}'"):
            group_scores(scores([-1.0]), [("a", (0,))], readout)
    with pytest.raises(InputError, match="They allow: channel"):
        group_scores(scores([-1.0], conditioned="answer"), [("a", (0,))], "sum")
