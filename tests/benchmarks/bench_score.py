"""Scoring labels against other programs and against the limit: `python tests/benchmarks/bench_score.py --data FOLDER`.

W1 to W4 (see `_work.py`), tokenising included on all sides. Our side and the dense passes behind the limit run in every round, peers in turn
between them. A peer's batch size is the best on a quarter of the work. OpenICL's plan and vLLM share nothing between queries when they give a
prompt's log-probabilities, so they are measured on an eighth of the queries and scaled by tokens, unless `--whole` is given. Each of our runs
begins with a number of its own, a few tokens more than the peers read, so that none finds a prompt that an earlier one has left in a cache.
Exactness is a matter of fp32: `--dtype float32`. The last line is JSON.
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
from _limit import CUDA_SHAPES, QUICK_SHAPES, SHAPES, cost, dense_seconds, synchronize, unique
from _work import SCORING, Scoring, scoring

PEERS = ("lm-eval", "openicl", "transformers", "vllm")
ON_A_PART = ("openicl", "vllm")
"""Peers whose time is proportional to the tokens of the queries."""
TOLERANCE, TOLERANCE_PER_TOKEN = 1e-4, 1e-5
"""Nats between two exact fp32 programs: for a continuation, and for each of its tokens beyond 16."""


@dataclass
class Bench:
    """Everything of one run."""

    setup: Setup
    works: list[Scoring]
    repeats: int
    peer_repeats: int
    shapes: tuple[tuple[int, int], ...]
    sizes: tuple[int, ...]
    whole: bool
    """All of the work for every peer."""
    batches: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    """(peer, work) -> batch size -> seconds on a part."""
    turns: Iterator[int] = field(default_factory=lambda: count(1))
    """A number for each of our runs: see `Scoring.turned`."""

    def part(self, peer: str, work: Scoring) -> Scoring:
        """What a peer is measured on."""
        return work if self.whole or peer not in ON_A_PART else work.first(max(1, len(work.contexts) // 8))

    def trial(self, peer: str, work: Scoring) -> Scoring:
        """What its batch size is chosen on."""
        return self.part(peer, work).first(max(1, len(work.contexts) // 4))


def ours(bench: Bench, work: Scoring) -> tuple[float, Any]:
    work = work.turned(next(bench.turns))
    synchronize(bench.setup.lm.device)
    start = time.perf_counter()
    values = bench.setup.lm.loglikelihoods(work.contexts, work.continuations)
    synchronize(bench.setup.lm.device)
    return time.perf_counter() - start, values


def planned(bench: Bench, work: Scoring) -> tuple[float, Any]:
    """Tokenising and planning alone."""
    work = work.turned(next(bench.turns))
    start = time.perf_counter()
    counts = bench.setup.lm.plan(work.contexts, work.continuations)
    return time.perf_counter() - start, counts


def theirs(peer: Any, work: Scoring, batch: int) -> tuple[float, Any]:
    found = peer.score(list(work.contexts), [list(texts) for texts in work.continuations], batch)
    return found["seconds"], found["values"]


def choose_batches(bench: Bench) -> None:
    """Each peer's time on a part of each work, at each batch size; vLLM makes its own batches. This is also everybody's warm-up."""
    for work in bench.works:
        ours(bench, bench.trial("ours", work))
        for name, peer in list(bench.setup.peers.items()):
            sizes = bench.sizes if name != "vllm" else bench.sizes[:1]
            try:
                times = {size: theirs(peer, bench.trial(name, work), size)[0] for size in sizes}
            except Exception as error:  # whatever another program's failure looks like
                bench.setup.without(name, error)
                continue
            bench.batches[name, work.name] = times
            n = len(bench.trial(name, work).contexts)
            print(f"{work.name} {name}, {n} of {len(work.contexts)} queries: {_shown(times)}", flush=True)


def _shown(batches: dict[int, float]) -> str:
    return ", ".join(f"batch {size} {seconds:.2f} s" for size, seconds in batches.items())


def measure(bench: Bench) -> dict[str, list[tuple[float, Any]]]:
    jobs: dict[str, Any] = {"dense": (lambda: (0.0, dense_seconds(bench.setup.loaded.model, bench.shapes)), bench.repeats)}
    for work in bench.works:
        jobs[f"ours {work.name}"] = (lambda work=work: ours(bench, work), bench.repeats)
        jobs[f"plan {work.name}"] = (lambda work=work: planned(bench, work), bench.repeats)
        for name, peer in bench.setup.peers.items():
            part = bench.part(name, work)
            batch = best_batch(bench.batches[name, work.name])
            jobs[f"{name} {work.name}"] = (lambda p=peer, w=part, b=batch: theirs(p, w, b), min(bench.peer_repeats, bench.repeats))
    dense_seconds(bench.setup.loaded.model, bench.shapes)  # warm-up
    return rounds(jobs, bench.repeats)


def dense_rate(model: Any, runs: list[dict[str, float]], shapes: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """Operations a second of each shape at its median time, and the best of them."""
    operations = {f"{rows}x{tokens}": cost(model).dense(rows, tokens) for rows, tokens in shapes}
    rates = {shape: n / statistics.median(run[shape] for run in runs) for shape, n in operations.items()}
    best = max(rates, key=rates.__getitem__)
    return {"best_shape": best, "rate": rates[best], "gflops": {shape: round(rate / 1e9, 1) for shape, rate in rates.items()}}


def compared(mine: Any, other: Any, n_tokens: list[list[int]]) -> dict[str, Any]:
    """How far two programs' values are apart, and how many predictions differ; a prediction whose margin is within the tolerance is a tie."""
    largest, beyond, changed, ties = 0.0, 0, 0, 0
    for a, b, lengths in zip(mine, other, n_tokens, strict=False):  # a peer measured on a part has fewer rows
        bounds = [TOLERANCE + TOLERANCE_PER_TOKEN * max(0, n - 16) for n in lengths]
        gaps = [abs(x - y) for x, y in zip(a, b, strict=True)]
        largest = max(largest, *gaps)
        beyond += sum(gap > bound for gap, bound in zip(gaps, bounds, strict=True))
        first, second = a.index(max(a)), b.index(max(b))
        if first != second:
            changed += 1
            ties += a[first] - a[second] <= bounds[first] + bounds[second]
    return {"largest_difference_nat": largest, "beyond_tolerance": beyond, "changed_predictions": changed, "of_those_ties": ties}


def report(bench: Bench, work: Scoring, results: dict[str, list[tuple[float, Any]]], rate: float) -> dict[str, Any]:
    tree = unique(bench.setup.loaded.tokenizer, work.contexts, work.continuations)
    limit = cost(bench.setup.loaded.model).of(tree) / rate
    mine = spread([seconds for seconds, _ in results[f"ours {work.name}"]])
    lm = bench.setup.lm
    values = lm.loglikelihoods(work.contexts, work.continuations)  # of exactly what the peers are given, untimed
    encoded = bench.setup.loaded.encoded(work.contexts, work.continuations)
    n_tokens = [[len(ids) - before for ids, before in item] for item in encoded]
    found: dict[str, Any] = {
        "work": work.name,
        "about": work.about,
        "unique_tokens": tree.tokens,
        "computed_tokens": lm.plan(work.contexts, work.continuations).computed,
        "naive_tokens": tree.naive,
        "read_positions": tree.reads,
        "limit_s": round(limit, 4),
        "ours": mine,
        "share_of_limit": round(limit / mine["median_s"], 3),
        "plan_s": spread([seconds for seconds, _ in results[f"plan {work.name}"]])["median_s"],
        "peers": {},
    }
    for name in bench.setup.peers:
        part = bench.part(name, work)
        scale = tree.naive / unique(bench.setup.loaded.tokenizer, part.contexts, part.continuations).naive
        done = results[f"{name} {work.name}"]
        times = spread([seconds * scale for seconds, _ in done])
        entry = {"batch": best_batch(bench.batches[name, work.name]), **times, "ratio": round(times["median_s"] / mine["median_s"], 2)}
        entry["share_of_limit"] = round(limit / times["median_s"], 4)
        entry |= compared(values, done[-1][1], n_tokens)
        if len(part.contexts) < len(work.contexts):
            entry["measured_on"] = f"{len(part.contexts)} of {len(work.contexts)} queries, scaled by tokens"
        found["peers"][name] = entry
    return found


def show(found: dict[str, Any]) -> None:
    mine = found["ours"]
    print(f"\n{found['work']}: {found['about']}")
    counts = f"  tokens: {found['unique_tokens']:,} unique, {found['computed_tokens']:,} computed, {found['naive_tokens']:,} naive"
    print(f"{counts}; {found['read_positions']:,} positions read")
    print(f"  limit {found['limit_s']:.2f} s; ours {mine['median_s']:.2f} s ({mine['min_s']:.2f} to {mine['max_s']:.2f})", end="")
    print(f", {100 * found['share_of_limit']:.0f} % of the limit; tokenising and planning {found['plan_s']:.3f} s of it")
    for name, peer in found["peers"].items():
        print(f"  {name}: {peer['median_s']:.2f} s at batch {peer['batch']}, {peer['ratio']:.1f} times ours", end="")
        print(f" ({peer['measured_on']})" if "measured_on" in peer else "", end="")
        print(f"; largest difference {peer['largest_difference_nat']:.1e} nat, {peer['beyond_tolerance']} beyond tolerance,", end="")
        print(f" {peer['changed_predictions']} predictions differ ({peer['of_those_ties']} ties)")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    made = parser(__doc__, work=tuple(SCORING))
    made.add_argument("--queries", type=int, help="instead of the usual number of each work")
    made.add_argument("--batch-sizes", help="what peers may choose from; left out: 1,4,8 on a CPU, 16,64,256 on CUDA")
    made.add_argument("--whole", action="store_true", help="measure every peer on all of the work")
    options = made.parse_args(arguments)
    cuda = options.device.startswith("cuda")
    peers = chosen(options.peers if options.peers is not None else "lm-eval,openicl,vllm" + (",transformers" if cuda else ""), PEERS)
    sizes = tuple(int(size) for size in (options.batch_sizes or ("16,64,256" if cuda else "1,4,8")).split(","))
    shapes = QUICK_SHAPES if options.quick else CUDA_SHAPES if cuda else SHAPES
    works = [scoring(name, options.data, options.queries, quick=options.quick) for name in chosen(options.work, tuple(SCORING))]
    with opened(options, peers, {"lm-eval": options.lm_eval_python, "vllm": options.vllm_python}) as setup:
        bench = Bench(setup, works, options.repeats, options.peer_repeats, shapes, sizes, options.whole)
        choose_batches(bench)
        results = measure(bench)
        dense = dense_rate(setup.loaded.model, [run for _, run in results["dense"]], shapes)
        print(
            f"best dense rate: {dense['rate'] / 1e9:.0f} GFLOP/s at {dense['best_shape']}, {setup.where.dtype}, {setup.where.threads} threads"
        )
        found = [report(bench, work, results, dense["rate"]) for work in works]
        for entry in found:
            show(entry)
        return finish("score", options.quick, {**setup.described(options.repeats, options.peer_repeats), "dense": dense, "works": found})


if __name__ == "__main__":
    main(sys.argv[1:])
