"""vLLM's and llama.cpp's servers on a local address, where an environment that has them is named (see `real_servers`)."""

import os

import pytest
import real_servers

from icl import load_model
from icl.model import RemoteModel
from icl.values import LabelScores, Prompt
from icl.weights import fetch

pytestmark = [pytest.mark.slow, pytest.mark.smollm2]
CONTEXTS = ["The capital of France is", "Review: a moving, quiet film.\nSentiment:", "2 + 2 ="]
LABELS = [[" Paris", " London, England"], [" positive", " negative"], [" 4", " four", " 5"]]
QUESTION = Prompt("", ({"role": "user", "content": "What is the capital of France? Answer in one word."},), format="chat")


def python_of(variable: str) -> str:
    found = os.environ.get(variable)
    if not found:
        pytest.skip(f"{variable} names no environment")
    return found


@pytest.fixture(scope="module")
def vllm(tmp_path_factory):
    port = real_servers.free_port()
    command = real_servers.vllm(python_of("ICL_VLLM_PYTHON"), str(fetch("smollm2")), port)
    with real_servers.running(command, port, tmp_path_factory.mktemp("vllm") / "log.txt") as base:
        yield base


@pytest.fixture(scope="module")
def llamacpp(tmp_path_factory):
    port = real_servers.free_port()
    command = real_servers.llamacpp(python_of("ICL_LLAMACPP_PYTHON"), python_of("ICL_LLAMACPP_GGUF"), port)
    with real_servers.running(command, port, tmp_path_factory.mktemp("llamacpp") / "log.txt") as base:
        yield base


def load(base: str, **options) -> RemoteModel:
    model = load_model(f"{base}#smollm2", **options)
    assert isinstance(model, RemoteModel)
    return model


@pytest.mark.parametrize("options", [{}, {"tokenizer": "smollm2"}])
def test_vllm_gives_the_log_likelihoods_of_the_model_here(vllm, options):
    remote, local = load(vllm, **options), load_model("smollm2")
    assert remote.estimator == "loglikelihood"
    assert remote.capabilities.token_ids == bool(options)
    found = remote.scores(CONTEXTS, LABELS)
    for one, own in zip(found, local.score(CONTEXTS, LABELS), strict=True):
        assert isinstance(one, LabelScores)
        assert one.sums == pytest.approx(own.sums, abs=1e-3)  # fp32 on both sides, other kernels
        assert (one.n_tokens, one.start, one.straddle) == (own.n_tokens, own.start, own.straddle)


def test_vllm_writes_what_the_model_here_writes(vllm):
    remote, local = load(vllm, tokenizer="smollm2"), load_model("smollm2")
    assert remote.generate(CONTEXTS, max_new_tokens=12) == local.generate(CONTEXTS, max_new_tokens=12)
    acts = remote.capabilities
    assert (acts.n, acts.stop, acts.seed, acts.chat, acts.usage) == (True,) * 5
    first = remote.sample(CONTEXTS, n=3, temperature=1.0, seed=1, max_new_tokens=8)
    assert first == remote.sample(CONTEXTS, n=3, temperature=1.0, seed=1, max_new_tokens=8)
    assert all(len(texts) == 3 for texts in first)


def test_llamacpp_is_known_to_give_no_log_probabilities_of_a_prompt(llamacpp):
    remote = load(llamacpp)
    found = remote.capabilities
    assert found.echo is None
    assert found.echo_why
    assert remote.estimator == "first_token"
    assert found.top_k == 20
    (scores,) = remote.scores(["The capital of France is"], [[" Paris", " the"]])
    assert isinstance(scores, LabelScores)
    assert all(value < 0 for value in scores.sums)


def test_llamacpp_writes_and_samples(llamacpp):
    remote = load(llamacpp)
    plain, chat = remote.answers(["The capital of France is", QUESTION], max_new_tokens=10)
    assert "Paris" in plain.texts[0]
    assert chat.texts[0]
    (texts,) = remote.sample(["Once upon a time"], n=3, temperature=1.0, seed=1, max_new_tokens=8)
    assert len(texts) == 3
    assert remote.usage.input_tokens > 0
