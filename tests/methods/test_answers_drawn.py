"""A single text that is drawn: each item has a seed of its own, which neither the other items nor their order change."""

import pytest
from small_tasks import LABELS, POOLS, QUERIES

import icl
from icl.errors import InputError


@pytest.fixture
def drawn(tiny_lm, encoder_folder):
    def make(method="few_shot", **options):
        given = {"encoder": str(encoder_folder), "shots": 2, "max_new_tokens": 8, "format": "plain", "greedy": False, "temperature": 1.2}
        return icl.FewShot(tiny_lm, **{**given, **options}).fit(POOLS["answer"]())

    return make


def test_the_same_seed_draws_the_same_text_and_another_one_another(drawn):
    queries = QUERIES["answer"]
    first, again, other = ([p.text for p in drawn(seed=seed).predict(queries)] for seed in (3, 3, 4))
    greedy = [p.text for p in drawn(greedy=True).predict(queries)]
    assert first == again
    assert first != other
    assert first != greedy


def test_neither_the_other_items_nor_their_order_change_an_items_text(drawn):
    queries = QUERIES["answer"]
    together = [p.text for p in drawn(retriever="random").predict(queries)]
    assert [p.text for p in drawn(retriever="random").predict(list(reversed(queries)))] == together[::-1]
    assert [drawn(retriever="random").predict([query])[0].text for query in queries] == together


def test_there_is_no_vote_and_a_saved_predictor_draws_the_same(drawn, tiny_lm, tmp_path):
    predictor = drawn()
    found = predictor.predict(QUERIES["answer"])
    assert all(p.probabilities is None for p in found)
    predictor.save(tmp_path / "drawn")
    assert [p.text for p in icl.load(tmp_path / "drawn", lm=tiny_lm).predict(QUERIES["answer"])] == [p.text for p in found]


def test_labels_are_not_drawn_one_by_one(tiny_lm):
    with pytest.raises(InputError, match=r"greedy.*only answers in words are drawn"):
        icl.FewShot(tiny_lm, greedy=False, shots=0, retriever="random").fit(POOLS["classify"](), labels=LABELS)
