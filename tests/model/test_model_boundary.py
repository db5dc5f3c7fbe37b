"""One point in token space from which all continuations are scored."""

import random

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.model.boundary import common_length, split


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=12))
def test_common_length(a, b):
    expected = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        expected += 1
    assert common_length(tuple(a), tuple(b)) == expected


def test_plain_case():
    found = split([5, 6], [[5, 6, 7], [5, 6, 8, 9]], bos=0, eos=1)
    assert (found.prefix, found.continuations, found.straddle, found.conditioned) == ((5, 6), ((7,), (8, 9)), False, "context")


def test_a_token_across_the_border_moves_the_start_for_all():
    found = split([5, 6], [[5, 66], [5, 6, 8]], bos=0, eos=1)
    assert (found.prefix, found.continuations, found.straddle) == ((5,), ((66,), (6, 8)), True)


def test_nothing_in_common_is_conditioned_on_bos():
    found = split([5], [[55], [5, 6]], bos=3, eos=1)
    assert (found.prefix, found.continuations, found.straddle, found.conditioned) == ((3,), ((55,), (5, 6)), True, "bos")


def test_empty_context_on_bos_else_eos():
    assert split([], [[4]], bos=3, eos=1).conditioned == "bos"
    assert split([], [[4]], bos=None, eos=1).prefix == (1,)
    assert split([], [[4]], bos=None, eos=1).conditioned == "eos"
    assert split([3], [[3, 4]], bos=3, eos=1, empty=True).conditioned == "bos"


def test_an_empty_continuation_keeps_a_token():
    found = split([5, 6], [[5, 6], [5, 6, 7]], bos=0, eos=1)
    assert (found.prefix, found.continuations, found.straddle) == ((5,), ((6,), (6, 7)), True)


@pytest.fixture(scope="module")
def lm():
    return tiny.lm("gpt2")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4))
def test_never_an_exception_never_an_empty_continuation(lm, context, continuations):
    [found] = lm._splits([context], [continuations])
    assert all(found.continuations)
    assert found.prefix
    tokens = lm.codec.tokens
    for ids, text in zip(found.continuations, continuations, strict=True):
        prefix = () if found.conditioned != "context" else found.prefix
        assert tokens.decode([*prefix, *ids]) == context + text


def test_any_cut_of_a_text_scores_to_the_same_string(lm):
    rng = random.Random(0)
    text = "Article: the team won the cup after extra time.\nTopic: sports 🙂 café"
    cuts = [rng.randint(0, len(text) - 1) for _ in range(50)]
    scores = lm.score([text[:c] for c in cuts], [[text[c:]] for c in cuts])
    assert all(s.n_tokens[0] > 0 and s.sums[0] < 0 for s in scores)
    assert any(s.straddle for s in scores)
    assert [s.n_chars[0] for s in scores] == [len(text[c:].lstrip()) for c in cuts]
    assert [s.n_bytes[0] for s in scores] == [len(text[c:].lstrip().encode()) for c in cuts]
