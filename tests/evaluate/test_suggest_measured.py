"""Whether suggested rows teach more than random ones at the same label budget: simulated, with the labels of a public set hidden until
they are asked for."""

import json

import numpy as np
import pytest

import icl
from icl.methods.embedding_head import EmbeddingHead
from icl.methods.knn_vote import KnnVote

POOL, TEST, RANDOM = 2000, 500, 5
STEPS = {"trec": [(0, 32), (32, 32), (64, 64)], "banking77": [(0, 128), (128, 128)]}
"""(rows that are labelled already, rows to label next)"""
DRAWS = {"trec": 20, "banking77": 8}


def accuracy(method, rows, labels, test):
    predictions = method.fit(rows, labels=labels).predict(test)
    return np.mean([p.answer == e.target for p, e in zip(predictions, test, strict=True)])


def interval(differences):
    """(mean, low, high), 95 %, over draws."""
    from scipy.stats import t

    mean, n = np.mean(differences), len(differences)
    half = t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / n**0.5
    return mean, mean - half, mean + half


def said(figures, **what):
    print(json.dumps(what | {name: round(float(value), 4) for name, value in figures.items()}), flush=True)


@pytest.mark.slow
@pytest.mark.minilm
@pytest.mark.parametrize("name", sorted(STEPS))
def test_suggested_rows_teach_more_than_random_ones(shared, name):
    folder = shared / "data" / name
    task = icl.Task.load(folder / "train.jsonl", test=folder / "test.jsonl")
    methods = {"embedding_head": EmbeddingHead(), "knn_vote": KnnVote()}
    pooled = []
    for n_known, budget in STEPS[name]:
        ways = ("uncertainty", "disagreement", "diversity", "votek") if n_known else ("diversity", "votek")
        gains = {(way, method): [] for way in ways for method in methods}
        level = {method: [] for method in methods}
        for draw in range(DRAWS[name]):
            rng = np.random.default_rng([draw, n_known])
            pool = [task.train[i] for i in rng.choice(len(task.train), POOL, replace=False)]
            test = [task.test[i] for i in rng.choice(len(task.test), TEST, replace=False)]
            known, rest = pool[:n_known], pool[n_known:]
            sets = {way: [each.example for each in icl.suggest(rest, budget, labelled=known, by=way, seed=draw).rows] for way in ways}
            chance = [[rest[i] for i in rng.choice(len(rest), budget, replace=False)] for _ in range(RANDOM)]
            for method, fresh in methods.items():
                level[method].append(np.mean([accuracy(fresh, [*known, *rows], task.labels, test) for rows in chance]))
                for way, rows in sets.items():
                    gains[way, method].append(accuracy(fresh, [*known, *rows], task.labels, test) - level[method][-1])
        for (way, method), found in gains.items():
            figures = dict(zip(("gain", "low", "high"), interval(found), strict=True)) | {"random": np.mean(level[method])}
            said(figures, set=name, labelled=n_known, more=budget, by=way, method=method)
        auto = "uncertainty" if n_known else "diversity"
        pooled += [np.mean([gains[auto, method][i] for method in methods]) for i in range(DRAWS[name])]
    mean, low, high = interval(pooled)
    said({"gain": mean, "low": low, "high": high}, set=name, by="auto")
    assert low > 0
