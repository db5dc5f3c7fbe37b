"""Words that are put in for others: near ones of the pool, never for a function word."""

import random

import numpy as np

from icl.train.augment import Augment, changed, nearest_words

NEAR = {"who": 0, "where": 0, "city": 1, "town": 1, "river": 2, "wrote": 3, "painted": 3, "und": 0, "auf": 0}


def vectors_of(words):
    """Words of a group are the same vector, others at right angles."""
    return np.stack([np.eye(90, dtype=np.float32)[NEAR.get(word, 4 + i)] for i, word in enumerate(words)])


def test_near_words_replace_and_function_words_are_left_alone():
    texts = ["who painted the city", "where is the town", "who wrote of the river"]
    found = nearest_words(texts, vectors_of)
    assert found == {"city": ["town"], "town": ["city"], "painted": ["wrote"], "wrote": ["painted"]}
    rng = random.Random(0)
    seen = {changed(texts[0], Augment(synonyms=0.5), rng, found) for _ in range(60)}
    assert seen == {"who painted the city", "who painted the town", "who wrote the city", "who wrote the town"}


def test_words_that_many_texts_have_are_function_words_in_any_language():
    texts = [f"wort{i} und auf city" if i < 10 else f"wort{i} town" for i in range(50)]
    assert set(nearest_words(texts, vectors_of)) == set()  # "city" and "town" stand in a fifth and in four fifths of the texts
    rare = [f"wort{i} und auf" if i > 1 else "city und town auf" for i in range(50)]
    assert nearest_words(rare, vectors_of) == {"city": ["town"], "town": ["city"]}  # but not "und" for "auf"
