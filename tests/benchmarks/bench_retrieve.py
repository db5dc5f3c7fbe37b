"""What the demonstration index costs beside what it cannot avoid: `python tests/benchmarks/bench_retrieve.py banking77/train.jsonl`.

Reads up to 10,000 rows with a `text` column. Reports, each as a ratio or in milliseconds of one run on one thread: building an index against
encoding the same texts, building it again (embeddings cached), our encoding against the library's own at its best batch size, opening an
index of 100,000 rows, the first retrieval from it, and what selectors take per query to choose 8 of 200 candidates. The last line is JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from icl import DemoIndex, Example
from icl.plugins import Context, build
from icl.retrieve import build_retriever, load_encoder
from icl.values import as_query

SELECTORS: dict[str, object] = {
    "knn": "knn", "bm25": "bm25", "mmr": "mmr", "dpp": "dpp", "coverage": "coverage",
    "coverage_by_embedding": {"coverage": {"by": "embedding"}}, "balanced": "balanced", "hybrid": "hybrid",
}  # fmt: skip


class RandomEncoder:
    """Unit vectors at no cost, for an index whose encoding is not what is measured."""

    name = fingerprint = "random"
    dimensions = 384

    def encode(self, texts):
        vectors = np.random.default_rng(len(texts)).standard_normal((len(texts), self.dimensions), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def cut(self, texts):
        return [False] * len(texts)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def selector_ms(examples: list[Example], index: DemoIndex) -> dict[str, float]:
    """Milliseconds per query of each selector that chooses 8 of 200 given candidates, for 1,000 queries in one call; median of 3."""
    queries = examples[-1000:]
    candidates = build("selector", "knn", Context(pool=examples, index=index))(queries, 200, None)
    result = {}
    for name, value in SELECTORS.items():
        select = build("selector", value, Context(pool=examples, index=index))
        select(queries[:10], 8, candidates[:10])  # what is computed once for a pool
        times = sorted(seconds(lambda select=select: select(queries, 8, candidates)) for _ in range(3))
        result[name] = round(times[1], 3)
    return result


def main(path: str) -> None:
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()[:10_000]]
    examples = [Example(f"{i:032x}-0", {"text": row["text"]}, str(row["label"])) for i, row in enumerate(rows)]
    texts = [row["text"] for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        bare = load_encoder("minilm", cache=False)
        bare.encode(texts[:64])
        encode_s = seconds(lambda: bare.encode(texts))
        cold = load_encoder("minilm")
        cold._cache.path = Path(folder) / "cache.sqlite"
        build_s = seconds(lambda: DemoIndex.build(examples, path=Path(folder) / "a", encoder=cold))
        again_s = seconds(lambda: DemoIndex.build(examples, encoder=cold))
        model, part = bare._model()._model, texts[:2000]
        plain = {
            size: seconds(lambda size=size: model.encode_query(part, batch_size=size, show_progress_bar=False)) for size in (16, 32, 64)
        }
        ours_s = seconds(lambda: bare.encode(part))
        selectors = selector_ms(examples, DemoIndex.build(examples, encoder=cold))
        many = [Example(f"{i:032x}-1", examples[i % len(examples)].fields, examples[i % len(examples)].target) for i in range(100_000)]
        DemoIndex.build(many, path=Path(folder) / "b", encoder=RandomEncoder())
        start = time.perf_counter()
        index = DemoIndex.open(Path(folder) / "b", encoder=RandomEncoder())
        open_s = time.perf_counter() - start
        index._encoder = cold
        retrieve = build_retriever(index, index.examples, index=lambda: index, labels=(), seed=0)
        first_s = seconds(lambda: retrieve([as_query("where is it, my card has not arrived?", ["text"])], 8))
    result: dict[str, object] = {
        "bench": "retrieve",
        "n_rows": len(rows),
        "threads": 1,
        "build_over_encode": round(build_s / encode_s, 3),
        "rebuild_over_encode": round(again_s / encode_s, 4),
        "encode_over_library_best": round(ours_s / min(plain.values()), 3),
        "library_best_batch": min(plain, key=plain.__getitem__),
        "open_100k_ms": round(1000 * open_s, 1),
        "first_retrieval_100k_ms": round(1000 * first_s, 1),
    }
    result["selector_ms_per_query"] = selectors
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
