"""One encoder taught several tasks at once beside one encoder for each: `python tests/benchmarks/bench_multitask.py --data FOLDER`.

For each seed, `--per-label` rows of every label are drawn from FOLDER/NAME/train.jsonl; the same rows are learned by the method `classifier`,
task by task, and by one multi-task model, and the same test rows judge both. The last line is JSON: accuracies in percent, and the
difference, multi-task less single, paired over the test rows of all seeds, with a 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default="trec,sst2,agnews")
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--per-label", type=int, default=64)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--limit", type=int, default=500, help="test rows of each set")
    parser.add_argument("--temperature", type=float, default=10.0)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="of all trainings")
    parser.add_argument("--epochs", type=int, help="of all trainings; default: what each method finds sensible")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)

    import torch

    from icl import Task
    from icl.data import leak_guard
    from icl.data.budget import draw
    from icl.evaluate.prepare import limited
    from icl.methods._multitask import Pool, fit_tasks
    from icl.methods.classifier import Classifier, Settings
    from icl.train.multitask import MultitaskSettings

    torch.set_num_threads(options.threads)
    names = options.sets.split(",")
    tasks = {}
    for name in names:
        folder = options.data / name
        tasks[name] = leak_guard(Task.load(folder / "train.jsonl", test=folder / "test.jsonl", kind="classify", name=name))[0]
    right: dict[str, dict[str, list[list[bool]]]] = {how: {name: [] for name in names} for how in ("single", "multitask")}
    seconds: dict[str, float] = {"single": 0.0, "multitask": 0.0}

    def judge(how: str, name: str, predictor: Any) -> None:
        test = limited(tasks[name].test, options.limit)
        found = [p.answer == e.target for p, e in zip(predictor.predict(test), test, strict=True)]
        right[how][name].append(found)
        print(f"seed {seed} {name:10} {how:10} {100 * float(np.mean(found)):.1f}", flush=True)

    for seed in map(int, options.seeds.split(",")):
        pools = []
        for name, task in tasks.items():
            rows = draw(task.train, options.per_label * len(task.labels), labels=task.labels, seed=seed)
            pools.append(Pool(name, rows, task.labels, task.inputs))
        started = time.perf_counter()
        settings = MultitaskSettings(temperature=options.temperature, epochs=options.epochs, precision=options.precision)
        made = fit_tasks(pools, settings, base=options.base, seed=seed)
        seconds["multitask"] += time.perf_counter() - started
        for name, predictor in made.items():
            judge("multitask", name, predictor)
        for pool in pools:
            started = time.perf_counter()
            single = Classifier(Settings(epochs=options.epochs, precision=options.precision), options.base, pool.inputs, seed).fit(
                pool.pool, pool.labels
            )
            seconds["single"] += time.perf_counter() - started
            judge("single", pool.name, single)
    result: dict[str, Any] = {
        "bench": "multitask",
        "base": options.base,
        "per_label": options.per_label,
        "seeds": options.seeds,
        "sets": {},
    }
    rng = np.random.default_rng(0)
    for name in names:
        one, two = (np.asarray(right[how][name], dtype=float).mean(axis=0) for how in ("single", "multitask"))
        draws = rng.integers(0, len(one), (2000, len(one)))
        low, high = np.percentile((two - one)[draws].mean(axis=1), (2.5, 97.5))
        values = {"single": one.mean(), "multitask": two.mean(), "difference": (two - one).mean(), "low": low, "high": high}
        result["sets"][name] = {key: round(100 * float(value), 2) for key, value in values.items()}
        print(name, result["sets"][name])
    result["seconds"] = {how: round(value) for how, value in seconds.items()}
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
