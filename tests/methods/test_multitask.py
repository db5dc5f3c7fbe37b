"""One encoder, several tasks: how they are drawn, that each is learned, and that a task's classifier is the shared one's part of it."""

import math
import random
from collections import Counter

import pytest
import tiny
import torch
from small_tasks import example

import icl
from icl.errors import InputError
from icl.methods._multitask import Pool, fit_tasks
from icl.train.multitask import MultitaskSettings, columns_of, mixed, shares

pytestmark = pytest.mark.usefixtures("one_thread")
COLOURS = {"red": ["blood", "rose", "brick"], "green": ["grass", "leaf", "frog"], "blue": ["sky", "sea", "ink"]}
SIZES = {"big": ["whale", "tower"], "small": ["ant", "crumb"]}
FILLER = ["the", "a", "is", "was", "there", "very", "old", "near", "here"]


def rows(words, n, seed=0):
    rng = random.Random(seed)
    made = []
    for i in range(n):
        label = list(words)[i % len(words)]
        text = " ".join([*(rng.choice(FILLER) for _ in range(4)), rng.choice(words[label])])
        made.append(example({"text": text}, label, occurrence=i))
    return made


@pytest.fixture(scope="module", params=["own", "sentence"])
def base(request, tmp_path_factory):
    words = [*FILLER, *(word for each in (*COLOURS.values(), *SIZES.values()) for word in each)]
    return str(tiny.save_bert(tmp_path_factory.mktemp("base") / "bert", words, sentence=request.param == "sentence"))


def tasks(n=60):
    return [Pool("colour", rows(COLOURS, n), tuple(COLOURS)), Pool("size", rows(SIZES, n // 2), (*SIZES, "unknown"))]


def accuracy(predictor, queries):
    return sum(p.answer == e.target for p, e in zip(predictor.predict(queries), queries, strict=True)) / len(queries)


def test_shares_by_hand():
    assert shares([300, 100], 1) == [0.75, 0.25]
    assert shares([900, 100], 2) == [0.75, 0.25]
    assert shares([900, 100], 1e9) == pytest.approx([0.5, 0.5])
    assert shares([900, 100], 1, limit=300) == [0.75, 0.25]


def test_rows_are_drawn_by_the_temperature_and_each_comes_before_any_comes_again():
    sizes, temperature = [200, 40], 2.0
    batches = mixed(sizes, 16, 0, temperature)
    epochs = [[row for step in batches(epoch) for row in step] for epoch in range(6)]
    assert [len(batches(epoch)) for epoch in (0, 5)] == [15, 15]
    drawn = [row for epoch in epochs for row in epoch]
    share = shares(sizes, temperature)[1]
    n = sum(row >= 200 for row in drawn)
    assert abs(n - share * len(drawn)) < 4 * math.sqrt(share * (1 - share) * len(drawn))
    for task in (range(200), range(200, 240)):
        counts = Counter(row for row in drawn if row in task)
        assert max(counts.values()) - min(counts[row] for row in task) <= 1
    assert batches(3) == mixed(sizes, 16, 0, temperature)(3)  # whichever epochs were asked for before
    assert batches(3) != mixed(sizes, 16, 1, temperature)(3)


def test_columns_of_a_head():
    assert columns_of([2, 3]) == [slice(0, 2), slice(2, 5)]


def test_each_task_is_learned_and_saved_as_a_classifier(base, tmp_path):
    settings = MultitaskSettings(epochs=8, batch_size=8, learning_rate=5e-3)
    found = fit_tasks(tasks(), settings, base=base, seed=1)
    queries = {"colour": rows(COLOURS, 30, seed=9), "size": rows(SIZES, 30, seed=9)}
    for name, predictor in found.items():
        assert accuracy(predictor, queries[name]) > 0.9
        predictor.save(tmp_path / name)
        again = icl.load(tmp_path / name)
        assert [p.probabilities for p in again.predict(queries[name])] == [p.probabilities for p in predictor.predict(queries[name])]
        assert predictor.training["tasks"] == {"colour": 60, "size": 30}
    assert found["size"].predict(["the whale"])[0].probabilities["unknown"] > 0  # a label without rows keeps its floor
    one, two = (found[name].made.model.state_dict() for name in found)
    assert [name for name in one if one[name].shape != two[name].shape] == ["classifier.weight", "classifier.bias"]
    assert all(torch.equal(one[name], two[name]) for name in one if one[name].shape == two[name].shape)


def test_the_best_epoch_by_all_tasks_is_kept(base):
    points = []
    settings = MultitaskSettings(epochs=4, batch_size=8, learning_rate=5e-3, validation=0.2)
    found = fit_tasks(tasks(), settings, base=base, on_epoch=points.append)
    assert len(points) == 4
    for point in points:
        assert point["accuracy"] == pytest.approx((point["accuracy of colour"] + point["accuracy of size"]) / 2, abs=1e-5)
    best = max(points, key=lambda point: (point["accuracy"], -point["validation_loss"]))
    assert found["size"].training["best_epoch"] == best["epoch"]


def test_what_cannot_be_taught_is_said_at_once(base):
    settings = MultitaskSettings()
    one = Pool("one", [e for e in rows(COLOURS, 9) if e.target == "red"])
    with pytest.raises(InputError) as found:
        fit_tasks([one, Pool("one", rows(SIZES, 4))], settings, base=base)
    assert [p.message for p in found.value.problems] == ["two tasks have the name 'one'", "all examples of 'one' have the label 'red'"]
    with pytest.raises(InputError, match="1 task is not several"):
        fit_tasks(tasks()[:1], settings, base=base)


def test_the_benchmark_runs(tmp_path, monkeypatch):
    import json
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(tiny.__file__).parent / "benchmarks"))
    import bench_multitask

    base = tiny.save_bert(tmp_path / "bert", FILLER)
    for name, words in {"colour": COLOURS, "size": SIZES}.items():
        (tmp_path / name).mkdir()
        for split, n in {"train": 24, "test": 12}.items():
            lines = [
                json.dumps({"text": f"{e.fields['text']} {split} {e.uid}", "label": e.target}) for e in rows(words, n, seed=len(split))
            ]
            (tmp_path / name / f"{split}.jsonl").write_text("\n".join(lines))
    small = ["--per-label", "4", "--epochs", "1", "--seeds", "0", "--base", str(base)]
    found = bench_multitask.main(["--data", str(tmp_path), "--sets", "colour,size", *small])
    for each in found["sets"].values():
        assert each["difference"] == pytest.approx(each["multitask"] - each["single"], abs=0.02)
