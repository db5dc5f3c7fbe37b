"""What the demonstration index costs beside what it cannot avoid: `python tests/benchmarks/bench_retrieve.py banking77/train.jsonl`.

Reads up to 10,000 rows with a `text` column. Reports, each as a ratio or in milliseconds of one run on one thread: building an index against
encoding the same texts, building it again (embeddings cached), our encoding against the library's own at its best batch size, opening an
index of 100,000 rows, and the first retrieval from it. The last line is JSON.
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
from icl.retrieve import build_retriever, load_encoder
from icl.values import as_query


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
        many = [Example(f"{i:032x}-1", examples[i % len(examples)].fields, examples[i % len(examples)].target) for i in range(100_000)]
        DemoIndex.build(many, path=Path(folder) / "b", encoder=RandomEncoder())
        start = time.perf_counter()
        index = DemoIndex.open(Path(folder) / "b", encoder=RandomEncoder())
        open_s = time.perf_counter() - start
        index._encoder = cold
        retrieve = build_retriever(index, index.examples, index=lambda: index, labels=(), seed=0)
        first_s = seconds(lambda: retrieve([as_query("where is it, my card has not arrived?", ["text"])], 8))
    result = {
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
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
