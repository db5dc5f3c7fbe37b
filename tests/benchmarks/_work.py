"""The work: the prompts that all programs are given, built from data with a fixed seed.

W1 to W4 are scored, W5 is written. A folder with `agnews/` and `banking77/` (`train.jsonl`, `test.jsonl` with `text` and `label`) gives the
work whose figures are published; without one, work of the same shape is built from the project's own texts, and every result says so.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

OWN_TEXTS = Path(__file__).resolve().parents[2] / "eval_suites" / "data"
LONGEST = 120
"""Words of a text; what comes after is cut."""


@dataclass(frozen=True)
class Shape:
    """One kind of scoring work."""

    data: str
    shared: bool
    """The same demonstrations for every query, or each query its own."""
    queries: int
    about: str


SCORING = {
    "W1": Shape("agnews", True, 48, "the same {shots} demonstrations, {labels} labels"),
    "W2": Shape("agnews", False, 24, "{shots} demonstrations of each query's own, {labels} labels"),
    "W3": Shape("banking77", False, 4, "{shots} demonstrations of each query's own, {labels} labels of several tokens"),
    "W4": Shape("banking77", True, 6, "the same {shots} demonstrations, {labels} labels of several tokens"),
}
WRITING = {
    "W5-equal": "{n} prompts with a shared prefix, {new} new tokens each",
    "W5-varied": "{n} prompts with a shared prefix, each text until its blank line, at most {new} new tokens",
}


@dataclass(frozen=True)
class Scoring:
    name: str
    about: str
    contexts: tuple[str, ...]
    continuations: tuple[tuple[str, ...], ...]

    def first(self, n: int) -> Scoring:
        return Scoring(self.name, self.about, self.contexts[:n], self.continuations[:n])

    def turned(self, turn: int) -> Scoring:
        """The same work with another beginning, so that a run finds nothing that an earlier one left in a cache."""
        return Scoring(self.name, self.about, _turned(self.contexts, turn), self.continuations)


@dataclass(frozen=True)
class Writing:
    name: str
    about: str
    prompts: tuple[str, ...]
    max_new_tokens: int
    stop: tuple[str, ...]

    def turned(self, turn: int) -> Writing:
        """As of Scoring."""
        return Writing(self.name, self.about, _turned(self.prompts, turn), self.max_new_tokens, self.stop)


def _turned(texts: tuple[str, ...], turn: int) -> tuple[str, ...]:
    return tuple(f"{turn}.\n{text}" for text in texts)


@dataclass(frozen=True)
class Data:
    """Rows (text, label) to draw demonstrations and queries from."""

    captions: tuple[str, str]
    train: tuple[tuple[str, str], ...]
    test: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]
    source: str


def _rows(path: Path, label: str = "label") -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return [(" ".join(str(row["text"]).split()[:LONGEST]), str(row[label]).replace("_", " ")) for row in rows]


def load(name: str, folder: Path | None) -> Data:
    """name: agnews or banking77. folder: where the public sets are; None: texts of the project in the same shape."""
    captions = ("Article", "Topic") if name == "agnews" else ("Message", "Intent")
    if folder is not None:
        train, test = (_rows(folder / name / f"{split}.jsonl") for split in ("train", "test"))
        return Data(captions, tuple(train), tuple(test), tuple(sorted({label for _, label in train})), name)
    train, test = _own_articles() if name == "agnews" else _own_intents()
    labels = sorted({label for _, label in train})
    return Data(captions, tuple(train), tuple(test), tuple(labels), f"the project's own texts in the shape of {name}")


def _own_articles() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Four topics, one of several tokens; two texts of a topic joined are as long as a news article's first lines."""
    words = {"politics": "World", "sport": "Sports", "business": "Business", "science": "Sci/Tech"}
    made = []
    for split in ("train", "test"):
        rows = [row for row in _rows(OWN_TEXTS / f"topic_{split}.jsonl") if row[1] in words]
        made.append(
            [(f"{a} {b}", words[topic]) for i, (a, topic) in enumerate(rows) for b, other in rows[i + 1 : i + 12] if other == topic]
        )
    return made[0], made[1]


def _own_intents() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """77 labels of several tokens: a support queue and the first words of one of its messages."""
    train, test = (_rows(OWN_TEXTS / f"support_{split}.jsonl", "queue") for split in ("train", "test"))
    known = sorted({f"{queue}: {' '.join(text.lower().split()[:2])}" for text, queue in train})
    names = [known[i * len(known) // 77] for i in range(77)]
    return [(text, names[i % len(names)]) for i, (text, _) in enumerate(train)], [(text, names[0]) for text, _ in test]


def _shot(data: Data, row: tuple[str, str], words: int) -> str:
    first, second = data.captions
    return f"{first}: {' '.join(row[0].split()[:words])}\n{second}: {row[1]}\n\n"


def scoring(name: str, folder: Path | None, queries: int | None = None, *, quick: bool = False, seed: int = 0) -> Scoring:
    """W1 to W4. queries: how many instead of the usual number; demonstrations drawn at random stand for retrieved ones. quick: a few tokens
    in the same shape, to see whether everything runs."""
    shape = SCORING[name]
    data = load(shape.data, folder)
    rng = random.Random(seed)
    shots, words = (2, 10) if quick else (8, LONGEST)
    labels = tuple(f" {label}" for label in (data.labels[:6] if quick else data.labels))
    wanted = queries or (2 if quick else shape.queries)
    asked = [data.test[i % len(data.test)] for i in rng.sample(range(max(wanted, len(data.test))), wanted)]
    common = rng.sample(data.train, shots)
    contexts = []
    for text, _ in asked:
        demonstrations = common if shape.shared else rng.sample(data.train, shots)
        query = f"{data.captions[0]}: {' '.join(text.split()[:words])}\n{data.captions[1]}:"
        contexts.append("".join(_shot(data, row, words) for row in demonstrations) + query)
    return Scoring(
        name, f"{wanted} queries, {shape.about.format(shots=shots, labels=len(labels))}; {data.source}", tuple(contexts), (labels,) * wanted
    )


def writing(name: str, folder: Path | None, *, quick: bool = False, seed: int = 0) -> Writing:
    """W5: articles to be continued. The shared prefix are 8 articles, each behind its topic, so texts end by themselves at a blank line; the
    number of words given differs, and with it the length of what is left to write."""
    data = load("agnews", folder)
    rng = random.Random(seed)
    shots, words, n, new = (2, 10, 4, 8) if quick else (8, LONGEST, 64, 64)
    given = rng.sample(data.train, shots)
    prefix = "".join(f"Topic: {topic}\nArticle: {' '.join(text.split()[:words])}\n\n" for text, topic in given)
    prompts: list[str] = []
    for text, topic in rng.sample(data.test, len(data.test)):
        start = " ".join(text.split()[: rng.randint(4, 6 if quick else 16)])
        prompt = f"{prefix}Topic: {topic}\nArticle: {start}"
        if prompt not in prompts and len(prompts) < n:
            prompts.append(prompt)
    return Writing(
        name, f"{WRITING[name].format(n=n, new=new)}; {data.source}", tuple(prompts), new, ("\n\n",) if name == "W5-varied" else ()
    )
