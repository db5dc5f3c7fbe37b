"""Encoder-decoder models: a prompt read once gives the numbers of one plain pass per prompt and continuation."""

import random
from copy import deepcopy

import pytest
import tiny
import torch

import icl
from icl.errors import IclError, InputError
from icl.model import Seq2SeqModel, decoder_rows, doctor, encoder_decoder
from icl.values import LabelScores, Prompt

PROMPTS = [
    "Review: a moving film.\nSentiment:",
    "Question: What is the capital of France?\nAnswer:",
    "Article: shares fell on Monday as oil prices rose, and the team won the cup after extra time.\nTopic:",
    "x",
    "",
    "Message: where is my order? Please help.\nIntent:",
    "Naïve café, 東京 🙂 and 1,234 words:",
]
LABELS = [" positive", " negative", " business news", " business", "a", " Paris, the capital of the world", "words", " word and words"]


def naive(name, prompt, continuation):
    """Independent of the project: the whole target goes into one forward pass as `labels`, special tokens and all."""
    model, tokenizer = tiny.model(name), tiny.seq2seq_tokenizer(name)
    target = tokenizer(continuation.lstrip(), return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False), labels=target).logits[0]
    shares, special = torch.log_softmax(logits, -1), set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    found = [shares[at, token].item() for at, token in enumerate(target[0].tolist()) if token not in special]
    return sum(found), len(found)


def flat(lists):
    return [value for found in lists for value in found]


def work(n, seed=0):
    rng = random.Random(seed)
    return [rng.choice(PROMPTS) for _ in range(n)], [rng.sample(LABELS, rng.randint(1, 5)) for _ in range(n)]


@pytest.mark.parametrize("name", tiny.SEQ2SEQ)
@pytest.mark.parametrize("options", [{}, {"max_batch": 1}, {"max_batch": 3}, {"memory": 200_000}])
def test_agrees_with_plain_passes(name, options):
    prompts, continuations = work(20)
    lm = tiny.lm(name, **options)
    assert lm.examined.path == "rows"
    for prompt, texts, found in zip(prompts, continuations, lm.score(prompts, continuations), strict=True):
        expected = [naive(name, prompt, text) for text in texts]
        assert found.sums == pytest.approx([value for value, _ in expected], abs=1e-4)
        assert found.n_tokens == tuple(n for _, n in expected)
        assert (found.conditioned, found.start, found.straddle) == ("encoder", len(lm.first), False)
    shuffled = lm.loglikelihoods(prompts[::-1], continuations[::-1])[::-1]
    assert flat(shuffled) == pytest.approx(flat(lm.loglikelihoods(prompts, continuations)), abs=1e-4)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_many_continuations_of_one_prompt_share_its_keys(name, monkeypatch):
    """From 32 rows on a prompt has passes of its own; out of memory they are halved, and nothing is lost."""
    texts = [f"{a}{b} words" for a in LABELS for b in LABELS]
    lm = tiny.lm(name)
    expected = [naive(name, PROMPTS[2], text)[0] for text in texts]
    assert lm.loglikelihoods(PROMPTS[2:4], [texts, LABELS])[0] == pytest.approx(expected, abs=1e-4)
    real, failures = encoder_decoder.continuation_values, []

    def scarce(model, state, rows, asked):
        if len(rows) > 3:
            failures.append(len(rows))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(model, state, rows, asked)

    monkeypatch.setattr(encoder_decoder, "continuation_values", scarce)
    assert lm.loglikelihoods(PROMPTS[2:4], [texts, LABELS])[0] == pytest.approx(expected, abs=1e-4)
    assert len(failures) > 5


def test_a_prompt_that_does_not_fit_says_so(monkeypatch):
    def never(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(encoder_decoder, "open_prompts", never)
    with pytest.raises(IclError, match="does not fit into the memory"):
        tiny.lm("t5").loglikelihoods(["a", "b"], [["c"], ["d"]])


def test_rows_leave_out_what_begins_another():
    found = decoder_rows.decoder_rows([(1,), (1, 2), (1, 2, 3), (1, 2, 4, 5), (6, 7), ()])
    assert sorted((row.tokens, sorted(row.covers)) for row in found) == [((1, 2, 4), [1, 2, 3]), ((6,), [4])]


def test_plan_counts_the_encoder_once():
    lm, first = tiny.lm("bart"), 2
    n = [len(lm.codec.plain(prompt).ids) for prompt in PROMPTS[:2]]
    rows = [len(ids) - 1 for ids in lm.codec.tokens.literal(["positive", "negative"])]
    found = lm.plan([*PROMPTS[:2], PROMPTS[0]], [[" positive", " negative"]] * 3)
    assert found.computed == sum(n) + 2 * (first + sum(rows))
    assert found.naive == 2 * (2 * n[0] + n[1]) + 3 * (2 * first + sum(rows))


def test_what_the_decoder_starts_with():
    assert tiny.lm("t5").first == (0,)
    assert tiny.lm("bart").first == (1, 0)  # the start token, then the forced `<s>`
    unforced = deepcopy(tiny.model("bart"))
    unforced.generation_config.forced_bos_token_id = None
    assert Seq2SeqModel(unforced, tiny.seq2seq_tokenizer("bart"), name="x").first == (1, 0)  # what the tokenizer puts in front
    unforced.generation_config.forced_bos_token_id = 7
    assert Seq2SeqModel(unforced, tiny.seq2seq_tokenizer("bart"), name="x").first == (1, 7)  # as a language's code


def test_unknown_characters_are_read_as_the_tokenizer_reads_them():
    text = "Naïve café 東京"
    expected = tiny.t5_tokenizer()(text).input_ids
    assert 2 in expected
    assert tiny.lm("t5").codec.plain(text).ids == tuple(expected)


def test_no_continuation_is_without_tokens():
    for name in tiny.SEQ2SEQ:
        [found] = tiny.lm(name).score(["x"], [["", " ", "a"]])
        assert found.n_tokens == (1, 1, 1)
        assert found.sums[0] == found.sums[1] < 0


def test_windows_of_both_sides_are_kept():
    lm = tiny.lm("bart")
    assert (lm.window, lm.decoder_window) == (256, 256)
    with pytest.raises(InputError, match=r"item 1: the prompt takes .* reads 256"):
        lm.score(["a", "words " * 300], [[" b"], [" c"]])
    with pytest.raises(InputError, match=r"item 0: its longest continuation takes .* reads 254"):
        lm.score(["a"], [["words " * 300]])
    with pytest.raises(InputError, match="1 contexts and 2 lists"):
        lm.score(["a"], [[" b"], [" c"]])
    assert tiny.lm("t5").score(["words " * 600], [[" b"]])[0].sums[0] < 0  # relative positions know no limit


def test_without_a_usable_cache_the_plain_path_is_taken(monkeypatch):
    """Keys of the wrong prompt would give wrong scores: the check at load time must see it, and the plain path be right."""
    from icl.model import decoder_check

    real = decoder_rows.spread
    monkeypatch.setattr(decoder_rows, "spread", lambda state, rows: real(state, [0 for _ in rows]))
    lm = tiny.lm("t5")
    assert lm.examined.path == "single"
    assert "off by" in lm.examined.why
    found = lm.loglikelihoods(PROMPTS[:3], [LABELS[:3]] * 3)
    assert flat(found) == pytest.approx([naive("t5", p, text)[0] for p in PROMPTS[:3] for text in LABELS[:3]], abs=1e-4)
    assert lm.plan(PROMPTS[:1], [LABELS[:3]]).computed == lm.plan(PROMPTS[:1], [LABELS[:3]]).naive

    def fails(*_, **__):
        raise TypeError("forward() got an unexpected keyword argument")

    monkeypatch.setattr(decoder_check, "open_prompts", fails)
    assert "cannot go on" in tiny.lm("bart").examined.why


def test_numbers_that_are_not_finite_are_refused():
    broken = deepcopy(tiny.model("t5"))
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("inf"))
    with pytest.raises(InputError, match="no finite numbers"):
        Seq2SeqModel(broken, tiny.seq2seq_tokenizer("t5"), name="x")


def greedy(name, model, prompt, n):
    tokenizer = tiny.seq2seq_tokenizer(name)
    encoded = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    out = model.generate(**encoded, max_new_tokens=n + (name == "bart"), do_sample=False, num_beams=1)
    return tokenizer.decode(out[0], skip_special_tokens=True)


@pytest.mark.parametrize("name", tiny.SEQ2SEQ)
def test_equals_transformers_greedy(name):
    lm = tiny.lm(name)
    expected = [greedy(name, tiny.model(name), p, 14) for p in PROMPTS]
    assert sum(map(bool, expected)) > 2
    assert lm.generate(PROMPTS, 14, stop=()) == expected
    assert lm.generate(PROMPTS[::-1], 14, stop=())[::-1] == expected
    assert [lm.generate([p], 14, stop=())[0] for p in PROMPTS] == expected


def test_stop_strings_cut_and_finished_rows_leave():
    lm = tiny.lm("bart")
    whole = lm.generate(PROMPTS, 14, stop=())
    stop = whole[0][3:5]
    assert lm.generate(PROMPTS, 14, stop=(stop,)) == [text.split(stop)[0] for text in whole]
    assert lm.generate(PROMPTS, 0) == [""] * len(PROMPTS)


def test_a_sample_depends_on_seed_prompt_and_number_only(monkeypatch):
    lm = tiny.lm("bart")
    together = lm.sample(PROMPTS, n=3, seed=5, max_new_tokens=8, stop=())
    assert together == [lm.sample([p], n=3, seed=5, max_new_tokens=8, stop=())[0] for p in PROMPTS]
    assert [texts[:2] for texts in together] == lm.sample(PROMPTS, n=2, seed=5, max_new_tokens=8, stop=())
    assert together != lm.sample(PROMPTS, n=3, seed=6, max_new_tokens=8, stop=())
    assert [t[0] for t in lm.sample(PROMPTS, n=1, temperature=0, max_new_tokens=8)] == lm.generate(PROMPTS, 8)
    real = encoder_decoder.write

    def scarce(model, prompts, *rest, **options):
        real(model, prompts, *rest, **options)  # draws its numbers, then fails: the second try must draw the same
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(encoder_decoder, "write", scarce)
    assert lm.sample(PROMPTS, n=3, seed=5, max_new_tokens=8, stop=()) == together


def test_samples_follow_the_models_distribution():
    lm, n = tiny.lm("t5"), 3000
    encoded = tiny.seq2seq_tokenizer("t5")("x", return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        logits = tiny.model("t5")(**encoded, decoder_input_ids=torch.tensor([[0]])).logits[0, -1]
    texts = lm.sample(["x"], n=n, temperature=2.0, max_new_tokens=1, stop=())[0]
    expected = {}
    for token, p in enumerate(torch.softmax(logits / 2.0, -1).tolist()):
        text = "" if token == 1 else lm.codec.tokens.decode([token])
        expected[text] = expected.get(text, 0.0) + p
    likely = {text: p for text, p in expected.items() if p > 0.04}
    assert len(likely) > 2
    for text, p in likely.items():
        assert abs(texts.count(text) / n - p) < 4 * (p * (1 - p) / n) ** 0.5, text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("tiny") / "t5", "t5")


def test_a_folder_is_recognised_and_loads_again(folder):
    lm = icl.load_model(str(folder), device="cpu")
    assert isinstance(lm, Seq2SeqModel)
    again = icl.load_model(**lm.reference)
    assert again.fingerprint == lm.fingerprint != tiny.lm("t5").fingerprint
    assert again.loglikelihoods(PROMPTS[:2], [LABELS] * 2) == lm.loglikelihoods(PROMPTS[:2], [LABELS] * 2)
    lines = doctor(str(folder))
    assert any(line.startswith("path: rows (a prompt is read once") for line in lines)
    assert any("repeated bit-identical" in line for line in lines)


def test_scores_come_out_of_the_cache_bit_for_bit(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_HOME", str(tmp_path))
    monkeypatch.setenv("ICL_CACHE", "1")
    lm = icl.load_model(str(folder), device="cpu", cache=True)
    expected = lm.loglikelihoods(PROMPTS, [LABELS] * len(PROMPTS))
    again = icl.load_model(str(folder), device="cpu", cache=True)
    monkeypatch.setattr(encoder_decoder, "open_prompts", None)  # nothing is computed
    assert again.loglikelihoods(PROMPTS, [LABELS] * len(PROMPTS)) == expected


def test_few_shot_with_demonstrations_in_the_encoder(folder):
    lm = icl.load_model(str(folder), device="cpu")
    pool = icl.Task.load([{"text": f"{word} film", "label": word} for word in ("positive", "negative") * 4], holdout=0).train
    predictor = icl.FewShot(lm, retriever="random", shots=3).fit(pool, labels=("positive", "negative"))
    [found] = predictor.predict(["a moving film"])
    prompt = predictor.prompt("a moving film")
    assert prompt.token_ids[-1] == 1  # the encoder's end of sequence
    values = [naive("t5", prompt.text, label)[0] for label in ("positive", "negative")]
    assert found.answer == ("positive", "negative")[values[1] > values[0]]
    assert prompt.n_tokens == len(prompt.token_ids)
    assert isinstance(lm.score([prompt], [["positive"]])[0], LabelScores)
    assert lm.score([prompt], [["positive"]])[0].sums[0] == pytest.approx(values[0], abs=1e-4)
    assert isinstance(prompt, Prompt)
