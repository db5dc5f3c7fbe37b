"""2,000 demonstrations stay within the memory budget: the peak of a process of its own."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__)
BENCHMARKS = HERE.parents[1] / "benchmarks"
N_SHOTS = 2000


def model_folder(folder):
    """A small random Llama that reads 131,072 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sys.path[:0] = [str(HERE.parents[1])]
    import tiny

    tokenizer = tiny.tokenizer()
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=1 << 17, bos_token_id=0, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def measure(folder, memory, windows, attention):
    """Score three queries with 2,000 demonstrations; what the process takes above what it took before, and what was read."""
    sys.path[:0] = [str(BENCHMARKS)]
    import torch
    from bench_memory import _peak, _reset_peak

    import icl
    from icl.values import Example

    torch.set_num_threads(1)
    lm = icl.load_model(folder, device="cpu", memory=memory, attention=attention)
    rng = random.Random(0)
    words = ["film", "old", "jokes", "moving", "people", "shares", "rose", "team"]
    pool = [Example(f"{i}-0", {"text": " ".join(rng.choices(words, k=1))}, ("good", "bad")[i % 2]) for i in range(N_SHOTS)]
    method = icl.FewShot(lm, retriever="random", order="shuffled", shots=N_SHOTS, windows=windows)
    predictor = method.fit(pool, labels=("good", "bad"))
    lm.loglikelihoods(["warm up"], [[" good", " bad"]])
    before = _reset_peak("cpu")
    found = predictor.predict(["a quiet film", "the team won", "old jokes"])
    assert all(p.answer and len(p.demonstrations) == N_SHOTS and not p.n_dropped for p in found)
    kept = lm.limits.cache_bytes * found[0].n_tokens
    return {
        "peak": _peak("cpu") - before,
        "kept": kept,
        "budget": lm.limits.memory,
        "n_windows": found[0].n_windows,
        "naive": lm.totals.naive,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("long"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not say what the peak was")
@pytest.mark.parametrize(
    ("windows", "memory", "attention"),
    [
        (None, "256MiB", None),
        (8, "128MiB", None),
        ({"n": 8, "combine": "parallel"}, "256MiB", None),
        (None, "24MiB", "sink:4+512"),
    ],
    ids=["one prompt", "product", "parallel", "sinks"],
)
def test_two_thousand_demonstrations_stay_within_the_memory_budget(folder, windows, memory, attention):
    command = [sys.executable, str(HERE), str(folder), json.dumps([memory, windows, attention])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["peak"] <= found["budget"]
    assert found["n_windows"] == (8 if windows else 0)
    # It is not nothing; and what sinks are for would not fit without them.
    assert found["kept"] > found["budget"] / (20 if attention is None else 2)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], *json.loads(sys.argv[2]))))
