"""16-bit and quantised models: what deviates is measured, bounded and said."""

import importlib.util
import warnings

import pytest
import tiny
import torch

import icl
from icl.model import doctor
from icl.model.check import FP32_TOLERANCE, tolerance

PROMPTS = ["Review: a moving film.\nSentiment:", "Question: What is the capital of France?\nAnswer:", "x"]
LABELS = [[" positive", " negative", " business news"], [" Paris", " positive", " a town by the sea"], [" a", " b"]]
HALF = ("bfloat16", "float16")


def flat(lists):
    return [value for found in lists for value in found]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {name: tiny.save(root / name, name) for name in ("llama", "gpt2", "t5")}


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("dtype", HALF)
def test_the_deviation_is_measured_and_bounds_what_batches_do(folders, name, dtype):
    lm = icl.load_model(str(folders[name]), device="cpu", dtype=dtype)
    assert lm.dtype == dtype
    assert lm.examined.path != "single"
    assert 0 <= lm.examined.deviation <= tolerance(lm.model)
    assert tolerance(lm.model) > FP32_TOLERANCE
    exact = icl.load_model(str(folders[name]), device="cpu", dtype="float32")
    together = flat(lm.loglikelihoods(PROMPTS, LABELS))
    alone = flat(lm.loglikelihoods([p], [labels])[0] for p, labels in zip(PROMPTS, LABELS, strict=True))
    assert together == pytest.approx(alone, abs=1.0)
    assert together == pytest.approx(flat(exact.loglikelihoods(PROMPTS, LABELS)), rel=0.02, abs=1.0)
    assert together != flat(exact.loglikelihoods(PROMPTS, LABELS))
    assert len(lm.generate(PROMPTS, 5)) == 3


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_doctor_says_how_far_16_bits_are_from_32(folders, name):
    lines = doctor(str(folders[name]), device="cpu", dtype="bf16")
    [path] = [line for line in lines if line.startswith("path: ")]
    assert "largest deviation" in path
    [found] = [line for line in lines if line.startswith("precision: bfloat16 is up to ")]
    assert 0 < float(found.split("up to ")[1].split()[0]) < 5
    assert not any(line.startswith("precision: ") for line in doctor(str(folders[name]), device="cpu"))
    assert any("not quantised" in line for line in lines)


def quantised_folder(config, folder, out):
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=config, device_map={"": "cpu"})
        model.save_pretrained(out)
    tiny.tokenizer().save_pretrained(out)
    return model


def assert_quantised(lm, exact):
    assert lm.model.quantization_method is not None
    assert tolerance(lm.model) > FP32_TOLERANCE  # fp32 activations over coarse weights are judged as coarse
    found = flat(lm.loglikelihoods(PROMPTS, LABELS))
    assert all(value < 0 for value in found)
    assert found != pytest.approx(flat(exact.loglikelihoods(PROMPTS, LABELS)), abs=1e-6)
    assert len(lm.generate(PROMPTS, 4)) == 3


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_bitsandbytes_on_a_processor(folders, tmp_path, bits):
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    from transformers import BitsAndBytesConfig

    exact = icl.load_model(str(folders["llama"]), device="cpu")
    lm = icl.load_model(str(folders["llama"]), device="cpu", quantization=bits)
    assert_quantised(lm, exact)
    assert lm.fingerprint != exact.fingerprint
    assert icl.load_model(**lm.reference).loglikelihoods(PROMPTS, LABELS) == lm.loglikelihoods(PROMPTS, LABELS)
    config = BitsAndBytesConfig(load_in_8bit=True) if bits == "8bit" else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    quantised_folder(config, folders["llama"], tmp_path / "checkpoint")
    assert_quantised(icl.load_model(str(tmp_path / "checkpoint"), device="cpu"), exact)
    assert any("quantised (bitsandbytes)" in line for line in doctor(str(tmp_path / "checkpoint"), device="cpu"))


def test_a_torchao_checkpoint(folders, tmp_path):
    if importlib.util.find_spec("torchao") is None:
        pytest.skip("torchao is not installed")
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    made = quantised_folder(TorchAoConfig(Int8WeightOnlyConfig()), folders["llama"], tmp_path / "checkpoint")
    lm = icl.load_model(str(tmp_path / "checkpoint"), device="cpu")
    assert_quantised(lm, icl.load_model(str(folders["llama"]), device="cpu"))
    ids = torch.tensor([[3, 5, 8, 13]])
    with torch.no_grad():
        torch.testing.assert_close(lm.model(ids).logits, made(ids).logits)
