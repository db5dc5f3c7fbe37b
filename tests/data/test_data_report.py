"""The data report: every figure checked on rows made for it."""

import json

import numpy as np
import pytest

from icl.data import Task, report
from icl.data.diversity import effective_number


class WordEncoder:
    """One dimension a word of a small vocabulary: vectors that can be worked out by hand."""

    name = fingerprint = "words"
    words = ("red", "green", "blue")
    dimensions = 3

    def encode(self, texts):
        counts = np.array([[text.split().count(word) for word in self.words] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    def cut(self, texts):
        return [len(text.split()) > 3 for text in texts]


def test_effective_number_of_known_matrices():
    assert effective_number(np.eye(5)) == pytest.approx(5)
    assert effective_number(np.repeat(np.eye(8)[:1], 100, axis=0)) == pytest.approx(1)
    assert effective_number(np.repeat(np.eye(4), 25, axis=0)) == pytest.approx(4)
    assert effective_number(np.zeros((0, 3))) == 0
    rng = np.random.default_rng(0)
    for n, d in ((40, 7), (7, 40)):  # either side of the product gives the definition's value
        x = rng.normal(size=(n, d))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        eigenvalues = np.linalg.eigvalsh(x @ x.T / n).clip(1e-300)
        assert effective_number(x.astype(np.float32)) == pytest.approx(np.exp(-np.sum(eigenvalues * np.log(eigenvalues))), rel=1e-5)


@pytest.fixture
def task():
    train = [
        {"text": "red", "label": "warm"},
        {"text": "Red!", "label": "cold"},
        {"text": "blue", "label": "cold"},
        {"text": "green", "label": "cold"},
        {"text": "blue blue blue blue", "label": "cold"},
        {"text": "", "label": "cold"},
    ]
    return Task.load(train, test=[{"text": "green", "label": "warm"}, {"text": "blue red", "label": "cold"}], name="colours")


def test_the_figures(task):
    task_texts = [e.fields["text"].lower().strip("!") for e in task.train]
    encoder = WordEncoder()
    encoder.encode = lambda texts: WordEncoder.encode(encoder, [t.lower().strip("!") for t in texts])
    found = report(task, encoder, count_tokens=lambda text: 2 * len(text.split()))
    train, test = found.splits["train"], found.splits["test"]
    assert found.n_rows == {"train": 6, "test": 2}
    assert found.rejected == {"empty text": 1}
    assert train.labels == {"warm": 1, "cold": 4}
    assert test.labels == {"warm": 1, "cold": 1}
    assert (train.n_exact, train.n_near, train.n_cut, test.n_cut) == (1, 0, 1, 0)
    assert (train.words.smallest, train.words.median, train.words.largest) == (1, 1, 4)
    assert (train.tokens.largest, train.characters.largest) == (8, 19)
    assert (found.overlaps["train/test"].n_text, found.overlaps["train/test"].n_near) == (1, 0)
    conflicts = {c.text: [(split, label) for split, _, label in c.rows] for c in found.conflicts}
    assert conflicts == {"red": [("train", "warm"), ("train", "cold")], "green": [("train", "cold"), ("test", "warm")]}
    shares = np.array([2, 1, 2]) / len(task_texts)
    assert found.diversity.overall == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))
    assert found.diversity.per_label["warm"] == pytest.approx(1)
    shares = np.array([1, 1, 2]) / 4
    assert found.diversity.per_label["cold"] == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))


def test_lines_json_and_warnings(task):
    encoder = WordEncoder()
    encoder.encode = lambda texts: WordEncoder.encode(encoder, [t.lower().strip("!") for t in texts])
    found = report(task, encoder)
    text = "\n".join(found.lines())
    for part in ("colours (classify)", "train 5 · test 2", "8 read, 1 rejected: 1 × empty text", "train: cold 4, warm 1", "train/test: 1 equal, 0 near",
                 "2 texts with different labels", "'red': warm 1, cold 1", "train 1 of 5", "warning    2 texts (4 rows)", "the 5 texts of the pool amount to"):  # fmt: skip
        assert part in text
    assert "tokens" not in text
    again = json.loads(json.dumps(found.as_dict()))
    assert again["splits"]["train"]["labels"] == {"warm": 1, "cold": 4}
    warnings = [str(w) for w in found.warnings]
    assert any("2 texts (4 rows) carry different labels" in w for w in warnings)
    assert any("1 rows of train equal a row of test" in w for w in warnings)
    assert any("longer than the encoder reads" in w for w in warnings)


def test_near_duplicates_within_a_split_are_counted():
    text = "the parcel that you sent to my office on the second floor last week has still not arrived and nobody can tell me where it is"
    rows = [text, text.replace("office", "house"), text.upper(), "something else altogether"]
    task = Task.load([{"text": t, "label": "a"} for t in rows], holdout=0)
    part = report(task, None).splits["train"]
    assert (part.n_exact, part.n_near, part.n_cut) == (1, 1, None)


def test_choose_and_answer_tasks_are_reported():
    choose = Task.load(
        [{"q": "a?", "choices": ["x", "x", "y"], "label": 2}, {"q": "a?", "choices": ["y", "x", "x"], "label": 1}],
        input="q",
        choices="choices",
        holdout=0,
    )
    found = report(choose, None)
    assert (found.splits["train"].labels, len(found.conflicts)) == ({}, 1)
    assert any("offer the same choice twice" in w.message for w in found.warnings)
    answer = Task.load([{"q": "a?", "label": ["x"]}, {"q": "a?", "label": ["y"]}], input="q", holdout=0)
    assert report(answer, None).conflicts == ()
    assert "not looked for in answers" in "\n".join(report(answer, None).lines())


@pytest.mark.minilm
def test_with_the_default_encoder():
    from icl.retrieve import load_encoder

    alike = [f"I would like to return the {thing} that I bought." for thing in ("shoes", "shirt", "jacket", "boots")]
    varied = ["Where is my parcel?", "The app crashes at login.", "Do you sell gift cards?", "Please cancel my order."]
    rows = [{"text": t, "label": "alike"} for t in alike] + [{"text": t, "label": "varied"} for t in varied]
    found = report(Task.load([*rows, {"text": "word " * 1000, "label": "long"}], holdout=0), load_encoder("minilm"))
    assert 1 < found.diversity.per_label["alike"] < found.diversity.per_label["varied"] - 0.5 < 4
    assert found.diversity.per_label["long"] == pytest.approx(1)
    assert found.splits["train"].n_cut == 1
