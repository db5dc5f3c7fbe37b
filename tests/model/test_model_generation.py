"""Writing with a store of our own: equal to plain sequences, the same in any company, and no token read twice."""

import random
from dataclasses import replace
from functools import partial

import pytest
import tiny
import torch
import transformers

from icl.model import continuous
from icl.model.branches import grow
from icl.model.decoding import Ending, Writer
from icl.model.stream import Stream, deviation, streams
from icl.model.writing import Chance

SHARED = "Review: a moving, quiet film about people.\nSentiment: positive\n\n" * 3
ENDS = [
    "x",
    "Review: the plot is a mess.\nSentiment:",
    "the jokes are old",
    "Article: shares fell on Monday as oil prices rose.\nTopic:",
    "and",
]
PROMPTS = [*(SHARED + end for end in ENDS), *ENDS, SHARED[: len(SHARED) // 2] + "numbers 0 1 2"]
PLANNED = [*tiny.REQUIRED, "mistral", "gemma2", "gemma3", "phi"]


def naive(lm, prompt, n):
    """Greedy, one whole sequence at a time; None where two tokens are as good as equal."""
    ids = list(lm.codec.plain(prompt).ids)
    new = []
    for _ in range(n):
        with torch.no_grad():
            best = lm.model(input_ids=torch.tensor([ids + new])).logits[0, -1].topk(2)
        if best.values[0] - best.values[1] < 1e-3:
            return None
        token = int(best.indices[0])
        if token in lm.writing.end_ids:
            break
        new.append(token)
    return new


def ids_written(lm, prompts, n, **limits):
    """Token ids, which texts hide where bytes are no text."""
    ids = [lm.codec.plain(p).ids for p in prompts]
    writers = [[Writer(p, None, n)] for p in ids]
    lm.writing.limits = replace(lm.limits, **limits)
    lm.writing._stream([w for [w] in writers], Ending((), lm.writing.end_ids, lm.codec.tokens.decode))
    return [group[0].ids for group in writers]


@pytest.mark.parametrize("name", PLANNED)
def test_equals_plain_sequences_token_for_token(name):
    """48 new tokens: a window of 16 is left behind in the prompts and in what is written."""
    lm = tiny.lm(name)
    assert lm.writing.why_plain is None
    assert deviation(lm.model) < 1e-4
    found = ids_written(lm, PROMPTS, 48)
    expected = [naive(lm, p, 48) for p in PROMPTS]
    assert sum(e is not None for e in expected) >= 8
    for prompt, ours, theirs in zip(PROMPTS, found, expected, strict=True):
        assert theirs is None or ours == theirs, prompt


@pytest.mark.parametrize("name", ["falcon", "falcon-alibi", "bloom", "mpt", "mamba"])
def test_models_without_a_plan_take_the_plain_path(name):
    assert tiny.lm(name).writing.why_plain


def test_a_plan_that_were_wrong_would_be_found_out(monkeypatch):
    import icl.model.rows as rows

    real = rows.Rows._mask
    monkeypatch.setattr(rows.Rows, "_mask", lambda self, window, query: real(self, None, query))
    assert "off by" in tiny.lm("mistral").writing.why_plain
    assert tiny.lm("llama").writing.why_plain is None


@pytest.mark.parametrize("limits", [{"max_rows": 1}, {"max_rows": 3}, {"batch_tokens": 7}, {"memory": 1}, {"reads": 1}])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_no_text_depends_on_its_company(name, limits):
    """Few places at once (rows leave, others enter), prompts read in small pieces, no memory: the same texts."""
    lm = tiny.lm(name)
    expected = ids_written(lm, PROMPTS, 24)
    order = list(range(len(PROMPTS)))
    random.Random(3).shuffle(order)
    found = ids_written(lm, [PROMPTS[i] for i in order], 24, **limits)
    assert dict(zip(order, found, strict=True)) == dict(enumerate(expected))


def test_samples_are_the_same_alone_and_in_company():
    lm = tiny.lm("qwen3")
    together = lm.sample(PROMPTS, n=3, seed=5, max_new_tokens=12, stop=("\n",))
    assert [lm.sample([p], n=3, seed=5, max_new_tokens=12, stop=("\n",))[0] for p in PROMPTS] == together
    narrow = tiny.lm("qwen3", max_batch=2)
    assert narrow.sample(PROMPTS[::-1], n=3, seed=5, max_new_tokens=12, stop=("\n",))[::-1] == together


def test_texts_leave_and_enter():
    """With places for 4, no step has more rows, most are full, and every prompt is written."""
    lm = tiny.lm("llama")
    ids = [lm.codec.plain(p).ids for p in PROMPTS]
    writers = [[Writer(p, None, limit)] for p, limit in zip(ids, [3, 20, 5, 9, 1, 14, 2, 8, 30, 4, 6], strict=True)]
    [pending] = streams([w for [w] in writers])
    stream = Stream(lm.model, pending, lm.limits, 4)
    sizes, step = [], stream.rows.step

    def counted(model):
        sizes.append(len(stream.rows.rows))
        return step(model)

    stream.rows.step = counted
    stream.run(Ending((), frozenset(), lm.codec.tokens.decode))
    assert [len(w.ids) for [w] in writers] == [3, 20, 5, 9, 1, 14, 2, 8, 30, 4, 6]
    assert max(sizes) == 4
    assert sum(sizes) == stream.n_written == sum(len(w.ids) - 1 for [w] in writers)
    assert len(sizes) < sum(sizes) / 2.5
    assert all(not s.keys for p in pending for s in p.tail.chain()), "memory of prompts was kept"


def test_what_prompts_share_is_read_once():
    lm = tiny.lm("llama")
    ids = [lm.codec.plain(p).ids for p in PROMPTS]
    unique = len({p[:at] for p in ids for at in range(1, len(p) + 1)})
    before = lm.totals.computed
    lm.generate(PROMPTS, max_new_tokens=1)
    computed = lm.totals.computed - before
    assert unique <= computed < 1.02 * unique
    assert lm.plan_generation(PROMPTS, 1).computed == computed
    assert lm.plan_generation(PROMPTS, 1).naive == sum(map(len, ids))


def test_samples_share_one_reading_of_their_prompt():
    lm = tiny.lm("llama")
    prompt = SHARED + "x"
    n_prompt = len(lm.codec.plain(prompt).ids)
    before = lm.totals.computed
    found = lm.write([prompt], Chance(16, 0.7), 5, ())
    steps = sum(max(w.n_tokens - (w.ended == "length"), 0) for [group] in [found] for w in group)
    assert lm.totals.computed - before == n_prompt + steps


def test_what_ended_a_text_is_told():
    lm = tiny.lm("llama")
    [[whole]] = lm.write(["x"], max_new_tokens=8, stop=())
    assert (whole.ended, whole.n_tokens) == ("length", 8)
    [[cut]] = lm.write(["x"], max_new_tokens=8, stop=(whole.text[2:4],))
    assert (cut.ended, cut.text) == ("stop", whole.text[:2])
    assert lm.generate(["x"], max_new_tokens=0) == [""]


@pytest.mark.parametrize("failing", [1, 2, 7])
def test_out_of_memory_goes_on_with_half_as_many(monkeypatch, failing):
    """Texts that had begun go on where they were, samples with the numbers they would have drawn."""
    import icl.model.rows as rows

    lm = tiny.lm("llama")
    expected = lm.sample(PROMPTS, n=2, max_new_tokens=9, stop=())
    real, calls = rows.Rows.step, []

    def scarce(self, model):
        calls.append(len(self.rows))
        if len(calls) == failing or len(self.rows) > 11:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, model)

    monkeypatch.setattr(rows.Rows, "step", scarce)
    assert lm.sample(PROMPTS, n=2, max_new_tokens=9, stop=()) == expected
    monkeypatch.setattr(rows.Rows, "step", lambda self, model: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(torch.OutOfMemoryError):
        lm.generate(PROMPTS, max_new_tokens=9)


def test_one_long_prompt_does_not_shorten_or_widen_the_others():
    lm = tiny.lm("llama")
    long = "a" * 505
    found = lm.write([long, "x"], max_new_tokens=20, stop=())
    assert [texts[0].n_tokens for texts in found] == [7, 20]
    ids = [(7,) * 3000, *[(8, i) for i in range(9)]]
    sizes = [len(group) for group in streams([Writer(p, None, 20) for p in ids])]
    assert sizes == [1, 9]


@pytest.mark.parametrize("seed", range(20))
def test_the_tree_holds_every_prompt(seed):
    rng = random.Random(seed)
    for _ in range(50):
        prompts = sorted({tuple(rng.randint(0, 1) for _ in range(rng.randint(1, 9))) for _ in range(rng.randint(1, 12))})
        copies = [rng.choice([1, 1, 3]) for _ in prompts]
        tails = grow(prompts, copies, min_read=rng.choice([1, 2, 16]), min_kept=rng.choice([1, 3, 8]))
        segments = {id(s): s for tail in tails for s in tail.chain()}
        for tail, prompt in zip(tails, prompts, strict=True):
            chain = tail.chain()
            assert sum((s.ids for s in chain), ()) == prompt
            assert all(s.ids and s.start == sum(len(t.ids) for t in chain[:i]) for i, s in enumerate(chain))
            kept = [s.kept for s in chain]
            assert kept == sorted(kept, reverse=True)
            assert not tail.kept
        for segment in segments.values():
            assert segment.waiting == sum(n for tail, n in zip(tails, copies, strict=True) if segment in tail.chain())


def continuously(lm, expected):
    """What is left after the results were taken is written by our way; all must be as expected. Returns who was done before."""
    writers = [Writer(lm.codec.plain(p).ids, None, 12) for p in PROMPTS]
    ending = Ending(("\n",), lm.writing.end_ids, lm.codec.tokens.decode)
    assert continuous.write_continuously(lm.model, writers, ending) >= sum(len(w.ids) for w in writers) > 0
    done = [w.done for w in writers]
    lm.writing._stream(writers, ending)
    assert [(w.text, w.ended) for w in writers] == [(w.text, w.ended) for [w] in expected]
    return done


@pytest.mark.slow
def test_continuous_batching_of_transformers(monkeypatch):
    small = partial(transformers.ContinuousBatchingConfig, page_size=32, num_blocks=64, max_batch_tokens=128)
    monkeypatch.setattr(transformers, "ContinuousBatchingConfig", small)
    lm = tiny.lm("llama")
    assert all(continuously(lm, lm.write(PROMPTS, max_new_tokens=12)))
    assert lm.model.config._attn_implementation == "sdpa"


def test_results_of_continuous_batching_are_checked(monkeypatch):
    """What failed, is short, is unknown or did not come back is written by our way."""
    from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus

    lm = tiny.lm("llama")
    expected = lm.write(PROMPTS, max_new_tokens=12)
    plain = [Writer(lm.codec.plain(p).ids, None, 12) for p in PROMPTS]
    lm.writing._stream(plain, Ending((), lm.writing.end_ids, lm.codec.tokens.decode))

    def results(model, writers, ending):
        found = [GenerationOutput(str(i), list(w.prompt), list(w.ids), status=RequestStatus.FINISHED) for i, w in enumerate(plain)]
        found[0].error = "lost"
        found[1].generated_tokens = found[1].generated_tokens[:1]
        found[2].status = RequestStatus.DECODING
        found[3].prompt_ids = [1, 2, 3]
        return [*found[4:-1], *found[:4], found[4]]  # in another order, as they finish; one twice, the last not at all

    monkeypatch.setattr(continuous, "_results", results)
    done = continuously(lm, expected)
    assert not done[0]
    assert not done[2]
    assert not done[3]
    assert not done[-1]
    assert sum(done) >= len(PROMPTS) - 5
    monkeypatch.undo()
    monkeypatch.setattr(lm.model, "generate_batch", lambda **_: (_ for _ in ()).throw(RuntimeError("no pages")))
    writer = Writer((5, 6), None, 4)
    assert continuous.write_continuously(lm.model, [writer], Ending((), frozenset(), lm.codec.tokens.decode)) == 0
    assert not writer.ids
