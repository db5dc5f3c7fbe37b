"""Writing texts against other programs: `python tests/benchmarks/bench_generate.py --data FOLDER`.

W5 (see `_work.py`): greedy, many prompts with a shared prefix, once all of one length, once each until its blank line. transformers'
`generate` gets the batch size that is best for each work, reckoned from a few steps at each size; llama.cpp's server its best number
of slots. Prefill and decode are reported apart: our prefill is a run that writes one token. The last line is JSON.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from _common import Setup, best_batch, chosen, finish, opened, parser, rounds, spread
from _limit import synchronize
from _work import WRITING, Writing, writing

PEERS = ("generate", "generate_batch", "llama.cpp", "vllm")
STEPS = 8
"""Steps from which the time of `generate` at a batch size is reckoned."""

SLOTS = (1, 4, 8)
"""What llama.cpp may choose from."""


@dataclass
class Bench:
    setup: Setup
    works: list[Writing]
    repeats: int
    peer_repeats: int
    sizes: tuple[int, ...]
    lengths: dict[str, list[int]] = field(default_factory=dict)
    """Work -> tokens of each of our texts, from the warm-up."""
    batches: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    """(peer, work) -> batch size -> seconds, as reckoned."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """Work -> our texts for exactly what the peers are given, from the warm-up."""
    turns: Iterator[int] = field(default_factory=lambda: count(1))
    """A number for each of our timed runs: see `Scoring.turned`."""


def ours(bench: Bench, work: Writing, max_new_tokens: int) -> tuple[float, list[str]]:
    work = work.turned(next(bench.turns))
    synchronize(bench.setup.lm.device)
    start = time.perf_counter()
    texts = bench.setup.lm.generate(work.prompts, max_new_tokens=max_new_tokens, stop=work.stop)
    synchronize(bench.setup.lm.device)
    return time.perf_counter() - start, texts


def theirs(peer: Any, work: Writing, batch: int, max_new_tokens: int | None = None) -> tuple[float, Any]:
    found = peer.generate(list(work.prompts), max_new_tokens or work.max_new_tokens, list(work.stop), batch)
    return found["seconds"], found


def lengths(bench: Bench, work: Writing, texts: list[str]) -> list[int]:
    """Tokens of each text, its stop string included."""
    counted = bench.setup.loaded.tokenizer([text + "".join(work.stop[:1]) for text in texts], add_special_tokens=False).input_ids
    return [min(len(ids), work.max_new_tokens) if work.stop else work.max_new_tokens for ids in counted]


def choose_batches(bench: Bench) -> None:
    """Our warm-up is a whole run: its texts are compared, and give the lengths. A batch of `generate` lasts as long as its longest text."""
    for work in bench.works:
        bench.texts[work.name] = bench.setup.lm.generate(work.prompts, max_new_tokens=work.max_new_tokens, stop=work.stop)
        bench.lengths[work.name] = lengths(bench, work, bench.texts[work.name])
    for name, peer in list(bench.setup.peers.items()):
        try:
            (_reckon if name == "generate" else _try)(bench, name, peer)
        except Exception as error:  # whatever another program's failure looks like
            bench.setup.without(name, error)


def _try(bench: Bench, name: str, peer: Any) -> None:
    """The others make their own batches. llama.cpp is given slots: the best number on the first eighth of the prompts; more slots write
    faster, but each computes the shared prefix for itself."""
    work = bench.works[0]
    part = Writing(work.name, work.about, work.prompts[: max(1, len(work.prompts) // 8)], work.max_new_tokens, work.stop)
    sizes = [size for size in SLOTS if size <= len(part.prompts)] if name == "llama.cpp" else []
    times = {size: theirs(peer, part, size)[0] for size in sizes or bench.sizes[:1]}
    print(
        f"{name}, {len(part.prompts)} texts:", ", ".join(f"{size} at once {seconds:.1f} s" for size, seconds in times.items()), flush=True
    )
    for each in bench.works:
        bench.batches[name, each.name] = times


def _reckon(bench: Bench, name: str, peer: Any) -> None:
    n = len(bench.works[0].prompts)
    for size in sorted({min(size, n) for size in bench.sizes}):
        found = peer.generate(list(bench.works[0].prompts[:size]), STEPS, [], size)
        for work in bench.works:
            longest = [max(bench.lengths[work.name][at : at + size]) for at in range(0, n, size)]
            seconds = len(longest) * found["prefill_s"] + sum(longest) * found["step_s"]
            bench.batches.setdefault((name, work.name), {})[size] = seconds
            print(f"{work.name} {name}, batch {size}: {seconds:.1f} s reckoned from {STEPS} steps", flush=True)


def measure(bench: Bench) -> dict[str, list[tuple[float, Any]]]:
    """All works have the same prompts, so prefill is measured on the first; the clock of `generate` sees its own."""
    once, first = min(bench.peer_repeats, bench.repeats), bench.works[0]
    jobs: dict[str, Any] = {"ours prefill": (lambda: ours(bench, first, 1), bench.repeats)}
    for work in bench.works:
        jobs[f"ours {work.name}"] = (lambda work=work: ours(bench, work, work.max_new_tokens), bench.repeats)
        for name, peer in bench.setup.peers.items():
            batch = best_batch(bench.batches[name, work.name])
            jobs[f"{name} {work.name}"] = (lambda p=peer, w=work, b=batch: theirs(p, w, b), once)
            if work is first and name != "generate":
                jobs[f"{name} prefill"] = (lambda p=peer, b=batch: theirs(p, first, b, 1), once)
    return rounds(jobs, bench.repeats)


def report(bench: Bench, work: Writing, results: dict[str, list[tuple[float, Any]]]) -> dict[str, Any]:
    runs = results[f"ours {work.name}"]
    mine = spread([seconds for seconds, _ in runs])
    prefill = spread([seconds for seconds, _ in results["ours prefill"]])["median_s"]
    written = round(statistics.median(sum(lengths(bench, work, texts)) for _, texts in runs))
    texts = bench.texts[work.name]
    found: dict[str, Any] = {
        "work": work.name,
        "about": work.about,
        "shortest": min(bench.lengths[work.name]),
        "longest": max(bench.lengths[work.name]),
        "ours": {**mine, **_apart(mine["median_s"], prefill, written)},
        "peers": {},
    }
    for name in bench.setup.peers:
        done = results[f"{name} {work.name}"]
        times = spread([seconds for seconds, _ in done])
        last = done[-1][1]
        first = last["prefill_s"] if name == "generate" else results[f"{name} prefill"][-1][0]
        found["peers"][name] = {
            "batch": best_batch(bench.batches[name, work.name]),
            **times,
            **_apart(times["median_s"], first, sum(last["n_tokens"])),
            "ratio": round(times["median_s"] / mine["median_s"], 2),
            "same_texts": sum(a == b for a, b in zip(texts, last["texts"], strict=True)),
        }
    return found


def _apart(seconds: float, prefill: float, n_tokens: int) -> dict[str, Any]:
    """Prefill and decode of one run; the first token of each text counts as prefill's."""
    decode = seconds - prefill
    rate = round(n_tokens / decode, 1) if decode > 0 else None
    return {"prefill_s": round(prefill, 4), "decode_s": round(decode, 4), "n_tokens": n_tokens, "decode_tokens_per_s": rate}


def show(found: dict[str, Any], n: int) -> None:
    mine = found["ours"]
    print(f"\n{found['work']}: {found['about']}; texts of {found['shortest']} to {found['longest']} tokens")
    print(f"  ours {mine['median_s']:.2f} s ({mine['min_s']:.2f} to {mine['max_s']:.2f}): {_parts(mine)}")
    for name, peer in found["peers"].items():
        same = f"{peer['same_texts']} of {n} texts are ours"
        print(f"  {name}: {peer['median_s']:.2f} s at batch {peer['batch']}, {peer['ratio']:.2f} times ours: {_parts(peer)}; {same}")


def _parts(entry: dict[str, Any]) -> str:
    return f"prefill {entry['prefill_s']:.2f} s, decode {entry['decode_s']:.2f} s, {entry['n_tokens']:,} tokens"


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    made = parser(__doc__, work=tuple(WRITING))
    made.add_argument("--batch-sizes", default="8,16,32,64", help="what generate may choose from")
    options = made.parse_args(arguments)
    usual = "generate,llama.cpp,vllm" + (",generate_batch" if options.device.startswith("cuda") else "")
    peers = chosen(options.peers if options.peers is not None else usual, PEERS)
    works = [writing(name, options.data, quick=options.quick) for name in chosen(options.work, tuple(WRITING))]
    sizes = tuple(int(size) for size in options.batch_sizes.split(","))
    with opened(options, peers, {"llama.cpp": options.llamacpp_python, "vllm": options.vllm_python}, options.gguf) as setup:
        bench = Bench(setup, works, options.repeats, options.peer_repeats, sizes)
        choose_batches(bench)
        results = measure(bench)
        found = [report(bench, work, results) for work in works]
        for entry, work in zip(found, works, strict=True):
            show(entry, len(work.prompts))
        return finish("generate", options.quick, {**setup.described(options.repeats, options.peer_repeats), "works": found})


if __name__ == "__main__":
    main(sys.argv[1:])
