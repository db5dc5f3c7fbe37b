"""Contrastive tuning beside SetFit on the same few labels: `python tests/benchmarks/bench_contrastive.py --data FOLDER`.

For each set and split, 8 rows of every label are drawn from FOLDER/NAME/train.jsonl, and the method `contrastive`, SetFit with its own
defaults, and logistic regression on the untuned vectors (`embedding_head`) learn from the same rows, from the same encoder, and are judged
on the same test rows. The two trainings take turns, split by split, so the ratio of seconds is of one run; on a machine that is busy with
other work that of processor seconds tells more. SetFit runs in an environment
of its own (`--setfit-python`):

    python -m venv peers/setfit && peers/setfit/bin/pip install setfit==1.2.0

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

Row = dict[str, str]

PEER = """
import importlib.metadata, json, sys, time, tempfile
import torch
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments
torch.set_num_threads(int(sys.argv[2]))
out = sys.stdout
sys.stdout = sys.stderr
print(json.dumps({"version": importlib.metadata.version("setfit")}), file=out, flush=True)
for line in sys.stdin:
    work = json.loads(line)
    labels = sorted({row["label"] for row in work["train"]})
    data = Dataset.from_dict({"text": [r["text"] for r in work["train"]], "label": [labels.index(r["label"]) for r in work["train"]]})
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(seed=work["seed"], output_dir=folder, report_to="none", show_progress_bar=False, save_strategy="no")
        started, cpu = time.perf_counter(), time.process_time()
        model = SetFitModel.from_pretrained(sys.argv[1], device="cpu")  # ours loads the encoder too
        Trainer(model=model, args=args, train_dataset=data).train()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    found = [labels[int(i)] for i in model.predict([row["text"] for row in work["test"]])]
    right = sum(a == row["label"] for a, row in zip(found, work["test"], strict=True))
    print(json.dumps({"accuracy": 100 * right / len(found), "seconds": seconds, "cpu_seconds": cpu}), file=out, flush=True)
"""


def rows_of(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def drawn(rows: list[Row], per_label: int, seed: int) -> list[Row]:
    """As many rows of each label, in a mixed order."""
    rng = random.Random(seed)
    labels = sorted({row["label"] for row in rows})
    found = [row for label in labels for row in rng.sample([row for row in rows if row["label"] == label], per_label)]
    return rng.sample(found, len(found))


def ours(name: str, train: list[Row], test: list[Row], seed: int) -> dict[str, float]:
    from icl import Task
    from icl.plugins import build
    from icl.protocols import MethodContext

    task = Task.load(train, test=test, input="text", label="label")
    method = build("method", name, MethodContext("classify", task.inputs, task.labels, seed))
    started, cpu = time.perf_counter(), time.process_time()
    predictor = method.fit(task.train, task.labels)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    found = predictor.predict(task.test)
    right = sum(p.answer == e.target for p, e in zip(found, task.test, strict=True))
    return {"accuracy": 100 * right / len(found), "seconds": seconds, "cpu_seconds": cpu}


class SetFit:
    def __init__(self, python: str, threads: int) -> None:
        from icl.weights import fetch

        self._process = subprocess.Popen(
            [python, "-c", PEER, str(fetch("minilm")), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        self.version = self._read()["version"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"SetFit ended with status {self._process.wait()}")
        return dict(json.loads(line))

    def __call__(self, train: list[Row], test: list[Row], seed: int) -> dict[str, float]:
        assert self._process.stdin is not None
        print(json.dumps({"train": train, "test": test, "seed": seed}), file=self._process.stdin, flush=True)
        return self._read()


def summary(found: list[dict[str, float]]) -> dict[str, float]:
    accuracy = [one["accuracy"] for one in found]
    spread = statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0
    return {
        "accuracy": round(statistics.fmean(accuracy), 2),
        "sd": round(spread, 2),
        **{name: round(statistics.median(one[name] for one in found), 2) for name in ("seconds", "cpu_seconds")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default="cr,agnews")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--per-label", type=int, default=8)
    parser.add_argument("--test-rows", type=int, default=500, help="Test rows, the same for all; drawn with a fixed seed.")
    parser.add_argument("--setfit-python", default=None)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    peer = SetFit(options.setfit_python, options.threads) if options.setfit_python else None
    result: dict[str, Any] = {"bench": "contrastive", "threads": options.threads, "setfit": peer.version if peer else None, "sets": {}}
    for name in options.sets.split(","):
        train, test = (rows_of(options.data / name / f"{part}.jsonl") for part in ("train", "test"))
        test = random.Random(0).sample(test, min(len(test), options.test_rows))
        found: dict[str, list[dict[str, float]]] = {}
        for split in range(options.splits):
            rows = drawn(train, options.per_label, split)
            turns: list[tuple[str, Any]] = [(m, lambda *work, m=m: ours(m, *work)) for m in ("contrastive", "embedding_head")]
            turns += [("setfit", peer)] if peer else []
            for method, fit in turns if split % 2 == 0 else turns[::-1]:
                found.setdefault(method, []).append(fit(rows, test, split))
            print(
                name,
                split,
                {method: tuple(round(f[-1][key], 1) for key in ("accuracy", "seconds", "cpu_seconds")) for method, f in found.items()},
                file=sys.stderr,
            )
        figures = {method: summary(each) for method, each in found.items()}
        if peer:
            pairs = zip(found["contrastive"], found["setfit"], strict=True)
            gaps = [a["accuracy"] - b["accuracy"] for a, b in pairs]
            half = 2.262 * statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) == 10 else None
            figures["ours_minus_setfit"] = {"accuracy": round(statistics.fmean(gaps), 2), "half_width_95": round(half, 2) if half else None}  # type: ignore[dict-item]
            for clock in ("seconds", "cpu_seconds"):
                figures[f"{clock}_ratio"] = round(figures["contrastive"][clock] / figures["setfit"][clock], 3)  # type: ignore[assignment]
        result["sets"][name] = {"n_test": len(test), **figures}
        print(name, figures, file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
