"""A small task on disk, and a method plug-in whose answers depend on the query, the pool and the seed alone."""

import csv
import random
from pathlib import Path

import pytest

COLOURS = ("red", "green", "blue")
METHOD = '''"""Answers by hash: right most of the time, the more often the more it learnt from."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from icl.seeds import rng_for
from icl.values import Prediction

KIND = "method"
KINDS = frozenset({"classify"})
NEEDS_LABELS = True
NEEDS_MODEL = False


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    seconds: float = 0.0
    fails_on: str | None = None
    fit_fails: bool = False
    log: str | None = None


@dataclass
class Hashed:
    settings: Settings
    labels: tuple
    seed: int
    n: int = 0
    pool: str = ""
    name: str = "hashed"

    def fit(self, pool, labels=(), unlabelled=()):
        if self.settings.fit_fails:
            raise RuntimeError("this never fits")
        return Hashed(self.settings, self.labels, self.seed, len(pool), ",".join(e.uid for e in pool))

    def predict(self, queries):
        time.sleep(self.settings.seconds * len(queries))
        if self.settings.log:
            with open(self.settings.log, "a", encoding="utf-8") as file:
                file.write("".join(f"{self.seed}|{self.pool}|{q.uid}\\n" for q in queries))
        return [self.one(q) for q in queries]

    def one(self, query):
        if self.settings.fails_on and self.settings.fails_on in str(query.fields["text"]):
            raise ValueError("cannot read this")
        rng = rng_for(self.seed, self.pool, query.uid)
        right = rng.random() < min(0.95, 0.4 + self.n / 100)
        answer = query.target if right else rng.choice(self.labels)
        return Prediction(query.uid, answer, {label: 0.9 if label == answer else 0.05 for label in self.labels}, self.labels)

    def save(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "predictor.json").write_text(json.dumps({"method": "hashed", "name": self.name, "n": self.n}))


def build(settings, context):
    return Hashed(settings, context.labels, context.seed)
'''


def write_rows(path: Path, n: int, seed: int) -> None:
    rng = random.Random(seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "colour"])
        for i in range(n):
            colour = rng.choice(COLOURS)
            words = rng.sample(["sky", "grass", "fire", "sea", "leaf", "rose", "stone", "cloud"], 3)
            writer.writerow([f"{' '.join(words)} looks {colour if rng.random() < 0.7 else 'odd'} number {seed}{i}", colour])


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with train.csv (60 rows), test.csv (40 rows), plugins/ and suite.yaml."""
    write_rows(tmp_path / "train.csv", 60, 1)
    write_rows(tmp_path / "test.csv", 40, 2)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "hashed.py").write_text(METHOD, encoding="utf-8")
    (tmp_path / "suite.yaml").write_text(SUITE, encoding="utf-8")
    return tmp_path


SUITE = """\
description: Colours
tasks:
  - {name: colours, train: train.csv, test: test.csv, label: colour}
methods:
  - majority
  - hashed
budgets: [10, all]
seeds: 2
metrics: [accuracy, macro_f1, ece]
"""
