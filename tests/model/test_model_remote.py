"""A remote model gives what the same model gives on this machine; what a server cannot do is found out by what it does."""

import json

import pytest
import tiny
from openai_server import over, serve

from icl import load_model
from icl.errors import CostLimitError, IclError, InputError
from icl.model import Failed, RemoteModel
from icl.protocols import LanguageModel
from icl.values import LabelScores, Prompt

CONTEXTS = [
    "Review: a moving, quiet film about people.\nSentiment:",
    "Review: the plot is a mess.\nSentiment:",
    "numbers 0 1 2",
    "Message: where is my ord",
    "",
]
LABELS = [
    [" positive", " negative"],
    [" positive", " negative", " mixed words"],
    [" 3 4", " words", " 9"],
    ["er? Intent: delivery", "er", "ner"],
    ["Review", "Article"],
]


@pytest.fixture(scope="module")
def lm():
    return tiny.lm("llama", "chatml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("model"), "llama", "chatml")


def load(served, **options) -> RemoteModel:
    model = load_model(f"{served.url}#tiny", **options)
    assert isinstance(model, RemoteModel)
    return model


def with_capabilities(model: RemoteModel, probed: RemoteModel) -> RemoteModel:
    """The same server was probed before."""
    vars(model)["capabilities"] = probed.capabilities
    return model


def same(remote: LabelScores, local: LabelScores) -> None:
    assert remote.candidates == local.candidates
    assert remote.sums == pytest.approx(local.sums, abs=1e-4)
    assert remote.first == pytest.approx(local.first, abs=1e-4)
    for name in ("n_tokens", "n_bytes", "n_chars", "start", "straddle", "conditioned", "first_of"):
        assert getattr(remote, name) == getattr(local, name), name


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("style", ["echo", "prompt_logprobs"])
def test_scores_are_those_of_the_same_model_here(bos, style, tmp_path):
    lm = tiny.lm("llama", bos=bos)
    tiny.model("llama").save_pretrained(tmp_path)
    tiny.tokenizer(bos=bos).save_pretrained(tmp_path)
    options = {"ignores": frozenset({"echo"}), "own_prompt_logprobs": True} if style == "prompt_logprobs" else {}
    with serve(over(lm, **options).respond) as served:
        remote = load(served, tokenizer=tmp_path)
        assert remote.capabilities.echo == style
        assert remote.capabilities.token_ids
        assert remote.estimator == "loglikelihood"
        for found, local in zip(remote.scores(CONTEXTS, LABELS), lm.score(CONTEXTS, LABELS), strict=True):
            same(found, local)


def test_scores_without_a_tokenizer_start_at_the_server_s_own_borders(lm):
    with serve(over(lm).respond) as served:
        remote = load(served)
        found = remote.scores(CONTEXTS, LABELS)
    for one, local in zip(found[:-1], lm.score(CONTEXTS[:-1], LABELS[:-1]), strict=True):
        same(one, local)
    assert isinstance(found[-1], Failed)
    assert "tokenizer=" in found[-1].why


def test_chat_prompts_are_scored_by_their_token_ids(lm, folder):
    messages = ({"role": "user", "content": "Hello there!"},)
    encoded = lm.codec.chat(messages)
    prompt = Prompt(encoded.text, messages, encoded.ids, tail=encoded.tail, n_head=encoded.n_head, format="chat")
    with serve(over(lm).respond) as served:
        (found,) = load(served, tokenizer=folder).scores([prompt], [["Hello", "words", "Paris"]])
        same(found, lm.score([prompt], [["Hello", "words", "Paris"]])[0])
        (without,) = load(served).scores([Prompt("", messages, format="chat")], [["Hello", "words"]])
    assert isinstance(without, Failed)
    assert "tokenizer=" in without.why


def test_texts_are_those_of_the_same_model_here(lm, folder):
    messages = ({"role": "user", "content": "Hello there!"},)
    encoded = lm.codec.chat(messages)
    chat = Prompt(encoded.text, messages, encoded.ids, tail=encoded.tail, n_head=encoded.n_head, format="chat")
    prompts = [*CONTEXTS[:3], chat]
    with serve(over(lm).respond) as served:
        for options in ({}, {"tokenizer": folder}):
            remote = load(served, **options)
            found = remote.generate(prompts, max_new_tokens=12, stop=("e", "zz"))
            assert found == lm.generate(prompts, max_new_tokens=12, stop=("e", "zz"))
            paths = [path for path, body in served.bodies if body.get("max_tokens") == 12]
            assert paths.count("/v1/chat/completions") == 1 + (options != {})


def test_samples_are_repeatable_and_of_the_number_asked_for(lm):
    with serve(over(lm).respond) as served, serve(over(lm, ignores=frozenset({"n"})).respond) as single:
        remote = load(served)
        first = remote.sample(CONTEXTS[:3], n=4, temperature=1.0, seed=5, max_new_tokens=8)
        assert first == remote.sample(CONTEXTS[:3], n=4, temperature=1.0, seed=5, max_new_tokens=8)
        assert first != remote.sample(CONTEXTS[:3], n=4, temperature=1.0, seed=6, max_new_tokens=8)
        assert first[::-1] == remote.sample(CONTEXTS[:3][::-1], n=4, temperature=1.0, seed=5, max_new_tokens=8)
        one_by_one = load(single)
        assert not one_by_one.capabilities.n
        texts = one_by_one.sample(CONTEXTS[:3], n=4, temperature=1.0, seed=5, max_new_tokens=8)
    assert [len(each) for each in texts] == [4, 4, 4]
    assert all(len(set(each)) > 1 for each in texts)


def test_a_greedy_sample_is_asked_for_once(lm):
    with serve(over(lm).respond) as served:
        remote = load(served)
        _ = remote.capabilities
        before = len(served.bodies)
        (texts,) = remote.sample(["numbers 0 1"], n=5, temperature=0, max_new_tokens=4)
        assert len(served.bodies) == before + 1
    assert texts == lm.generate(["numbers 0 1"], max_new_tokens=4) * 5


LIES = {
    "echo": ("echo", None),
    "logprobs": ("echo", None),
    "n": ("n", False),
    "stop": ("stop", False),
    "seed": ("seed", False),
    "temperature": ("repeatable", False),
}


@pytest.mark.parametrize("ignored", sorted(LIES))
def test_what_a_server_takes_and_ignores_is_found_out(ignored, lm):
    name, expected = LIES[ignored]
    with serve(over(lm, ignores=frozenset({ignored})).respond) as served:
        found = load(served).capabilities
    assert getattr(found, name) == expected
    honest = {"completions", "chat", "lists", "n", "stop", "seed", "temperature", "repeatable", "usage"} - {name}
    honest -= {"stop"} if ignored == "temperature" else set()  # texts that always differ show nothing about their ends
    if ignored in ("echo", "logprobs"):
        honest -= {"lists"}
        assert found.echo_why
        assert found.estimator == ("first_token" if ignored == "echo" else "generation")
    assert all(getattr(found, each) for each in honest), found


def test_a_faithful_server_is_found_to_be_one(lm, folder):
    with serve(over(lm).respond) as served:
        found = load(served, tokenizer=folder).capabilities
        lines = found.lines()
    assert found.estimator == "loglikelihood"
    assert (found.echo, found.echo_tokens, found.top_k, found.chat_top_k) == ("echo", 0, 20, 20)
    assert all(getattr(found, name) for name in ("completions", "chat", "lists", "token_ids", "n", "stop", "seed", "temperature", "usage"))
    assert any("log-probabilities of a prompt: yes" in line for line in lines)


def liar(lm, value):
    """A server whose echoed log-probabilities are made up."""
    honest = over(lm)

    def respond(path, body):
        data = honest.respond(path, body)
        for choice in data.get("choices", ()):
            if (body or {}).get("echo"):
                tokens = choice["logprobs"]["tokens"]
                choice["logprobs"]["token_logprobs"] = [None, *(value(token) for token in tokens[1:])]
        return data

    return respond


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (lambda token: 0.0, "the same for every token"),
        (lambda token: -1.5, "the same for every token"),
        (lambda token: -float(len(token)), "do not depend on what stands before"),
        (lambda token: None, "no log-probability"),
        (lambda token: 0.7, "is no log-probability"),
    ],
)
def test_made_up_log_probabilities_are_not_taken(value, why, lm):
    with serve(liar(lm, value)) as served:
        remote = load(served)
        assert remote.capabilities.echo is None
        assert why in remote.capabilities.echo_why
        assert remote.estimator == "first_token"


def test_without_log_probabilities_labels_are_not_scored(lm):
    with serve(over(lm, ignores=frozenset({"logprobs"})).respond) as served:
        remote = load(served)
        assert remote.estimator == "generation"
        with pytest.raises(InputError, match="gives no log-probabilities"):
            remote.score(CONTEXTS, LABELS)
        with pytest.raises(InputError, match="gives no log-probabilities of a prompt"):
            _ = with_capabilities(load(served, estimator="loglikelihood"), remote).estimator


def test_first_tokens_are_scored_only_where_labels_can_be_told_apart(lm):
    import torch

    context = CONTEXTS[0]
    with torch.inference_mode():
        row = lm.model(input_ids=torch.tensor([lm.codec.plain(context).ids])).logits[0, -1].log_softmax(-1)
    ranked = [(lm.codec.tokens.decode([int(i)]), float(row[i])) for i in row.argsort(descending=True)[:20]]
    (a, value_a), (b, value_b) = [(text, value) for text, value in ranked if text.strip().isascii() and text.strip().isalnum()][:2]
    assert not a.startswith(b)
    assert not b.startswith(a)
    with serve(over(lm, ignores=frozenset({"echo"})).respond) as served:
        remote = load(served)
        assert remote.estimator == "first_token"
        labels = [[a + "xyz", b], [a + "x", a + "y"], [a, "\u4e2d"]]
        found, clash, missing = remote.scores([context] * 3, labels)
        (by_chat,) = remote.scores([Prompt("", ({"role": "user", "content": context},), format="chat")], [["\u4e2d", "\u4e2e"]])
    assert isinstance(found, LabelScores)
    assert found.n_tokens == (1, 1)
    assert found.sums == pytest.approx((value_a, value_b), abs=1e-4)
    assert isinstance(clash, Failed)
    assert "same token" in clash.why
    assert isinstance(missing, Failed)
    assert "is not among" in missing.why
    assert isinstance(by_chat, Failed)


def test_an_endpoint_that_only_speaks_chat_is_spoken_to_in_chat(lm):
    with serve(over(lm, completions=False).respond) as served:
        remote = load(served)
        assert not remote.capabilities.completions
        assert remote.codec.has_chat
        assert remote.estimator == "first_token"
        (text,) = remote.generate(["Hello there!"], max_new_tokens=6, stop=())
    messages = [{"role": "user", "content": "Hello there!"}]
    assert text == lm.generate([Prompt("", tuple(messages), format="chat")], max_new_tokens=6, stop=())[0]


def test_a_wrong_tokenizer_is_found_out(lm, tmp_path):
    tiny.sentencepiece_like("prepend").save_pretrained(tmp_path)
    with serve(over(lm).respond) as served, pytest.raises(InputError, match="not that of"):
        _ = load(served, tokenizer=tmp_path).capabilities


def test_one_prompt_a_request_where_a_server_takes_no_lists(lm):
    with serve(over(lm, lists=False).respond) as served:
        remote = load(served)
        assert not remote.capabilities.lists
        same(remote.scores(CONTEXTS[:1], LABELS[:1])[0], lm.score(CONTEXTS[:1], LABELS[:1])[0])


def test_it_is_a_language_model_and_says_where_it_comes_from(lm, folder):
    with serve(over(lm).respond) as served:
        remote = load(served, tokenizer=folder, concurrency=3)
        assert isinstance(remote, LanguageModel)
        assert remote.name == f"{served.url}#tiny"
        assert (remote.device, remote.dtype, remote.window) == ("127.0.0.1", "remote", 512)
        again = load_model(**json.loads(json.dumps(remote.reference)))
        assert again.fingerprint == remote.fingerprint
        assert again.options.concurrency == 3
        assert load(served, tokenizer=folder, extra_body={"top_p": 0.9}).fingerprint != remote.fingerprint
        assert remote.count_tokens("Hello there!") == lm.count_tokens("Hello there!")
        assert load(served).counts_are_estimates


def test_a_prompt_that_is_too_long_fails_alone(lm, folder):
    with serve(over(lm).respond) as served:
        for options, why in (({"tokenizer": folder}, "reads 512"), ({}, "maximum context length")):
            remote = load(served, **options)
            long = "words and " * 400
            good, bad = remote.scores([CONTEXTS[0], long], [LABELS[0], LABELS[0]])
            assert isinstance(good, LabelScores)
            assert isinstance(bad, Failed)
            assert why in bad.why
            with pytest.raises(IclError, match=r"1 of 2 items failed\n  item 1: "):
                remote.score([CONTEXTS[0], long], [LABELS[0], LABELS[0]])
            assert remote.answers([long])[0].texts == ()


def test_extra_fields_are_sent_and_null_takes_one_out(lm):
    with serve(over(lm).respond) as served:
        remote = load(served, extra_body={"chat_template_kwargs": {"enable_thinking": False}, "temperature": None})
        remote.generate(["Hello there!"], max_new_tokens=2)
        _, body = served.bodies[-1]
        assert body["chat_template_kwargs"] == {"enable_thinking": False}
        assert "temperature" not in body
        with pytest.raises(InputError, match="must not set 'n'"):
            load(served, extra_body={"n": 3})


# ── money ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tokens_and_money_are_planned_and_counted(lm, folder):
    with serve(over(lm).respond) as served:
        remote = load(served, tokenizer=folder, prices={"input": 2.0, "output": 10.0, "cached": 1.0})
        _ = remote.capabilities
        before = remote.usage
        planned = remote.plan(CONTEXTS[:2], LABELS[:2])
        remote.scores(CONTEXTS[:2], LABELS[:2])
        after = remote.usage
    n = after.input_tokens - before.input_tokens
    assert planned.computed == planned.naive == n
    cached = after.cached_tokens - before.cached_tokens
    assert cached > 0
    assert after.output_tokens == before.output_tokens
    assert after.cost - before.cost == pytest.approx((2.0 * (n - cached) + cached) / 1e6)
    assert remote.cost_of(planned, 50) == pytest.approx((2.0 * n + 10.0 * 50) / 1e6)


def test_the_cost_limit_stops_before_it_is_passed_and_keeps_what_is_done(lm, folder):
    with serve(over(lm).respond) as served:
        remote = load(served, tokenizer=folder, prices={"input": 0, "output": 1000.0}, concurrency=2)
        _ = remote.capabilities
        remote.max_cost = remote.usage.cost + 0.025  # 25 tokens
        with pytest.raises(CostLimitError, match="finished results are kept") as stopped:
            remote.answers(["numbers 0 1", *CONTEXTS[:4]] * 2, max_new_tokens=10, stop=())
        assert remote.usage.cost <= remote.max_cost
        done = [answer for answer in stopped.value.results if answer is not None]
        assert len(stopped.value.results) == 10
        assert 2 <= len(done) < 10
        assert all(answer.why is None for answer in done)
        remote.max_cost = None
        assert all(answer.why is None for answer in remote.answers(CONTEXTS[:4], max_new_tokens=10))
    with pytest.raises(InputError, match="needs prices"), serve(over(lm).respond) as served:
        load(served).max_cost = 1.0
