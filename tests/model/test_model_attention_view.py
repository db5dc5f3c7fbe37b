"""Where the answering position looks: against softmax(QKᵀ/√d_k) written out over the model's own projections, and eager transformers."""

import contextlib
import math

import numpy as np
import pytest
import tiny

from icl.errors import InputError
from icl.model.attention_view import answer_attention, keeping_weights, summed
from icl.model.load import load_model
from icl.values import Prompt

TEXT = "Review: a moving, quiet film about people.\nSentiment: positive\n\nReview: the jokes are old.\nSentiment:"
ANSWERS = [" positive", " negative"]


def ids_of(lm, context=TEXT):
    return lm.codec.chat(context.messages).ids if isinstance(context, Prompt) else lm.codec.plain(context).ids


def llama_by_hand(model, ids, window=None):
    """(layers, heads, n) of the last position, from the weights alone: rotary positions, grouped heads, a causal softmax."""
    import torch

    config = model.config
    d, n, heads = config.hidden_size // config.num_attention_heads, len(ids), config.num_attention_heads
    angle = torch.arange(n)[:, None] / config.rope_parameters["rope_theta"] ** (torch.arange(0, d, 2) / d)
    cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)

    def turned(x):
        a, b = x[..., : d // 2], x[..., d // 2 :]
        return x * cos + torch.cat([-b, a], -1) * sin

    result = []
    with torch.no_grad():
        hidden = model.model.embed_tokens(torch.tensor([ids]))[0]
        for layer in model.model.layers:
            x = layer.input_layernorm(hidden)
            q = turned(layer.self_attn.q_proj(x).view(n, -1, d).transpose(0, 1))
            k = turned(layer.self_attn.k_proj(x).view(n, -1, d).transpose(0, 1)).repeat_interleave(heads // config.num_key_value_heads, 0)
            v = layer.self_attn.v_proj(x).view(n, -1, d).transpose(0, 1).repeat_interleave(heads // config.num_key_value_heads, 0)
            scores = q @ k.transpose(1, 2) / math.sqrt(d)
            places = torch.arange(n)
            hidden_from = places[None] > places[:, None]
            if window is not None:
                hidden_from |= places[:, None] - places[None] >= window
            weights = scores.masked_fill(hidden_from, -math.inf).softmax(-1)
            result.append(weights[:, -1].numpy())
            hidden = hidden + layer.self_attn.o_proj((weights @ v).transpose(0, 1).reshape(n, -1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return np.stack(result)


@pytest.mark.parametrize(("name", "window"), [("llama", None), ("mistral", 16)])
def test_the_weights_are_the_softmax_written_out(name, window):
    lm = tiny.lm(name)
    got = answer_attention(lm, Prompt(TEXT, (), tail=TEXT), ANSWERS)
    want = llama_by_hand(tiny.model(name), ids_of(lm), window)
    assert got.shape == want.shape == (2, 4, len(ids_of(lm)))
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(got.sum(axis=-1), 1, atol=1e-5)


def sdpa_by_hand(model, ids, monkeypatch):
    """The same out of what a plain pass gives to the fused attention: queries, keys, mask."""
    import torch

    plain, result = torch.nn.functional.scaled_dot_product_attention, []

    def kept(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, **more):
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        result.append(scores.softmax(-1)[0, :, -1].numpy())
        return plain(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", kept)
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), use_cache=False)
    monkeypatch.undo()
    return np.stack(result)


def test_weights_that_a_model_does_not_answer_by_are_refused(monkeypatch):
    """Falcon's over a whole prompt are not causal, so they are no measure; with ALiBi its plain attention adds the bias twice."""
    lm, prompt = tiny.lm("falcon"), Prompt(TEXT, (), tail=TEXT)
    want = sdpa_by_hand(tiny.model("falcon"), ids_of(lm), monkeypatch)
    np.testing.assert_allclose(answer_attention(lm, prompt, ANSWERS), want, atol=1e-5)
    lm = tiny.lm("falcon-alibi")
    want = sdpa_by_hand(tiny.model("falcon-alibi"), ids_of(lm), monkeypatch)
    try:
        got = answer_attention(lm, prompt, ANSWERS)
    except InputError as error:
        assert "it answers otherwise" in str(error)  # noqa: PT017
    else:
        np.testing.assert_allclose(got, want, atol=1e-5)


CAUSAL = [
    name for name in (*tiny.REQUIRED, *tiny.FURTHER, *tiny.BREADTH) if name not in ("mamba", "recurrent-gemma", "falcon", "falcon-alibi")
]
SLOWER = ("qwen3-moe", "deepseek-v3", *tiny.HYBRID, "stablelm", "phi3", "granite", "starcoder2", "cohere2", "olmo2")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOWER else n for n in CAUSAL])
def test_every_architecture_as_one_eager_pass_gives_them(name):
    """One pass over the whole prompt, on a copy of the model that was made with that attention."""
    import copy

    import torch

    lm = tiny.lm(name)
    before = tiny.model(name).config._attn_implementation
    prompt = Prompt(TEXT, (), tail=TEXT)
    got = answer_attention(lm, prompt, ANSWERS)
    plain = copy.deepcopy(tiny.model(name))
    plain.set_attn_implementation("eager") if plain._can_set_attn_implementation() else None
    with torch.no_grad():
        found = plain(input_ids=torch.tensor([ids_of(lm)]), output_attentions=True, use_cache=False).attentions
    want = np.stack([layer[0, :, -1].numpy() for layer in found if layer is not None])
    np.testing.assert_allclose(got, want, atol=1e-5)
    if name == "gpt-oss":  # its heads may look at a sink, which is no token
        assert (got.sum(axis=-1) < 1).all()
    else:
        np.testing.assert_allclose(got.sum(axis=-1), 1, atol=1e-5)
    assert tiny.model(name).config._attn_implementation == before
    # Scores are as before: the model was left as it is.
    assert lm.loglikelihoods([prompt], [ANSWERS]) == tiny.lm(name).loglikelihoods([prompt], [ANSWERS])


def test_a_token_across_the_border_is_where_the_answer_begins():
    """The position is the one before the first token that is scored."""
    lm = tiny.lm("llama")
    context = Prompt("Sentiment: posi", (), tail="Sentiment: posi")
    answers = ["tive", "x"]
    start = lm.score([context], [answers])[0].start
    assert start < len(ids_of(lm, context.text))  # the tokenizer joins "posi" and "tive"
    assert answer_attention(lm, context, answers).shape[-1] == start


def test_an_empty_prompt_and_the_configuration_after_an_error():
    lm = tiny.lm("llama")
    np.testing.assert_allclose(answer_attention(lm, Prompt("", ()), ANSWERS), 1, atol=1e-6)
    model = tiny.model("llama")
    before = model.config._attn_implementation
    with contextlib.suppress(ZeroDivisionError), keeping_weights(model):
        assert model.config._attn_implementation == "eager"
        raise ZeroDivisionError
    assert model.config._attn_implementation == before


def test_models_without_weights_say_so(tmp_path):
    prompt = Prompt(TEXT, (), tail=TEXT)
    for name in ("mamba", "t5", "recurrent-gemma"):
        with pytest.raises(InputError, match="gives no attention weights"):
            answer_attention(tiny.lm(name), prompt, ANSWERS)
    with pytest.raises(InputError, match="an approximation"):
        answer_attention(tiny.lm("llama", attention="sink:4+8"), prompt, ANSWERS)
    with pytest.raises(InputError, match="it is elsewhere"):
        answer_attention(object(), prompt, ANSWERS)


def test_sums_over_parts():
    weights = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    got = summed(weights, [1, 3])
    np.testing.assert_array_equal(got[..., 0], weights[..., 1] + weights[..., 2])
    np.testing.assert_array_equal(got[..., 1], weights[..., 3])
    assert summed(weights, []).shape == (2, 3, 0)
    np.testing.assert_array_equal(summed(weights, [0, 0, 9])[..., 0], 0)
    np.testing.assert_allclose(summed(weights, [0, 2, 9]).sum(axis=-1), weights.sum(axis=-1))


def test_a_model_from_a_folder(tmp_path):
    lm = load_model(str(tiny.save(tmp_path / "m", "gpt2")), device="cpu", dtype="float32")
    got = answer_attention(lm, Prompt(TEXT, (), tail=TEXT), ANSWERS)
    np.testing.assert_allclose(got, answer_attention(tiny.lm("gpt2"), Prompt(TEXT, (), tail=TEXT), ANSWERS), atol=1e-5)
