"""Several copies of a model give what one gives, in order; a model laid over several places gives what it gives in one."""

import threading
from copy import deepcopy

import pytest
import tiny

import icl
from icl.errors import InputError
from icl.model import Replicas, TorchModel
from icl.model.replicas import devices

SHARED = "Article: shares fell on Monday as oil prices rose, and the team won the cup after extra time.\nTopic: business\n\n" * 2
PROMPTS = [f"{SHARED}Article: number {i} of them.\nTopic:" if i % 2 else f"Review {i}: a film.\nSentiment:" for i in range(13)]
LABELS = [[" positive", " negative", " business news"][: 1 + i % 3] for i in range(13)]


def replicas(n=2, name="llama"):
    """Copies with weights of their own: threads must not share a module."""
    return Replicas([TorchModel(deepcopy(tiny.model(name)), tiny.tokenizer(), name=f"tiny-{name}") for _ in range(n)])


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_scores_are_those_of_one_model_in_order(n):
    one, spread = tiny.lm("llama"), replicas(n)
    expected, found = one.score(PROMPTS, LABELS), spread.score(PROMPTS, LABELS)
    assert [s.candidates for s in found] == [tuple(labels) for labels in LABELS]
    assert [s.n_tokens for s in found] == [s.n_tokens for s in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.sums == pytest.approx(b.sums, abs=1e-4)
    assert spread.loglikelihoods(PROMPTS, LABELS) == [list(s.sums) for s in found]
    assert spread.fingerprint == one.fingerprint
    assert (spread.window, spread.dtype, spread.estimator) == (one.window, one.dtype, one.estimator)
    assert spread.score([], []) == []


def test_every_replica_works_in_a_thread_of_its_own_and_shared_beginnings_stay_together():
    spread, seen = replicas(2), {}
    for lm in spread.models:
        real = lm.score

        def noted(contexts, continuations, lm=lm, real=real):
            seen[id(lm)] = (threading.current_thread().name, list(contexts))
            return real(contexts, continuations)

        lm.score = noted
    spread.score(PROMPTS, LABELS)
    assert len(seen) == len({thread for thread, _ in seen.values()}) == 2
    assert sorted(p for _, block in seen.values() for p in block) == sorted(PROMPTS)
    [first, second] = sorted(block for _, block in seen.values())
    assert all(p.startswith("Article") for p in first)  # long ones weigh more: the blocks are of equal length, not number
    assert len(first) < len(second)


def test_texts_and_samples_are_those_of_one_model():
    one, spread = tiny.lm("gpt2"), replicas(2, "gpt2")
    assert spread.generate(PROMPTS, 8) == one.generate(PROMPTS, 8)
    assert spread.sample(PROMPTS, n=2, seed=3, max_new_tokens=6) == one.sample(PROMPTS, n=2, seed=3, max_new_tokens=6)


def test_plan_counts_what_all_compute():
    one, spread = tiny.lm("llama"), replicas(2)
    assert spread.plan(PROMPTS, LABELS).naive == one.plan(PROMPTS, LABELS).naive
    assert one.plan(PROMPTS, LABELS).computed <= spread.plan(PROMPTS, LABELS).computed < spread.plan(PROMPTS, LABELS).naive


def test_errors_surface_with_the_items_own_numbers():
    spread = replicas(2)
    with pytest.raises(InputError, match=r"item 12: .* reads 512"):
        spread.score([*PROMPTS[:12], "words " * 600], LABELS)
    with pytest.raises(InputError, match=r"item 12: .* reads 512"):
        spread.generate([*PROMPTS[:12], "words " * 600])
    with pytest.raises(InputError, match="13 contexts and 12 lists"):
        spread.score(PROMPTS, LABELS[:12])

    def broken(*_):
        raise RuntimeError("device lost")

    spread.models[1].score = broken
    with pytest.raises(RuntimeError, match="device lost"):
        spread.score(PROMPTS, LABELS)


def test_devices_by_name():
    assert devices("cpu, cpu") == ["cpu", "cpu"]
    assert devices("auto") == ["auto"]
    with pytest.raises(InputError, match="'kuda' is no device here"):
        devices("cpu,kuda")
    import torch

    if not torch.cuda.is_available():
        assert devices(None) == ["cpu"]
        for name in ("all", "cuda:0,cuda:1"):
            with pytest.raises(InputError, match=r"is no device|torch finds no CUDA"):
                devices(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("tiny") / "llama")


def test_load_model_on_two_devices(folder):
    spread = icl.load_model(str(folder), device="cpu,cpu")
    assert isinstance(spread, Replicas)
    assert spread.device == "cpu,cpu"
    one = icl.load_model(str(folder), device="cpu")
    assert spread.fingerprint == one.fingerprint
    again = icl.load_model(**spread.reference)
    assert isinstance(again, Replicas)
    assert again.loglikelihoods(PROMPTS, LABELS) == spread.loglikelihoods(PROMPTS, LABELS)
    assert [v for x in spread.loglikelihoods(PROMPTS, LABELS) for v in x] == pytest.approx(
        [v for x in one.loglikelihoods(PROMPTS, LABELS) for v in x], abs=1e-4
    )


def test_doctor_of_two_replicas(folder):
    from icl.model import doctor

    lines = doctor(str(folder), device="cpu,cpu")
    assert any("on cpu,cpu" in line for line in lines)
    assert any(line.startswith("path: ") for line in lines)
    assert any(line.startswith("determinism: repeated bit-identical") for line in lines)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_one_model_over_the_processor_and_the_disk(name, tmp_path):
    """Accelerate moves layers in and out while the model runs; what it computes, and the path chosen at load time, stay right."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    where = tiny.save(tmp_path / name, name)
    kind = AutoModelForSeq2SeqLM if name == "t5" else AutoModelForCausalLM
    on_disk = {"llama": ("model.layers.1", "model.norm", "lm_head"), "t5": ("encoder.block.1", "decoder.block.1")}[name]
    leaves = [n for n, module in kind.from_pretrained(where).named_modules() if n and not list(module.children())]
    over = {leaf: "disk" if leaf.startswith(on_disk) else "cpu" for leaf in leaves}
    model = kind.from_pretrained(where, dtype="float32", device_map=over, offload_folder=tmp_path / "off")
    assert sum(p.device.type == "meta" for p in model.parameters()) > 5
    one = tiny.lm(name)
    tokenizer = tiny.seq2seq_tokenizer(name) if name in tiny.SEQ2SEQ else tiny.tokenizer()
    lm = type(one)(model, tokenizer, name="offloaded", identity=lambda: "x")
    assert lm.device == "cpu"
    found, expected = lm.loglikelihoods(PROMPTS, LABELS), one.loglikelihoods(PROMPTS, LABELS)
    assert [v for x in found for v in x] == pytest.approx([v for x in expected for v in x], abs=1e-4)
    assert lm.generate(PROMPTS[:3], 5) == one.generate(PROMPTS[:3], 5)


def test_auto_is_one_model(folder):
    lm = icl.load_model(str(folder), device="auto", dtype="float32")
    assert isinstance(lm, TorchModel)
    found, expected = lm.loglikelihoods(PROMPTS[:4], LABELS[:4]), tiny.lm("llama").loglikelihoods(PROMPTS[:4], LABELS[:4])
    assert [v for x in found for v in x] == pytest.approx([v for x in expected for v in x], abs=1e-4)
