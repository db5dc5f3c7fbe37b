"""Where models come from, and what is said when they do not come."""

import json
import subprocess
import sys
import warnings

import pytest
import tiny

import icl
from icl.errors import InputError, MissingExtraError
from icl.model import load_codec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("tiny") / "llama", chat="chatml")


def test_a_folder(folder):
    lm = icl.load_model(str(folder), device="cpu")
    assert (lm.dtype, lm.device, lm.window) == ("float32", "cpu", 512)
    again = icl.load_model(**lm.reference)
    assert again.fingerprint == lm.fingerprint
    assert again.loglikelihoods(["a"], [[" b", " c"]]) == lm.loglikelihoods(["a"], [[" b", " c"]])
    assert lm.loglikelihoods(["a"], [[" b"]])[0][0] == pytest.approx(
        tiny.lm("llama", "chatml").loglikelihoods(["a"], [[" b"]])[0][0], abs=1e-5
    )


def test_a_cap_on_attention_is_kept(tmp_path):
    """Gemma 2 caps the scores of its attention, which the attention that some releases choose for it leaves out."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tiny.save(tmp_path / "gemma2", "gemma2")
    lm = icl.load_model(str(folder), device="cpu")
    ids = torch.tensor([list(range(12, 40))])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")(input_ids=ids).logits
        torch.testing.assert_close(lm.model(input_ids=ids).logits, expected, rtol=0, atol=1e-4)


def test_dtype_is_named_and_part_of_the_fingerprint(folder):
    lm, half = icl.load_model(str(folder), device="cpu"), icl.load_model(str(folder), device="cpu", dtype="bf16")
    assert half.dtype == "bfloat16"
    assert half.fingerprint != lm.fingerprint
    assert half.examined.path == "tree"
    assert abs(half.loglikelihoods(["a b c"], [[" d"]])[0][0] - lm.loglikelihoods(["a b c"], [[" d"]])[0][0]) < 0.2


def test_an_adapter_changes_scores_and_fingerprint(folder, tmp_path):
    from copy import deepcopy

    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT uses a name that transformers is about to drop
        tuned = get_peft_model(deepcopy(tiny.model("llama")), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
        tuned.save_pretrained(tmp_path / "adapter")
    plain, lm = icl.load_model(str(folder), device="cpu"), icl.load_model(str(folder), device="cpu", adapter=tmp_path / "adapter")
    assert lm.fingerprint != plain.fingerprint
    assert lm.loglikelihoods(["a b c"], [[" d"]]) != plain.loglikelihoods(["a b c"], [[" d"]])
    assert icl.load_model(**lm.reference).fingerprint == lm.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "./no/such/model"}, "the model folder './no/such/model' does not exist"),
        ({"name": "missing.gguf"}, "the model file 'missing.gguf' does not exist"),
        ({"name": "smolm2"}, "Did you mean 'smollm2'?"),
        ({"name": "org/no-such-model"}, "there is no model 'org/no-such-model'"),
        ({"name": "minilm"}, "is a sentence encoder"),
        ({"name": "smollm2", "dtype": "float23"}, "Did you mean 'float32'"),
        ({"name": "smollm2", "quantization": "3bit"}, "is no quantisation"),
        ({"name": "smollm2", "revision": "main"}, "has no revisions"),
        ({"name": "smollm2", "device": "cpu,kuda"}, "'kuda' is no device here"),
    ],
)
def test_what_cannot_be_loaded_says_what_to_do(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        icl.load_model(**arguments)
    assert all(problem.fix for problem in caught.value.problems)


def test_a_missing_folder_shows_its_neighbours(folder):
    with pytest.raises(InputError, match="holds: llama"):
        icl.load_model(str(folder.parent / "lama"))


def test_options_of_a_real_folder(folder, tmp_path):
    for options, message in [
        ({"adapter": tmp_path}, "no adapter folder"),
        ({"device": "kuda"}, "is no device"),
        ({"memory": "much"}, "is no amount of memory"),
        ({"max_batch": 0}, "max_batch is 0"),
    ]:
        with pytest.raises(InputError, match=message):
            icl.load_model(str(folder), **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no config.json \(found: nothing\)"):
        icl.load_model(str(tmp_path / "empty"))


def test_quantisation_needs_its_extra(folder):
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is not None:
        pytest.skip("bitsandbytes is installed")
    with pytest.raises(MissingExtraError, match="bitsandbytes"):
        icl.load_model(str(folder), quantization="8bit")


def write_gguf(path):
    """The tiny Llama as llama.cpp keeps it: blocks of 8 bits, rotary halves interleaved, the tokenizer inside."""
    import json

    import gguf
    import numpy as np

    model, tokenizer = tiny.model("llama"), tiny.tokenizer()
    config, merges = model.config, json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    out = gguf.GGUFWriter(str(path), "llama")
    for key, value in (
        ("context_length", 512), ("embedding_length", 32), ("block_count", 2), ("feed_forward_length", 48), ("head_count", 4),
        ("head_count_kv", 2), ("layer_norm_rms_eps", config.rms_norm_eps), ("rope_freq_base", 10000.0), ("vocab_size", config.vocab_size),
        ("tokenizer_model", "gpt2"), ("token_list", [tokenizer.convert_ids_to_tokens(i) or f"<{i}>" for i in range(config.vocab_size)]),
        ("token_types", [1] * config.vocab_size), ("token_merges", [" ".join(pair) for pair in merges]), ("bos_token_id", 0),
        ("eos_token_id", 1),
    ):  # fmt: skip
        getattr(out, f"add_{key}")(value)
    names, q8 = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2), gguf.GGMLQuantizationType.Q8_0
    for name, tensor in model.state_dict().items():
        base, suffix = name.rsplit(".", 1)
        values = tensor.numpy()
        for part, heads in (("q_proj", 4), ("k_proj", 2)):
            if base.endswith(part):
                values = values.reshape(heads, 2, -1, 32).swapaxes(1, 2).reshape(values.shape)
        if values.ndim == 2 and values.shape[1] % 32 == 0:
            out.add_tensor(f"{names.get_name(base)}.{suffix}", gguf.quants.quantize(values, q8), raw_dtype=q8)
        else:
            out.add_tensor(f"{names.get_name(base)}.{suffix}", values.astype(np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def test_a_gguf_file(tmp_path):
    write_gguf(tmp_path / "tiny.Q8_0.gguf")
    lm, plain = icl.load_model(str(tmp_path / "tiny.Q8_0.gguf"), device="cpu"), tiny.lm("llama")
    assert lm.examined.deviation <= 1e-4  # read into fp32, it is as exact as any fp32 model
    assert lm.examined.path == plain.examined.path
    assert lm.codec.plain("Review: a film").ids == plain.codec.plain("Review: a film").ids
    found, expected = (
        lm.loglikelihoods(["Review: a film"], [[" good", " bad"]]),
        plain.loglikelihoods(["Review: a film"], [[" good", " bad"]]),
    )
    assert found[0] == pytest.approx(expected[0], rel=0.02)
    assert found != expected
    assert icl.load_model(**lm.reference).fingerprint == lm.fingerprint


def test_a_broken_folder_is_a_clear_error(folder, tmp_path):
    import shutil

    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be loaded"):
        icl.load_model(str(broken))


def test_an_encoder_is_no_language_model(tmp_path):
    """transformers gives it an output layer, with random weights if it has to, and lets each word see those behind it."""
    with pytest.raises(InputError, match=r"is an encoder \(bert\)"):
        icl.load_model(str(tiny.save_bert(tmp_path / "bert", ["good", "bad"])))
    config = tmp_path / "bert" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "is_decoder": True}))
    assert icl.load_model(str(tmp_path / "bert")).window == 64  # one that was trained to write


def test_a_codec_without_the_language_model_and_without_torch(folder):
    code = (
        f"import sys; from icl.model import load_codec; c = load_codec({str(folder)!r}); "
        "c.chat([{'role': 'user', 'content': 'hi'}]); print(c.plain('Review: good').ids, 'torch' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tiny.Path(__file__).parents[2]
    ).stdout
    from icl.model.codec import TokenizerCodec
    from icl.model.tokenizer import from_transformers

    expected = TokenizerCodec(from_transformers(tiny.tokenizer("chatml"))).plain("Review: good").ids
    assert out.strip() == f"{expected} False"


def test_the_light_tokenizer_is_the_same_as_transformers(folder):
    from icl.model.codec import TokenizerCodec
    from icl.model.load import load_tokenizer
    from icl.model.tokenizer import from_transformers

    light, full = load_codec(folder), TokenizerCodec(from_transformers(load_tokenizer(str(folder))))
    dialogue = [
        {"role": "user", "content": "Hello <|im_end|> there"},
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "y"},
    ]
    for turns in (dialogue, dialogue[2:]):
        assert light.chat(turns) == full.chat(turns)
    assert light.plain("Review: <s> good") == full.plain("Review: <s> good")
    assert light.tokens.controls == full.tokens.controls
    assert (light.tokens.bos, light.tokens.eos, light.tokens.prefix) == (full.tokens.bos, full.tokens.eos, full.tokens.prefix)


def test_load_codec_of_a_function():
    assert load_codec(lambda text: len(text)).count("abc") == 3


def test_doctor_names_the_path(folder):
    from icl.model import doctor

    lines = doctor(str(folder))
    assert any("python" in line for line in lines)
    assert any(line.startswith("path: tree") for line in lines)
    assert any(line.startswith("determinism: repeated bit-identical") for line in lines)
    assert any("cpu" in line for line in doctor())


@pytest.mark.smollm2
def test_the_catalogue_model_and_its_gguf(tmp_path):
    lm = icl.load_model("smollm2", device="cpu")
    assert (lm.window, lm.dtype, lm.codec.tokens.prefix) == (8192, "float32", ())
    assert lm.examined.path == "tree"
    assert load_codec("smollm2").plain("Hello world").ids == lm.codec.plain("Hello world").ids
    assert len(lm.codec.plain("Hello world").ids) == 2
