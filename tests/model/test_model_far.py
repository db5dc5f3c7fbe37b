"""Parallel windows and attention sinks against their definitions: one forward pass of transformers with a mask and positions by hand."""

import numpy as np
import pytest
import tiny
import torch

from icl.errors import InputError
from icl.model import TorchModel
from icl.model.far import Sinks
from icl.values import Prompt, Windows

LABELS = (" positive", " negative", " very positive indeed")
BODIES = (
    "Review: a moving, quiet film about people.\nSentiment: positive\n\nReview: the plot is a mess.\nSentiment: negative\n\n",
    "Review: old jokes.\nSentiment: negative\n\n",
    "Review: shares fell on Monday as oil prices rose, and words and words.\nSentiment: negative\n\n",
)
QUERIES = ("Review: the team won the cup.\nSentiment:", "Review: where is my order?\nSentiment:")
ABLE = ("llama", "gpt2", "qwen3", "opt", "gpt-neox", "phi", "stablelm")


def by_hand(model, sequences, visible, positions):
    """Log-likelihood of the last `n` tokens of each (ids, n), token i seeing exactly visible[i]."""
    ids, n = sequences
    mask = torch.zeros(visible.shape, dtype=model.dtype).masked_fill_(~visible, torch.finfo(model.dtype).min)[None, None]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids]), attention_mask=mask, position_ids=torch.tensor([positions]), use_cache=False).logits[
            0
        ]
    shares = torch.log_softmax(logits.double(), -1)
    return sum(float(shares[len(ids) - n + i - 1, ids[len(ids) - n + i]]) for i in range(n))


def windowed(codec, instruction, bodies, query):
    """A prompt of windows in parallel, and its parts in tokens."""
    texts = [instruction + body + query for body in bodies]
    encoded = [codec.plain(text) for text in texts]
    prompts = tuple(Prompt(e.text, (), e.ids, n_tokens=e.n_tokens, tail=e.tail, n_head=e.n_head) for e in encoded)
    tail = codec.plain(query).ids[len(codec.plain("").ids) :]
    head = codec.plain(instruction).ids
    for each in encoded:  # the border is a cut of this tokenizer
        assert each.ids[-len(tail) :] == tail
        assert each.ids[: len(head)] == head
    parts = [each.ids[len(head) : len(each.ids) - len(tail)] for each in encoded]
    made = Prompt("|".join(texts), (), windows=Windows(prompts, "parallel", len(head), len(tail)))
    return made, head, parts, tail


def parallel_by_hand(model, head, parts, tail, continuation):
    """Ratner et al. 2023: windows see the head and themselves, the query sees all; its positions go on behind the longest window."""
    ids = [*head, *(token for part in parts for token in part), *tail, *continuation]
    owner = [-1] * len(head) + [w for w, part in enumerate(parts) for _ in part] + [len(parts)] * (len(tail) + len(continuation))
    positions = list(range(len(head)))
    for part in parts:
        positions += range(len(head), len(head) + len(part))
    start = len(head) + max(map(len, parts))
    positions += range(start, start + len(tail) + len(continuation))
    n = len(ids)
    visible = torch.tensor([[k <= q and (owner[k] in (-1, owner[q]) or owner[q] == len(parts)) for k in range(n)] for q in range(n)])
    return by_hand(model, (ids, len(continuation)), visible, positions)


@pytest.mark.parametrize("name", ABLE)
@pytest.mark.parametrize("bos", [True, False])
def test_parallel_windows_are_the_definition(name, bos):
    lm = tiny.lm(name, bos=bos, memory="64MiB")
    made = [windowed(lm.codec, "What is felt? About people.\n\n", BODIES, query) for query in QUERIES]
    found = lm.score([prompt for prompt, *_ in made], [LABELS] * len(QUERIES))
    for (_, head, parts, tail), scores in zip(made, found, strict=True):
        expected = [parallel_by_hand(lm.model, head, parts, tail, lm.codec.tokens.literal([label])[0]) for label in LABELS]
        np.testing.assert_allclose(scores.sums, expected, atol=1e-4)
    assert lm.totals.computed == lm.plan([prompt for prompt, *_ in made], [LABELS] * len(QUERIES)).computed < lm.totals.naive
    # The windows were read once for both queries.
    each = [lm.plan([prompt], [LABELS]).computed for prompt, *_ in made]
    windows = len(made[0][1]) + sum(map(len, made[0][2]))
    assert sum(each) - lm.totals.computed >= windows


def test_one_window_is_the_plain_prompt_and_order_does_not_matter():
    lm = tiny.lm("llama")
    one, *_ = windowed(lm.codec, "", BODIES[:1], QUERIES[0])
    plain = lm.score([BODIES[0] + QUERIES[0]], [LABELS])[0]
    np.testing.assert_allclose(lm.score([one], [LABELS])[0].sums, plain.sums, atol=1e-4)
    several, *_ = windowed(lm.codec, "", BODIES, QUERIES[0])
    turned, *_ = windowed(lm.codec, "", BODIES[::-1], QUERIES[0])
    mixed = lm.score([turned, one, several, BODIES[1] + QUERIES[1]], [LABELS] * 4)
    np.testing.assert_allclose(mixed[0].sums, mixed[2].sums, atol=1e-4)  # no window stands before another
    np.testing.assert_allclose(mixed[1].sums, plain.sums, atol=1e-4)
    assert abs(np.array(mixed[2].sums) - plain.sums).max() > 0.05


def test_parallel_windows_in_small_chunks_and_out_of_the_cache(tmp_path):
    from icl.model.score_cache import ScoreCache

    lm = tiny.lm("llama")
    prompts = [windowed(lm.codec, "About people. ", BODIES, query)[0] for query in QUERIES]
    whole = lm.score(prompts, [LABELS] * 2)
    small = tiny.lm("llama", max_batch=1, memory="200KB")  # 64 tokens a chunk
    assert small.limits.batch_tokens == 64
    for got, want in zip(small.score(prompts, [LABELS] * 2), whole, strict=True):
        np.testing.assert_allclose(got.sums, want.sums, atol=1e-4)
    kept = tiny.lm("llama")
    kept.cache = ScoreCache(tmp_path, 1 << 30)
    first = kept.score(prompts, [LABELS] * 2)
    n = kept.totals.computed
    assert [s.sums for s in kept.score(prompts, [LABELS] * 2)] == [s.sums for s in first]
    assert kept.totals.computed == n
    other = windowed(lm.codec, "About people. ", BODIES[:2], QUERIES[0])[0]  # other windows are another key
    np.testing.assert_allclose(kept.score([other], [LABELS])[0].sums, lm.score([other], [LABELS])[0].sums, atol=1e-4)
    assert kept.totals.computed > n


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3", "falcon", "mamba", "bloom"])
def test_models_that_cannot_say_so(name):
    lm = tiny.lm(name)
    assert lm.why_not_parallel
    with pytest.raises(InputError, match="parallel windows cannot be had"):
        lm.score([windowed(lm.codec, "", BODIES, QUERIES[0])[0]], [LABELS])
    with pytest.raises(InputError, match="sink:4"):
        tiny.lm(name, attention="sink:4+16")


def test_several_windows_are_no_context_for_anything_else():
    lm = tiny.lm("llama")
    made, *_ = windowed(lm.codec, "", BODIES, QUERIES[0])
    with pytest.raises(InputError, match="no one text"):
        lm.generate([made])


# ── sinks ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def sinks_by_hand(lm, context, continuation, first, recent):
    ids = [*lm.codec.plain(context).ids, *lm.codec.tokens.literal([continuation])[0]]
    n = len(ids)
    visible = torch.tensor([[k <= q and (k < first or q - k < recent) for k in range(n)] for q in range(n)])
    return by_hand(lm.model, (ids, len(lm.codec.tokens.literal([continuation])[0])), visible, list(range(n)))


CONTEXTS = ["".join(BODIES[: 1 + i % 3]) * (1 + i) + QUERIES[i % 2] for i in range(4)]
"""Some begin alike, and they part at many places."""


@pytest.mark.parametrize("name", ABLE)
@pytest.mark.parametrize(("first", "recent"), [(4, 24), (0, 9), (3, 1), (2, 150)])
def test_sinks_are_the_definition(name, first, recent):
    small = {"max_batch": 3, "memory": "200KB"} if recent < 100 else {}
    lm = tiny.lm(name, attention=f"sink:{first}+{recent}", **small)
    assert max(len(lm.codec.plain(c).ids) for c in CONTEXTS) > recent + first
    found = lm.score(CONTEXTS, [LABELS] * len(CONTEXTS))
    for context, scores in zip(CONTEXTS, found, strict=True):
        expected = [sinks_by_hand(lm, context, label, first, recent) for label in LABELS]
        np.testing.assert_allclose(scores.sums, expected, atol=1e-4)
    assert lm.totals.computed == lm.plan(CONTEXTS, [LABELS] * len(CONTEXTS)).computed
    again = lm.score(CONTEXTS[::-1], [LABELS] * len(CONTEXTS))  # a trunk may have stayed
    for got, want in zip(again[::-1], found, strict=True):
        np.testing.assert_allclose(got.sums, want.sums, atol=1e-4)


@pytest.mark.parametrize("name", ABLE)
def test_sinks_are_the_whole_attention_where_everything_fits(name):
    lm = tiny.lm(name, attention="sink:4+512")
    plain = tiny.lm(name)
    for got, want in zip(lm.score(CONTEXTS, [LABELS] * 4), plain.score(CONTEXTS, [LABELS] * 4), strict=True):
        np.testing.assert_allclose(got.sums, want.sums, atol=1e-4)
    assert lm.fingerprint != plain.fingerprint
    assert lm.approximation == "attention sink:4+512"
    assert plain.approximation is None


def test_sinks_behind_a_trunk_that_all_share(tmp_path):
    """A beginning of several blocks is read once, and every item goes on behind it, whatever others did in between."""
    from icl.model.score_cache import ScoreCache

    shared = "".join(BODIES) * 4
    contexts = [shared + body + query for body in BODIES for query in QUERIES]
    lm = tiny.lm("llama", attention="sink:2+40", memory="200KB", max_batch=2)
    assert len(lm.codec.plain(shared).ids) > 256
    found = lm.score(contexts, [LABELS] * len(contexts))
    for context, scores in zip(contexts, found, strict=True):
        np.testing.assert_allclose(scores.sums, [sinks_by_hand(lm, context, label, 2, 40) for label in LABELS], atol=1e-4)
    assert lm.totals.computed < 2 * len(lm.codec.plain(shared).ids) + sum(len(lm.codec.plain(c).ids) - 256 for c in contexts)
    first = [lm.score([c], [LABELS])[0] for c in contexts]
    cached = tiny.lm("llama", attention="sink:2+40", memory="200KB", max_batch=2)
    cached.cache = ScoreCache(tmp_path, 1 << 30)
    half = cached.score(contexts[:3], [LABELS] * 3)
    again = cached.score(contexts, [LABELS] * len(contexts))
    for got, want in zip([*half, *again], [*found[:3], *found], strict=True):
        np.testing.assert_allclose(got.sums, want.sums, atol=1e-4)
    for got, want in zip(first, found, strict=True):
        np.testing.assert_allclose(got.sums, want.sums, atol=1e-4)


def test_out_of_memory_with_sinks_gives_the_same(monkeypatch):
    from icl.model import scoring

    lm = tiny.lm("llama", attention="sink:2+10")
    expected = lm.score(CONTEXTS, [LABELS] * 4)
    real = scoring.chunk_values

    def scarce(model, chunk, kept, *far):
        if len(chunk) > 40:
            raise RuntimeError("out of memory")
        return real(model, chunk, kept, *far)

    monkeypatch.setattr(scoring, "chunk_values", scarce)
    for got, want in zip(tiny.lm("llama", attention="sink:2+10").score(CONTEXTS, [LABELS] * 4), expected, strict=True):
        np.testing.assert_allclose(got.sums, want.sums, atol=1e-4)


def test_keys_and_values_never_exceed_what_is_seen(monkeypatch):
    from icl.model import scoring

    seen = []
    real = scoring.chunk_values

    def watched(model, chunk, kept, *far):
        seen.append(kept[0][0].shape[1] if kept else 0)
        return real(model, chunk, kept, *far)

    monkeypatch.setattr(scoring, "chunk_values", watched)
    lm = tiny.lm("llama", attention="sink:2+20", memory="200KB")
    lm.score(["".join(BODIES) * 4 + QUERIES[0]], [LABELS])
    assert len(seen) >= 4
    assert max(seen) == 21


def test_text_is_not_written_with_sinks_and_bad_settings_are_named():
    with pytest.raises(InputError, match="text is written"):
        tiny.lm("llama", attention="sink:4+16").generate(["a"])
    for bad in ("sink", "sink:4", "sink:4+0", "window:9"):
        with pytest.raises(InputError, match="is no attention"):
            tiny.lm("llama", attention=bad)
    assert str(Sinks(4, 2048)) == "sink:4+2048"


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_prompt_whose_keys_and_values_exceed_the_budget_is_refused():
    lm = TorchModel(tiny.model("llama"), tiny.tokenizer(), name="small", memory="100KB")
    long = "".join(BODIES) * 5
    with pytest.raises(InputError, match="attention='sink:4"):
        lm.score([long], [LABELS])
    assert lm.score([BODIES[0]], [LABELS])
    tiny.lm("llama", memory="100KB", attention="sink:2+20").score([long], [LABELS])


def test_chunks_behind_a_long_path_are_smaller():
    from icl.model.chunks import Room, chunks
    from icl.model.tree import Item

    items = [Item(0, tuple(range(5000)), ((7,), (8, 9)))]
    found = list(chunks(items, Room(512, 10**6, cells=512 * 1024)))
    assert [token for chunk in found for token in chunk.tokens][:5000] == list(range(5000))
    assert all(len(chunk) * (chunk.n_kept + 1) <= 512 * 1024 or len(chunk) <= 66 for chunk in found)
    assert len(found[0]) == 512
