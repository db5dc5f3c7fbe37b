"""Perplexity: by hand, per token, byte and word; the interval of a pair."""

import math

import numpy as np
import pytest
import tiny
import torch

from icl.train.packing import Packed
from icl.train.perplexity import Scored, paired, score_documents, unigram
from icl.train.reader import Reader
from icl.train.scratch import Size, new_model, train_tokenizer

TEXT = "Article: shares fell on Monday as oil prices rose. Größe matters, too."


def test_a_causal_model_by_hand():
    model, tokenizer = tiny.model("llama"), tiny.tokenizer()
    reader = Reader.of(tokenizer, 64, causal=True)
    ids = tokenizer(TEXT)["input_ids"]
    assert 20 < len(ids) < 64
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[1, *ids]])).logits[0].log_softmax(-1)  # the end of a document stands before it
    nats = -sum(float(logits[i, token]) for i, token in enumerate(ids))
    scored = score_documents(model, reader, [TEXT, "x"], Packed(True, 0, 1))
    assert scored.nats[0] == pytest.approx(nats, rel=1e-5)
    assert {unit: n[0] for unit, n in scored.n.items()} == {"token": len(ids), "byte": len(TEXT.encode()), "word": 12}
    total = float(scored.nats.sum())
    assert scored.perplexity() == pytest.approx(
        {"token": math.exp(total / (len(ids) + 1)), "byte": math.exp(total / (len(TEXT.encode()) + 1)), "word": math.exp(total / 13)}
    )


def test_a_long_document_is_scored_once_per_token_with_half_a_window_before_it():
    model, tokenizer = tiny.model("llama"), tiny.tokenizer()
    ids = [1, *tokenizer(TEXT)["input_ids"]]
    nats = 0.0
    for start in range(0, len(ids), 8):  # windows of 16 tokens, each scoring what the one before did not
        window = ids[start : start + 16]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([window])).logits[0].log_softmax(-1)
        nats -= sum(float(logits[i - 1, window[i]]) for i in range(1 if start == 0 else 8, len(window)))
    scored = score_documents(model, Reader.of(tokenizer, 16, causal=True), [TEXT], Packed(True, 0, 1))
    assert scored.n["token"].tolist() == [len(ids) - 1]
    assert scored.nats[0] == pytest.approx(nats, rel=1e-4)


def test_a_masked_model_scores_every_token_once_while_it_is_masked():
    texts = [TEXT * 3, "Words, words and words."]
    tokenizer = train_tokenizer(texts, 300, causal=False, length=32)
    torch.manual_seed(0)
    model = new_model(Size(300, 32, 2, 4, 64), tokenizer, causal=False, length=32)
    reader = Reader.of(tokenizer, 32, causal=False)
    assert (reader.before, reader.after, reader.room) == ((0,), (2,), 30)
    scored = score_documents(model, reader, texts, Packed(True, 0, 1))
    assert scored.n["token"].tolist() == [len(reader.inner(text)) for text in texts]
    assert 250 < scored.perplexity()["token"] < 350  # random weights: as good as all 300 tokens evenly
    part = score_documents(model, reader, texts, Packed(True, 0, 1), parts=1)
    assert part.n["token"].sum() == pytest.approx(scored.n["token"].sum() / 7, abs=5)
    with torch.no_grad():
        model.get_output_embeddings().bias[tokenizer.mask_token_id] = 50.0  # foresees the mask: never right, as no mask is scored as itself
    assert score_documents(model, reader, texts, Packed(True, 0, 1)).nats.sum() > 40 * scored.n["token"].sum()


def test_unigram_by_hand():
    reader = Reader.of(tiny.tokenizer(), 16, causal=True)
    a, b = reader.inner("a")[0], reader.inner("b")[0]
    counts = np.asarray([a, a, a, b], dtype=np.uint32)
    n = len(reader.tokenizer)
    expected = math.exp(-(math.log(4 / (4 + n)) + math.log(2 / (4 + n))) / 2)
    assert unigram(counts, n, reader, ["a", "b"]) == pytest.approx(expected)


def test_the_interval_of_a_pair_covers_the_true_ratio_and_is_exact_for_equals():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        n = {unit: np.full(40, 100.0) for unit in ("token", "byte", "word")}
        hard = rng.normal(0, 20, 40)  # documents differ more than models do
        before, after = Scored(300 + hard, n), Scored(290 + hard + rng.normal(0, 5, 40), n)
        found = paired(before, after)["token"]
        assert found["ratio"] == pytest.approx(found["after"] / found["before"])
        inside += found["low"] <= math.exp(-0.1) <= found["high"]
    assert inside >= 88
    same = paired(before, before)["word"]
    assert (same["ratio"], same["low"], same["high"]) == (1, 1, 1)
    one = Scored(before.nats[:1], {unit: n[unit][:1] for unit in n})
    assert paired(one, one)["byte"].keys() == {"before", "after", "ratio"}
