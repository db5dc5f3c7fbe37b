"""Memory and growth: `python tests/benchmarks/bench_memory.py`.

Up to 10,000 prompts of 500 tokens, four labels each, half of every prompt shared by all, with a small random model. Each size runs in a
process of its own. Reported: the peak above what model, tokenizer and prompts take before the call, beside the memory budget that was
given; and seconds per unique token, which must not grow with the number of prompts. The last line is JSON.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import finish, machine, parser, start_threads
from _limit import synchronize, unique

TEXT = (
    "shares fell on monday as oil prices rose again while traders waited for news from the central bank about rates and the team won "
    "the cup after extra time in front of many people who had come by train from towns along the coast to see it"
)
LABELS = (" world", " sports", " business", " science news")
N_TOKENS = 500
SIZES = (100, 1_000, 10_000)


def small_model(folder: Path) -> None:
    """A random Llama of 2.8 M parameters, most of them embeddings, and a byte-level tokenizer trained on TEXT."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([" " + TEXT, *LABELS], trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=16_384, hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=1024, bos_token_id=0, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)


def prompts(n: int, n_tokens: int, tokenizer: Any) -> list[str]:
    """n texts of n_tokens tokens (give or take a word), the first half of each the same."""
    known = TEXT.split()
    cost = {word: len(tokenizer(" " + word).input_ids) for word in known}

    def text(wanted: int, rng: random.Random) -> str:
        words: list[str] = []
        while wanted > 0:
            words.append(rng.choice(known))
            wanted -= cost[words[-1]]
        return " " + " ".join(words)

    shared = text(n_tokens // 2, random.Random(0))
    return [shared + text(n_tokens - n_tokens // 2, random.Random(i)) for i in range(1, n + 1)]


def one_size(folder: str, n: int, n_tokens: int, memory: str, device: str, threads: int) -> dict[str, Any]:
    """Score n prompts; peak and time of the call alone."""
    from transformers import AutoTokenizer

    import icl

    start_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lm = icl.load_model(folder, device=device, memory=memory)
    contexts, continuations = prompts(n, n_tokens, tokenizer), [LABELS] * n
    # Warm-up: what is loaded on first use is not the call's. Another beginning, so that the call finds no prefix of its own.
    lm.loglikelihoods([f"again{context}" for context in contexts[:8]], continuations[:8])
    before = _reset_peak(device)
    start = time.perf_counter()
    values = lm.loglikelihoods(contexts, continuations)
    synchronize(device)
    seconds = time.perf_counter() - start
    peak = _peak(device)
    assert all(value < 0 for row in values for value in row)
    tokens = unique(tokenizer, contexts, continuations).tokens  # counted last: it takes memory of its own
    return {
        "n_prompts": n,
        "unique_tokens": tokens,
        "seconds": round(seconds, 3),
        "microseconds_per_token": round(1e6 * seconds / tokens, 3),
        "before_mib": round(before / 2**20, 1),
        "peak_above_mib": round((peak - before) / 2**20, 1),
    }


def _reset_peak(device: str) -> int:
    """Bytes in use now; the peak counts from here where the system allows it (Linux), else from the start of the process."""
    import gc

    import torch

    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5", encoding="ascii")
        return _status("VmRSS")
    return _peak(device)


def _peak(device: str) -> int:
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    if Path("/proc/self/status").exists():
        return _status("VmHWM")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key + ":")))


def _in_own_process(arguments: tuple[Any, ...]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    made = parser(__doc__)
    made.add_argument("--memory", default="1GiB", help="the memory budget of our side")
    made.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of prompts")
    made.add_argument("--one", help="one size in this process, as the script calls itself")
    options = made.parse_args(arguments)
    if options.one:
        found = one_size(*json.loads(options.one))
        print(json.dumps(found))
        return found
    sizes = [int(size) for size in options.sizes.split(",")]
    rows = []
    with tempfile.TemporaryDirectory() as keep:
        small_model(Path(keep))
        for n in [2, 6] if options.quick else sizes:
            call = (keep, n, 40 if options.quick else N_TOKENS, options.memory, options.device, options.threads)
            rows.append(one_size(*call) if options.quick else _in_own_process(call))
            found = rows[-1]
            print(f"{n:,} prompts, {found['unique_tokens']:,} unique tokens: {found['seconds']:.2f} s,", end=" ")
            print(f"{found['microseconds_per_token']:.2f} µs a token; peak {found['peak_above_mib']:,.0f} MiB above", end=" ")
            print(f"{found['before_mib']:,.0f} MiB, budget {options.memory}", flush=True)
    described = machine(options.device, start_threads(options.threads))
    growth = rows[-1]["microseconds_per_token"] / rows[0]["microseconds_per_token"]
    result = {"machine": described, "device": options.device, "memory_budget": options.memory, "n_tokens": N_TOKENS, "sizes": rows}
    return finish("memory", options.quick, {**result, "time_per_token_last_over_first": round(growth, 3)})


if __name__ == "__main__":
    main(sys.argv[1:])
