"""Scores agree with one plain sequence at a time, whatever the architecture, batch, order and mixture of lengths."""

import random

import numpy as np
import pytest
import tiny
import torch

from icl.model.check import examine
from icl.model.torch_lm import TorchModel

TEXTS = [
    "Review: a moving film.\nSentiment:",
    "Question: What is the capital of France?\nAnswer:",
    "Article: shares fell on Monday as oil prices rose, and the team won the cup after extra time.\nTopic:",
    "def add(a, b):\n    return",
    "x",
    "",
    "Message: where is my order? It was due on Monday, and I have heard nothing since then. Please help.\nIntent:",
    "Naïve café, 東京 🙂 and 1,234 words:",
]
LABELS = [" positive", " negative", " business news", " a", " ", "\n", " Paris, the capital of the world", "s", "…", " word and words"]


def naive(model, tokenizer, context, continuations):
    """Independent of the project: each continuation in a forward pass of its own, no mask, no padding, no cache."""
    bare = tokenizer(context, add_special_tokens=True)["input_ids"]
    joint = [tokenizer(context + c, add_special_tokens=True)["input_ids"] for c in continuations]
    start = 0
    while all(len(ids) > start + 1 for ids in joint) and start < len(bare) and all(ids[start] == bare[start] for ids in joint):
        start += 1
    if start == 0:
        joint, start = [[tokenizer.bos_token_id, *ids] for ids in joint], 1
    sums = []
    for ids in joint:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        values = torch.log_softmax(logits.float(), -1)
        sums.append(sum(values[at - 1, ids[at]].item() for at in range(start, len(ids))))
    return sums, [len(ids) - start for ids in joint]


def work(n, seed=0):
    rng = random.Random(seed)
    contexts, continuations = [], []
    shared = "\n\n".join(TEXTS[:3])  # longer than what queries must share to stand in one row
    for i in range(n):
        text = rng.choice(TEXTS)
        contexts.append(f"{shared}\n\n{text}" if i % 3 == 0 else text)
        continuations.append(rng.sample(LABELS, rng.randint(1, 5)))
    return contexts, continuations


def assert_close(found, expected, n_tokens):
    for got, want, lengths in zip(found, expected, n_tokens, strict=True):
        for a, b, n in zip(got, want, lengths, strict=True):
            assert abs(a - b) <= 1e-4 + 1e-5 * max(0, n - 16), (a, b, n)


@pytest.mark.parametrize("name", [*tiny.REQUIRED, *tiny.FURTHER, *tiny.BREADTH])
def test_agrees_with_plain_sequences(name):
    model, tokenizer = tiny.model(name), tiny.tokenizer()
    contexts, continuations = work(9 if name in tiny.BREADTH else 24)
    expected = [naive(model, tokenizer, c, x) for c, x in zip(contexts, continuations, strict=True)]
    for max_batch in (None, 1, 3):
        lm = TorchModel(model, tokenizer, name=name, max_batch=max_batch)
        scores = lm.score(contexts, continuations)
        assert_close([s.sums for s in scores], [e[0] for e in expected], [e[1] for e in expected])
        assert [list(s.n_tokens) for s in scores] == [e[1] for e in expected]
    order = random.Random(1).sample(range(len(contexts)), len(contexts))
    shuffled = lm.loglikelihoods([contexts[i] for i in order], [continuations[i] for i in order])
    assert_close(shuffled, [expected[i][0] for i in order], [expected[i][1] for i in order])


@pytest.mark.parametrize("name", tiny.REQUIRED)
def test_required_architectures_share_prefixes(name):
    assert tiny.lm(name).examined.path == "tree"


def test_architectures_that_a_mask_cannot_steer_take_the_plain_path():
    for name in ("bloom", "mpt", "falcon-alibi", "mamba", *tiny.HYBRID):
        found = examine(tiny.model(name))
        assert found.path != "tree", name
        assert found.why


def test_sliding_window_is_kept_beyond_its_length():
    """A mask that forgot the window would see all of the context: then the scores would not change with what the window hides."""
    tokenizer = tiny.tokenizer()
    lm = TorchModel(tiny.model("mistral"), tokenizer, name="mistral")
    assert lm.examined.path == "tree"
    near = "Article: the team won the cup after extra time on Monday, and shares rose.\nTopic:"
    long = f"{TEXTS[0]} {TEXTS[1]} {near}"
    assert len(tokenizer(near)["input_ids"]) > 16
    [found] = lm.loglikelihoods([long], [[" sports", " business"]])
    expected, lengths = naive(tiny.model("mistral"), tokenizer, long, [" sports", " business"])
    assert_close([found], [expected], [lengths])


def test_the_load_check_notices_attention_that_looks_elsewhere(monkeypatch):
    """If branches saw each other, the check must find out and take the next path; if a mask does so too, the plain one."""
    import icl.model.forward as forward
    from icl.model.groups import Places

    def all_before(places, window):
        k, q = places.keys[:, None, :], places.chunk.n_kept + places.queries[:, :, None]
        return k <= q

    def all_causal(model, positions, ends):
        n = ends.shape[1]
        mask = torch.full((n, n), torch.finfo(model.dtype).min).triu(1)
        return mask[None, None].expand(ends.shape[0], 1, n, n)

    monkeypatch.setattr(Places, "visible", all_before)
    found = examine(tiny.model("llama"))
    assert found.path == "mask"
    assert "off by" in found.why
    monkeypatch.setattr(forward, "tree_masks", all_causal)
    found = examine(tiny.model("llama"))
    assert found.path == "padded"
    assert found.why.count("off by") == 2


def test_every_path_gives_the_same_numbers():
    """The paths that a model of another architecture would be given, and no sharing between items, on one model."""
    from icl.model.chunks import Room, chunks
    from icl.model.scoring import Scoring

    contexts, continuations = work(40, seed=5)
    lm = tiny.lm("llama")
    expected = lm.loglikelihoods(contexts, continuations)
    n_tree = lm.totals.computed
    assert n_tree == lm.plan(contexts, continuations).computed < lm.totals.naive
    for path in ("mask", "padded", "single"):
        other = tiny.lm("llama")
        other.scoring.path = path
        found = other.loglikelihoods(contexts, continuations)
        assert max(abs(a - b) for x, y in zip(found, expected, strict=True) for a, b in zip(x, y, strict=True)) <= 1e-4, path
        assert other.totals.computed == other.plan(contexts, continuations).computed > n_tree

    class Alone(Scoring):
        def _above(self, items):
            return ()

        def _chunks(self, items, above):
            return chunks(items, Room(64, 1000), share=False)

    other = tiny.lm("llama")
    other.__dict__["scoring"] = Alone(other.model, "tree", other.limits, other.totals)
    found = other.loglikelihoods(contexts, continuations)
    assert max(abs(a - b) for x, y in zip(found, expected, strict=True) for a, b in zip(x, y, strict=True)) <= 1e-4


def test_a_long_common_beginning_stays_for_the_next_call():
    """Computed once for all calls that share it, with the same numbers to the last bit, and no others than without it."""
    shared = " ".join(TEXTS) * 2
    contexts, labels = [f"{shared} {text}" for text in TEXTS], [LABELS[:3]] * len(TEXTS)
    lm, model, tokenizer = tiny.lm("llama"), tiny.model("llama"), tiny.tokenizer()
    first = lm.score(contexts[:4], labels[:4])
    n_first = lm.totals.computed
    second = lm.score(contexts[4:], labels[4:])
    kept = lm.totals.cached
    assert 128 <= kept <= lm.count_tokens(shared)
    assert kept % 128 == 0
    assert lm.totals.computed - n_first == lm.plan(contexts[4:], labels[4:]).computed - kept
    assert [s.sums for s in tiny.lm("llama").score(contexts[4:], labels[4:])] == [s.sums for s in second]
    lm.score(["something else"], [[" positive"]])
    assert [s.sums for s in lm.score(contexts[:4], labels[:4])] == [s.sums for s in first]
    expected = [naive(model, tokenizer, c, LABELS[:3]) for c in contexts]
    assert_close([s.sums for s in first + second], [e[0] for e in expected], [e[1] for e in expected])


@pytest.mark.parametrize("n", [120, pytest.param(1000, marks=pytest.mark.slow)])
def test_scores_do_not_depend_on_batch_order_sharing_or_threads(n):
    """And no prediction changes, except where the two best are nearer than rounding: there the read-out says `tie`."""
    from icl.readout import pick, tie_tolerance

    contexts, continuations = work(n, seed=2)
    order = random.Random(3).sample(range(n), n)
    threads = torch.get_num_threads()
    for name in ("gpt2", "llama", "mistral"):
        model, tokenizer = tiny.model(name), tiny.tokenizer()
        reference = TorchModel(model, tokenizer, name=name).score(contexts, continuations)
        runs = [(1, 1, "tree"), (2, 2, "tree"), (7, 1, "tree"), (32, 2, "tree"), (None, 1, "padded" if n > 200 else "tree")]
        for max_batch, n_threads, path in runs:
            lm = TorchModel(model, tokenizer, name=name, max_batch=max_batch)
            lm.scoring.path = path
            torch.set_num_threads(n_threads)
            try:
                found = lm.score([contexts[i] for i in order], [continuations[i] for i in order])
            finally:
                torch.set_num_threads(threads)
            for got, i in zip(found, order, strict=True):
                want = reference[i]
                assert_close([got.sums], [want.sums], [want.n_tokens])
                best, tie = pick(np.array(got.sums), tie_tolerance(got, "sum", lm.dtype))
                assert tie or best == pick(np.array(want.sums), tie_tolerance(want, "sum", lm.dtype))[0]


def test_out_of_memory_halves_the_work_and_loses_nothing(monkeypatch):
    import icl.model.scoring as scoring

    contexts, continuations = work(40)
    expected = tiny.lm("llama").loglikelihoods(contexts, continuations)
    real_chunk, real_rows = scoring.chunk_values, scoring.row_values

    for path in ("tree", "mask", "padded"):
        failures = [0]

        def scarce_chunk(model, chunk, kept, *far, failures=failures):
            if len(chunk) > 11:
                failures[0] += 1
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return real_chunk(model, chunk, kept, *far)

        def scarce_rows(model, rows, path, failures=failures):
            if len(rows) > 1 or len(rows[0].items) > 1 or len({r.continuation for r in rows[0].reads}) > 2:
                failures[0] += 1
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return real_rows(model, rows, path)

        lm = tiny.lm("llama")
        lm.scoring.path = path
        monkeypatch.setattr(scoring, "chunk_values", scarce_chunk)
        monkeypatch.setattr(scoring, "row_values", scarce_rows)
        found = lm.loglikelihoods(contexts, continuations)
        assert failures[0] > 5
        assert max(abs(a - b) for x, y in zip(found, expected, strict=True) for a, b in zip(x, y, strict=True)) <= 1e-4


@pytest.mark.parametrize("path", ["tree", "mask", "single"])
def test_a_single_sequence_that_does_not_fit_says_so(monkeypatch, path):
    import icl.model.scoring as scoring
    from icl.errors import IclError

    def never(*arguments):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    lm = tiny.lm("llama")
    lm.scoring.path = path
    monkeypatch.setattr(scoring, "row_values", never)
    monkeypatch.setattr(scoring, "chunk_values", never)
    with pytest.raises(IclError, match="does not fit into the memory"):
        lm.loglikelihoods(["a b c"], [[" d", " e f"]])


def test_plan_counts_what_is_shared():
    lm = tiny.lm("llama")
    context = " ".join(TEXTS[:3])
    labels = [" positive", " negative", " business news"]
    n = lm.count_tokens(context)
    own = [lm.count_tokens(context + label) - n - 1 for label in labels]  # the last token of a label is never computed
    assert lm.plan([context], [labels[:1]]).computed == n + own[0]
    found = lm.plan([f"{context} {i}" for i in range(4)], [labels] * 4)
    digits = lm.count_tokens(f"{context} 1") - n
    assert found.naive == 12 * (n + digits) + 4 * sum(own)
    assert n + 4 * sum(own) < found.computed <= n + 4 * (digits + sum(own))


def test_too_long_for_the_window_names_the_item():
    from icl.errors import InputError

    with pytest.raises(InputError, match=r"item 1: .* reads 512"):
        tiny.lm("llama").score(["a", "words " * 600], [[" b"], [" c"]])


def test_lists_of_different_length_are_refused():
    from icl.errors import InputError

    with pytest.raises(InputError, match="1 contexts and 2 lists"):
        tiny.lm("llama").score(["a"], [[" b"], [" c"]])


def test_fingerprint_changes_with_weights_and_tokenizer():
    from copy import deepcopy

    model = deepcopy(tiny.model("llama"))
    before = TorchModel(model, tiny.tokenizer(), name="a").fingerprint
    assert before == TorchModel(model, tiny.tokenizer(), name="b").fingerprint
    assert before != TorchModel(model, tiny.tokenizer("chatml"), name="a").fingerprint
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    assert before != TorchModel(model, tiny.tokenizer(), name="a").fingerprint


def test_stories260k(shared):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import icl

    folder = shared / "models" / "stories260k"
    lm = icl.load_model(str(folder), device="cpu")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    contexts = [
        "Once upon a time, there was a little",
        "Lily and Tom went to the park. They saw a",
        "The dog was",
        "One day, Ben found a big red ball.",
    ]
    labels = [" girl", " boy named Tim", " dog", " very happy", " He was so happy."]
    expected = [naive(model, tokenizer, c, labels) for c in contexts]
    for max_batch in (None, 1, 2):
        lm = TorchModel(model, tokenizer, name="stories", max_batch=max_batch)
        found = lm.score(contexts, [labels] * 4)
        assert_close([s.sums for s in found], [e[0] for e in expected], [e[1] for e in expected])
    assert found[0].sums[0] == max(found[0].sums)  # a real checkpoint: "a little girl" is what it was trained to say


@pytest.mark.smollm2
def test_smollm2_agrees_with_plain_sequences():
    import icl

    lm = icl.load_model("smollm2", device="cpu")
    from icl.model.load import load_tokenizer

    contexts = [TEXTS[0], TEXTS[2], f"{TEXTS[1]} Paris\n\n{TEXTS[0]}", "", TEXTS[6]]
    labels = [
        [" positive", " negative"],
        [" business", " sports", " science and technology"],
        [" great", " terrible"],
        ["The", " a"],
        [" order status"],
    ]
    expected = [naive(lm.model, load_tokenizer("smollm2"), c, x) for c, x in zip(contexts, labels, strict=True)]
    found = lm.loglikelihoods(contexts, labels)
    assert_close(found, [e[0] for e in expected], [e[1] for e in expected])
