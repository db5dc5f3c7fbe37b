"""Scoring with a cache that holds some of the planned batches: the same bits, whatever is missing, and no more computed than needed."""

import random
import sqlite3

import pytest
import tiny

from icl.model.score_cache import ScoreCache
from icl.model.torch_lm import TorchModel

WORDS = ["film", "cup", "oil", "team", "plot", "share", "joke", "goal"]
LABELS = [" business", " sports and more", " busy", " b"]


def model(name="llama", **options) -> TorchModel:
    return tiny.lm(name, **options)


def work(n=24, seed=0):
    """Prompts in families that share long beginnings, so that batches build on each other, in no order."""
    rng = random.Random(seed)
    families = [" ".join(rng.choices(WORDS, k=60)) for _ in range(4)]
    prompts = [f"{rng.choice(families)[: rng.randrange(100, 300)]} {rng.choice(WORDS)} {i}:" for i in range(n)]
    return prompts, [LABELS] * n


def scored(lm):
    before = lm.totals.computed
    return lm.loglikelihoods(*work()), lm.totals.computed - before


def rowids(cache):
    with sqlite3.connect(cache.path) as db:
        found = [rowid for (rowid,) in db.execute("SELECT rowid FROM entries ORDER BY rowid")]
    db.close()
    return found


def forget(cache, gone):
    with sqlite3.connect(cache.path) as db:
        db.executemany("DELETE FROM entries WHERE rowid = ?", [(rowid,) for rowid in gone])
    db.close()


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "bloom", "mamba"])
def test_whatever_is_missing_gives_the_same_bits(name, tmp_path):
    plain, n_cold = scored(model(name, max_batch=3))
    lm = model(name, max_batch=3)
    lm.cache = cache = ScoreCache(tmp_path, 1 << 30)
    assert scored(lm) == (plain, n_cold)
    assert scored(lm) == (plain, 0)
    rng = random.Random(1)
    entries = rowids(cache)
    assert len(entries) > 4
    for _ in range(12):
        forget(cache, rng.sample(entries, rng.randrange(1, len(entries))))
        found, n = scored(lm)
        assert found == plain
        assert 0 < n <= n_cold
        entries = rowids(cache)


def test_a_missing_batch_takes_only_those_that_it_builds_on(tmp_path):
    lm = model(max_batch=1)
    lm.cache = ScoreCache(tmp_path, 1 << 30)
    plain, n_cold = scored(lm)
    entries = rowids(lm.cache)
    costs = []
    for _ in range(len(entries)):
        forget(lm.cache, rowids(lm.cache)[:1])  # stored anew at the end: the next one is then the first
        found, n = scored(lm)
        assert found == plain
        costs.append(n)
    assert min(costs) < n_cold / 8
    assert sum(costs) < len(entries) * n_cold / 3


def test_two_models_and_two_lengths_of_batch_share_nothing(tmp_path):
    cache = ScoreCache(tmp_path, 1 << 30)
    for lm in (model("llama"), model("gpt2"), model("llama", max_batch=2), model("llama", bos=True)):
        lm.cache = cache
        plain, n = scored(lm)
        assert n > 0
        assert scored(lm) == (plain, 0)


def test_without_a_cache_nothing_is_digested(monkeypatch):
    lm = model()
    monkeypatch.setattr(TorchModel, "computed_by", lambda self: pytest.fail("digested"))
    scored(lm)
    assert lm.generate(["film"], max_new_tokens=2)


def test_texts_are_kept_by_whole_calls(tmp_path):
    lm = model()
    lm.cache = ScoreCache(tmp_path, 1 << 30)
    prompts = work()[0][:4]

    def drawn(**options):
        return lm.sample(prompts, **{"n": 2, "temperature": 1.0, "max_new_tokens": 5, **options})

    first = drawn()
    assert (lm.cache.hits, lm.cache.misses) == (0, 1)
    assert drawn() == first
    assert (lm.cache.hits, lm.cache.misses) == (1, 1)
    assert drawn(seed=1) != first
    assert drawn(n=3) != first
    assert drawn(stop=("e",)) != first
    assert lm.generate(prompts, max_new_tokens=5) == [
        texts[0] for texts in lm.sample(prompts, n=1, temperature=0, max_new_tokens=5, seed=9)
    ]
    assert (lm.cache.hits, lm.cache.misses) == (2, 5), "what is greedy does not depend on the seed"


@pytest.mark.parametrize("path", ["tree", "padded"])
def test_what_memory_forced_into_halves_is_not_kept(path, tmp_path, monkeypatch):
    """Its last digits may be others than those of the batch whole, and so may be all that builds on it."""
    import torch

    import icl.model.scoring as scoring

    lm = model()
    lm.scoring.path = path
    plain, _ = scored(lm)
    lm = model()
    lm.cache = cache = ScoreCache(tmp_path, 1 << 30)
    lm.scoring.path = path
    name = "chunk_values" if path == "tree" else "row_values"
    real, failed = getattr(scoring, name), []

    def fails_once(*arguments):
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*arguments)

    monkeypatch.setattr(scoring, name, fails_once)
    found, n = scored(lm)
    assert failed
    assert lm.totals.unplanned == 1
    assert max(abs(a - b) for x, y in zip(found, plain, strict=True) for a, b in zip(x, y, strict=True)) < 1e-4
    assert not cache.path.exists()
    assert scored(lm) == (plain, n)  # as planned again, and kept
    assert scored(lm) == (plain, 0)


def test_the_same_end_behind_another_beginning_is_another_batch(tmp_path):
    """Trunks and paths of the same length, and batches with the same tokens behind them: only what they build on differs."""
    beginnings = [f"a {' '.join(words * 20)} {' '.join(['team', 'cup'] * 40)}" for words in (["film", "goal"], ["goal", "film"])]
    assert len({model().count_tokens(text) for text in beginnings}) == 1
    lm = model(max_batch=2)
    lm.cache = ScoreCache(tmp_path, 1 << 30)
    found, expected = [], []
    for text in beginnings:
        prompts, labels = [f"{text} {end}" for end in ("cup", "oil", "plot", "team")], [LABELS] * 4
        found.append(lm.loglikelihoods(prompts, labels))
        expected.append(model(max_batch=2).loglikelihoods(prompts, labels))
    assert found == expected
    assert found[0] != found[1]
