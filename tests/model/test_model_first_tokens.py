"""The log-likelihood of each continuation's first token comes from the same pass as its sum, and costs nothing."""

import pytest
import tiny

CONTEXTS = ["Review: a warm film\nSentiment:", "Review: two hours of my life\nSentiment:", ""]
LABELS = [" great and good", " greatest", " bad", " b", " zzz great"]


def first_values(name, context_ids, firsts):
    """Log-softmax behind the context alone, one plain forward pass."""
    import torch

    with torch.no_grad():
        logits = tiny.model(name)(torch.tensor([context_ids])).logits[0, -1].double()
    shares = torch.log_softmax(logits, dim=-1)
    return [float(shares[first]) for first in firsts]


@pytest.mark.parametrize("name", ["llama", "gpt2", "mamba"])  # a tree of tokens, and padded rows
def test_first_tokens_are_those_of_a_plain_pass(name):
    lm = tiny.lm(name)
    found = lm.score(CONTEXTS, [LABELS] * len(CONTEXTS))
    for context, scores in zip(CONTEXTS, found, strict=True):
        context_ids = lm.codec.plain(context).ids or (0,)
        joint = [lm.codec.plain(context + label).ids for label in LABELS]
        start = min(len(context_ids) if context else 0, scores.start)
        firsts = [ids[start] for ids in joint]
        expected = first_values(name, context_ids[: scores.start], firsts)
        assert scores.first == pytest.approx(expected, abs=1e-4)
        assert scores.first_of == tuple(firsts.index(first) for first in firsts)
        assert len(set(scores.first_of)) < len(LABELS)  # two labels begin alike, or the test says nothing
        for n, total, first in zip(scores.n_tokens, scores.sums, scores.first, strict=True):
            assert total == first if n == 1 else total < first


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_they_cost_nothing(name):
    lm = tiny.lm(name)
    planned = lm.plan(CONTEXTS, [LABELS] * len(CONTEXTS))
    before = lm.totals.computed, lm.totals.naive
    lm.score(CONTEXTS, [LABELS] * len(CONTEXTS))
    assert (lm.totals.computed - before[0], lm.totals.naive - before[1]) == (planned.computed, planned.naive)
    sequences = [
        [len(lm.codec.plain(c).ids or (0,)) + n - 1 for n in s.n_tokens]
        for c, s in zip(CONTEXTS, lm.score(CONTEXTS, [LABELS] * 3), strict=True)
    ]
    assert planned.naive == sum(map(sum, sequences))
    if name == "mamba":  # a row for each continuation, none for a first token
        assert planned.computed == planned.naive


def test_they_do_not_depend_on_batch_or_order():
    lm = tiny.lm("llama")
    together = lm.score(CONTEXTS, [LABELS] * len(CONTEXTS))
    alone = [lm.score([context], [LABELS[::-1]])[0] for context in reversed(CONTEXTS)][::-1]
    for a, b in zip(together, alone, strict=True):
        assert a.first == pytest.approx(b.first[::-1], abs=1e-4)


def test_halved_for_memory_they_stay(monkeypatch):
    """Rows that are halved until each holds one continuation keep its first token with it."""
    import torch

    from icl.model import scoring

    lm = tiny.lm("mamba")
    expected = lm.score(CONTEXTS, [LABELS] * len(CONTEXTS))
    plain = scoring.row_values

    def narrow(model, rows, path):
        if len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(model, rows, path)

    monkeypatch.setattr(scoring, "row_values", narrow)
    for found, wanted in zip(lm.score(CONTEXTS, [LABELS] * len(CONTEXTS)), expected, strict=True):
        assert found.first == pytest.approx(wanted.first, abs=1e-4)
        assert found.sums == pytest.approx(wanted.sums, abs=1e-4)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_of_a_decoder(name):
    lm = tiny.lm(name)
    texts = ["great movie", "great plot", "bad"]
    (scores,) = lm.score(["Review: a film"], [texts])
    ids = [tuple(lm.codec.tokens.literal([text])[0]) for text in texts]
    one_token = {ids[i][0]: scores.first[i] for i in range(len(texts))}
    assert scores.first_of == tuple([one[0] for one in ids].index(one[0]) for one in ids)
    # The same values as sums of one-token continuations, by the decoder's own way of scoring them.
    jobs = lm._jobs(lm._prompts(["Review: a film"]), [[(first,) for first in one_token]])
    values = lm._values(jobs)
    assert [values[jobs[0].prompt, (first,)] for first in one_token] == pytest.approx(list(one_token.values()), abs=1e-5)
