"""A large demonstration index beside plain FAISS with the same structure: `python tests/benchmarks/bench_index.py --texts FILE.txt`.

Reads one text a line, encodes up to --real of them (kept in --work, so a second run is quick), and jitters the vectors to --rows rows. For
each kind of --kinds both sides are built, written, and opened again; searches are interleaved, batch by batch. Ratios are ours over FAISS's:
`search` is vectors to positions and scores, `search_with_rows` also reads the rows found. Memory is the process's own (what is mapped
from files is not counted on either side). The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from icl import DemoIndex, Example

K, BATCHES, SINGLES = 8, 12, 400


class Given:
    """An encoder whose vectors are there already: encoding is not what is measured."""

    name = fingerprint = "given"

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors, self.dimensions = vectors, vectors.shape[1]

    def encode(self, texts):
        return self.vectors if len(texts) == len(self.vectors) else self.vectors[[int(text) for text in texts]]

    def cut(self, texts):
        return [False] * len(texts)


def real_vectors(options: argparse.Namespace) -> np.ndarray:
    from icl.retrieve import load_encoder

    path = options.work / f"real-{options.real}.npy"
    if not path.exists():
        lines = options.texts.read_text(encoding="utf-8", errors="replace").splitlines()
        texts = list(itertools.islice(dict.fromkeys(line.strip()[:300] for line in lines if len(line.strip()) > 20), options.real))
        np.save(path, load_encoder("minilm", cache=False).encode(texts))
    return np.load(path, mmap_mode="r")


def jittered(options: argparse.Namespace) -> Path:
    """The real vectors, then copies of them a little way off (a cosine of about 0.9), until there are enough."""
    path = options.work / f"vectors-{options.rows}.npy"
    if not path.exists():
        real = real_vectors(options)
        result = np.lib.format.open_memmap(path, "w+", np.float32, (options.rows, real.shape[1]))
        generator = np.random.default_rng(0)
        for start in range(0, options.rows, 50_000):
            rows = np.arange(start, min(start + 50_000, options.rows))
            part = real[rows % len(real)]
            if start >= len(real):
                part = part + generator.standard_normal(part.shape, dtype=np.float32) * np.float32(0.5 / np.sqrt(part.shape[1]))
            result[rows] = part / np.linalg.norm(part, axis=1, keepdims=True)
        result.flush()
    return path


def own_memory() -> float:
    """MiB of this process's own memory, without what is mapped from files."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def build_ours(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    vectors = np.load(jittered(options), mmap_mode="r")
    examples = [Example(f"{i:032x}-0", {"text": str(i)}, str(i % 7)) for i in range(len(vectors))]
    start = time.perf_counter()
    index = DemoIndex.build(examples, encoder=Given(vectors), kind=kind)
    built_s = time.perf_counter() - start
    index.save(options.work / f"ours-{kind}")
    structure = index._state.structure
    assert structure is not None
    return {"build_s": built_s, "save_s": time.perf_counter() - start - built_s, "effort": structure.effort, "recall_told": index.recall}


def build_faiss(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    import faiss

    from icl.retrieve.approximate import LINKS, lists_for

    vectors = np.load(jittered(options), mmap_mode="r")
    n, d = vectors.shape
    start = time.perf_counter()
    if kind == "hnsw":
        index = faiss.index_factory(d, f"HNSW{LINKS},Flat", faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.index_factory(d, f"IVF{lists_for(n)}_HNSW{LINKS},Flat", faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = 64
        index.train(vectors)
    index.add(vectors)
    built_s = time.perf_counter() - start
    faiss.write_index(index, str(options.work / f"plain-{kind}.faiss"))
    return {"build_s": built_s}


def memory_ours(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    before, start = own_memory(), time.perf_counter()
    index = DemoIndex.open(options.work / f"ours-{kind}", encoder=Given(real_vectors(options)))
    open_s = time.perf_counter() - start
    start = time.perf_counter()
    index.search(["5"], K)
    first_s = time.perf_counter() - start
    index.search([str(i) for i in range(2048)], K)
    return {"open_s": open_s, "first_search_s": first_s, "memory_mib": own_memory() - before}


def memory_faiss(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    import faiss

    before, start = own_memory(), time.perf_counter()
    index = faiss.read_index(str(options.work / f"plain-{kind}.faiss"))
    open_s = time.perf_counter() - start
    index.search(np.ascontiguousarray(real_vectors(options)[:2048]), K)
    return {"open_s": open_s, "memory_mib": own_memory() - before}


def search(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Interleaved: a batch of ours, the same batch of FAISS's."""
    import faiss

    real = real_vectors(options)
    index = DemoIndex.open(options.work / f"ours-{kind}", encoder=Given(real))
    plain = faiss.read_index(str(options.work / f"plain-{kind}.faiss"))
    structure = index._state.structure
    assert structure is not None
    parameters = structure._parameters
    chosen = np.random.default_rng(1).choice(len(real), 256 * BATCHES + SINGLES, replace=False)
    index.search([str(i) for i in chosen[:512]], K)  # warm
    result: dict[str, Any] = {}
    for size, n in ((1, SINGLES), (256, BATCHES)):
        times: dict[str, list[float]] = {"search": [], "search_with_rows": [], "faiss": []}
        for at in range(n):
            rows = chosen[at * size : (at + 1) * size]
            vectors, texts = np.ascontiguousarray(real[rows]), [str(i) for i in rows]
            calls = {
                "search": lambda: index.nearest(vectors, K),  # noqa: B023
                "faiss": lambda: plain.search(vectors, K, params=parameters),  # noqa: B023
                "search_with_rows": lambda: index.search(texts, K),  # noqa: B023
            }
            for name in sorted(calls, key=lambda name: (name == "search_with_rows", (at + len(name)) % 2)):
                start = time.perf_counter()
                calls[name]()
                times[name].append(time.perf_counter() - start)
        for share, label in ((0.5, "p50"), (0.95, "p95")):
            value = {name: float(np.quantile(each, share)) for name, each in times.items()}
            result[f"batch_{size}_{label}_ms"] = {name: round(1000 * each, 3) for name, each in value.items()}
            result[f"batch_{size}_{label}_ratio"] = round(value["search"] / value["faiss"], 3)
            result[f"batch_{size}_{label}_ratio_with_rows"] = round(value["search_with_rows"] / value["faiss"], 3)
    some = np.ascontiguousarray(real[chosen[:512]])
    truth = faiss.knn(some, index.vectors, K, faiss.METRIC_INNER_PRODUCT)[1]
    ours, theirs = index.nearest(some, K)[0], plain.search(some, K, params=parameters)[1]
    for name, found in (("recall_ours", ours), ("recall_faiss", theirs)):
        result[name] = round(statistics.mean(len(set(a.tolist()) & set(b.tolist())) / K for a, b in zip(found, truth, strict=True)), 4)
    return result


STEPS = {"build_ours": build_ours, "build_faiss": build_faiss, "memory_ours": memory_ours, "memory_faiss": memory_faiss, "search": search}


def apart(step: str, kind: str, arguments: list[str]) -> dict[str, Any]:
    """A step in a process of its own, with the peak of its memory."""
    run = subprocess.run([sys.executable, __file__, *arguments, "--step", f"{step}:{kind}"], check=True, capture_output=True, text=True)
    print(run.stderr, file=sys.stderr, end="")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--texts", type=Path, required=True, help="a file with one text a line")
    options.add_argument("--real", type=int, default=200_000, help="texts that are encoded")
    options.add_argument("--rows", type=int, default=1_000_000, help="rows of the index")
    options.add_argument("--kinds", default="ivf,hnsw", help="which, with commas")
    options.add_argument("--work", type=Path, default=Path("/tmp/bench-index"), help="where vectors and indexes go")
    options.add_argument("--step", help=argparse.SUPPRESS)
    given = options.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.step:
        step, kind = given.step.split(":")
        result = STEPS[step](given, kind)
        print(json.dumps({**result, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    jittered(given)
    report: dict[str, Any] = {"bench": "index", "rows": given.rows, "real": given.real, "threads": os.environ.get("OMP_NUM_THREADS", "all")}
    for kind in given.kinds.split(","):
        found = {step: apart(step, kind, sys.argv[1:]) for step in STEPS}
        report[kind] = {
            "effort": found["build_ours"]["effort"],
            "build_ratio": round(found["build_ours"]["build_s"] / found["build_faiss"]["build_s"], 3),
            "build_s": round(found["build_ours"]["build_s"], 1),
            "build_peak_mib": [round(found[step]["peak_mib"]) for step in ("build_ours", "build_faiss")],
            "open_s": round(found["memory_ours"]["open_s"], 3),
            "first_search_s": round(found["memory_ours"]["first_search_s"], 3),
            "memory_ratio": round(found["memory_ours"]["memory_mib"] / found["memory_faiss"]["memory_mib"], 3),
            "memory_mib": [round(found[step]["memory_mib"]) for step in ("memory_ours", "memory_faiss")],
            "recall_told": found["build_ours"]["recall_told"],
            **{name: value for name, value in found["search"].items() if name != "peak_mib"},
        }
        print(kind, report[kind], flush=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
