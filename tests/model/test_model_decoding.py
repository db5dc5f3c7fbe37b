"""Writing text: equal to transformers' own greedy search, and a sample that does not depend on its batch."""

import pytest
import tiny
import torch

PROMPTS = [
    "Review: a moving film.\nSentiment:",
    "x",
    "Article: shares fell on Monday as oil prices rose, and the team won the cup.\nTopic:",
    "Question: What is the capital of France?\nAnswer:",
    "def add(a, b):",
]


def greedy(model, tokenizer, prompt, n, end_ids):
    ids = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=n, do_sample=False, eos_token_id=sorted(end_ids))[0]
    new = out[ids["input_ids"].shape[1] :]
    return tokenizer.decode([i for i in new.tolist() if i not in end_ids], skip_special_tokens=True)


@pytest.mark.parametrize("name", [*tiny.REQUIRED, "mistral", "gemma3", "falcon-alibi", "bloom", "mpt", "mamba"])
def test_equals_transformers_greedy(name):
    lm, model, tokenizer = tiny.lm(name), tiny.model(name), tiny.tokenizer()
    expected = [greedy(model, tokenizer, p, 20, lm.writing.end_ids) for p in PROMPTS]
    assert lm.generate(PROMPTS, max_new_tokens=20, stop=()) == expected
    assert lm.generate(PROMPTS[::-1], max_new_tokens=20, stop=())[::-1] == expected
    assert [lm.generate([p], max_new_tokens=20, stop=())[0] for p in PROMPTS] == expected


def test_stop_strings_cut_exactly():
    lm = tiny.lm("llama")
    whole = lm.generate(PROMPTS, max_new_tokens=24, stop=())
    for text, prompt in zip(whole, PROMPTS, strict=True):
        stop = text[5:7]
        [found] = lm.generate([prompt], max_new_tokens=24, stop=("never there", stop))
        assert found == text[: text.index(stop)]


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_nothing_is_computed_behind_a_stop_string(name):
    lm = tiny.lm(name)
    whole = lm.generate(PROMPTS[:1], max_new_tokens=40, stop=())[0]
    before = lm.totals.generated
    assert before == 39  # the first token comes from the prompt
    [text] = lm.generate(PROMPTS[:1], max_new_tokens=40, stop=(whole[5:7],))
    assert text == whole[: whole.index(whole[5:7])]
    assert lm.totals.generated - before < 20


def test_rows_of_one_batch_end_at_different_lengths():
    lm = tiny.lm("llama")
    whole = lm.generate(PROMPTS, max_new_tokens=24, stop=())
    stop = whole[0][3:5]
    expected = [text.split(stop)[0] for text in whole]
    assert lm.generate(PROMPTS, max_new_tokens=24, stop=(stop,)) == expected
    assert len({len(e) for e in expected}) > 1


def test_end_of_text_ends_and_is_not_in_the_text():
    from copy import deepcopy

    from icl.model import TorchModel

    model = deepcopy(tiny.model("llama"))
    lm = TorchModel(model, tiny.tokenizer(), name="x")
    [text] = lm.generate(["x"], max_new_tokens=10, stop=())
    prompt = torch.tensor([lm.codec.tokens.parsed("x")])
    ids = model.generate(prompt, max_new_tokens=10, do_sample=False)[0, prompt.shape[1] :].tolist()
    assert ids[3] not in ids[:3]
    model.generation_config.eos_token_id = [ids[3], 1]
    shorter = TorchModel(model, tiny.tokenizer(), name="x").generate(["x"], max_new_tokens=10, stop=())[0]
    assert shorter == lm.codec.tokens.decode(ids[:3])
    assert len(shorter) < len(text)


def test_a_sample_depends_on_seed_prompt_and_number_only():
    lm = tiny.lm("llama")
    together = lm.sample(PROMPTS, n=3, seed=5, max_new_tokens=12, stop=())
    alone = [lm.sample([p], n=3, seed=5, max_new_tokens=12, stop=())[0] for p in PROMPTS]
    assert together == alone
    assert [texts[:2] for texts in together] == lm.sample(PROMPTS, n=2, seed=5, max_new_tokens=12, stop=())
    assert together != lm.sample(PROMPTS, n=3, seed=6, max_new_tokens=12, stop=())
    assert len({text for texts in together for text in texts}) > 10


def test_temperature_zero_is_greedy():
    lm = tiny.lm("gpt2")
    assert [t[0] for t in lm.sample(PROMPTS, n=1, temperature=0, max_new_tokens=8)] == lm.generate(PROMPTS, max_new_tokens=8)


def test_samples_follow_the_models_distribution():
    """Frequencies of the first token against its probabilities, 4 standard errors."""
    lm, n = tiny.lm("gpt2"), 3000
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([lm.codec.tokens.parsed("x")])).logits[0, -1]
    expected = {}
    for token, p in enumerate(torch.softmax(logits / 0.7, -1).tolist()):
        text = "" if token in lm.writing.end_ids else lm.codec.tokens.decode([token])  # many bytes alone are no text: they look the same
        expected[text] = expected.get(text, 0.0) + p
    texts = lm.sample(["x"], n=n, temperature=0.7, max_new_tokens=1, stop=())[0]
    likely = [text for text, p in expected.items() if p > 0.05]
    assert len(likely) > 2
    for text in likely:
        p = expected[text]
        assert abs(texts.count(text) / n - p) < 4 * (p * (1 - p) / n) ** 0.5, text


def test_chat_prompts_end_at_the_end_of_turn():
    from icl.values import Prompt

    lm = tiny.lm("llama", "chatml")
    assert lm.codec.tokens.controls["<|im_end|>"].id in lm.writing.end_ids
    messages = ({"role": "user", "content": "Hello there!"},)
    encoded = lm.codec.chat(messages)
    prompt = Prompt(encoded.text, messages, encoded.ids, tail=encoded.tail, n_head=encoded.n_head, format="chat")
    assert lm.generate([prompt], max_new_tokens=6) == lm.generate([Prompt("", messages, format="chat")], max_new_tokens=6)


def test_a_full_window_is_refused_and_a_nearly_full_one_is_not_overrun():
    from icl.errors import InputError

    lm = tiny.lm("llama")
    long = "a" * 505
    assert lm.count_tokens(long) == 505
    ends = lm.generate([long, "x"], max_new_tokens=20, stop=())
    assert lm.count_tokens(ends[0]) <= 7
    assert ends[1] == lm.generate(["x"], max_new_tokens=20, stop=())[0]
    with pytest.raises(InputError, match="reads 512"):
        lm.generate(["a" * 512], max_new_tokens=4)


def test_out_of_memory_halves_the_group_on_the_plain_path(monkeypatch):
    import icl.model.writing as writing

    lm = tiny.lm("falcon")
    expected = lm.sample(PROMPTS, n=2, max_new_tokens=6, stop=())
    real = writing.write

    def scarce(model, prompts, writers, ending, *, cached):
        n = real(model, prompts, writers, ending, cached=cached)  # draws its numbers, then fails: the second try must draw the same
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return n

    monkeypatch.setattr(writing, "write", scarce)
    assert lm.sample(PROMPTS, n=2, max_new_tokens=6, stop=()) == expected


@pytest.mark.smollm2
def test_smollm2_greedy():
    import icl
    from icl.model.load import load_tokenizer

    lm = icl.load_model("smollm2", device="cpu")
    prompts = ["The capital of France is", "1 2 3 4 5 6"]
    expected = [greedy(lm.model, load_tokenizer("smollm2"), p, 12, lm.writing.end_ids) for p in prompts]
    assert lm.generate(prompts, max_new_tokens=12, stop=()) == expected
    assert expected[0].startswith(" Paris")
