"""The training loop: it learns, the same seed gives the same weights, and an interruption changes nothing."""

import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import lessons

from icl.errors import IclError, InputError
from icl.train import loop, shuffled, train
from icl.train.checkpoint import newest

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def uninterrupted():
    """(the record, logits on rows that training does not see) of a training that nothing disturbs."""
    torch.set_num_threads(1)
    trained = lessons.model()
    record = train(trained, lessons.lesson(), lessons.SETTINGS)
    return record, lessons.logits_of(trained)


def accuracy(logits):
    right = torch.tensor([label for _, label in lessons.rows(40, seed=2)])
    return float((logits.argmax(-1) == right).float().mean())


def test_it_learns_a_rule_and_says_what_it_cost(uninterrupted):
    record, logits = uninterrupted
    assert accuracy(logits) > 0.85
    assert [point["epoch"] for point in record.curve] == [1, 2, 3, 4]
    assert record.curve[-1]["loss"] < 0.5 < record.curve[0]["loss"] < 1.0
    assert record.n_steps == 48
    assert record.n_trained == record.n_parameters == sum(p.numel() for p in lessons.model().parameters())
    assert record.n_bytes == 4 * record.n_trained
    assert record.n_tokens == 4 * sum(len(ids) for ids, _ in lessons.rows(96))
    assert 0 < record.n_padding < record.n_tokens / 4
    assert (
        record.operations > 3 * 2 * 2 * 12 * 32**2 * record.n_tokens / 2
    )  # 6 operations a weight and token, two layers of about 8 d² each
    assert record.peak_memory_mb > 50


def test_the_best_epoch_is_kept():
    trained = lessons.model()
    plain = lessons.lesson()
    scores = iter([0.5, 0.9, 0.9, 0.1])
    seen = []

    def validate(model):
        seen.append(lessons.logits_of(model))
        return {"accuracy": next(scores), "validation_loss": 1.0}

    record = train(trained, lessons.Lesson(plain.batches, plain.collate, plain.loss, validate, best=("accuracy",)), lessons.SETTINGS)
    assert record.best_epoch == 2
    assert torch.equal(lessons.logits_of(trained), seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert not trained.training


def test_it_stops_when_it_no_longer_gets_better():
    plain = lessons.lesson()
    losses = iter([1.0, 0.5, 0.6, 0.7])
    lesson = lessons.Lesson(plain.batches, plain.collate, plain.loss, lambda model: {"validation_loss": next(losses)})
    record = train(lessons.model(), lesson, lessons.SETTINGS.model_copy(update={"epochs": 8, "patience": 2}))
    assert (record.stopped_early, record.epochs, record.best_epoch, record.n_steps) == (True, 4, 2, 48)


def test_the_seed_decides_and_the_callers_generators_are_left_alone(uninterrupted):
    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(3), random.random()
    torch.manual_seed(5)
    random.seed(5)
    again = lessons.model()
    train(again, lessons.lesson(), lessons.SETTINGS)
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]
    assert torch.equal(lessons.logits_of(again), uninterrupted[1])
    other = lessons.model()
    train(other, lessons.lesson(seed=1), lessons.SETTINGS, seed=1)
    assert not torch.allclose(lessons.logits_of(other), uninterrupted[1])


def test_rows_at_once_change_memory_and_not_the_gradient():
    """Without dropout: the mean over all rows of a step, however they are cut."""
    settings = lessons.SETTINGS.model_copy(update={"epochs": 1})
    logits = []
    for rows_at_once in (None, 3):
        trained = lessons.model(dropout=0.0)
        train(trained, lessons.lesson(), settings.model_copy(update={"rows_at_once": rows_at_once}))
        logits.append(lessons.logits_of(trained))
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-3)
    assert not torch.equal(logits[0], logits[1])


def test_a_step_of_many_tokens_is_cut_into_parts_with_the_same_gradient(monkeypatch):
    """Where a lesson says how many tokens its rows have; a row that is longer than a part may be goes alone."""
    settings = lessons.SETTINGS.model_copy(update={"epochs": 1})
    logits, sizes = [], []
    n_tokens = [len(ids) for ids, _ in lessons.rows(96)]
    for at_once in (10**6, 24):
        monkeypatch.setattr(loop, "AT_ONCE", at_once)
        lesson = lessons.lesson()
        seen = []

        def collate(rows, epoch, inner=lesson.collate, seen=seen):
            seen.append(list(rows))
            return inner(rows, epoch)

        trained = lessons.model(dropout=0.0)
        train(trained, replace(lesson, n_tokens=n_tokens, collate=collate), settings)
        logits.append(lessons.logits_of(trained))
        sizes.append([len(rows) * max(n_tokens[row] for row in rows) if len(rows) > 1 else 0 for rows in seen])
    assert max(sizes[0]) > 24 >= max(sizes[1]) > 0
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-3)


def test_rows_of_other_lengths_go_through_the_model_apart():
    """A step of short and long rows is little but padding if it is one part; the gradient is the same."""
    short, long = lessons.rows(48), [(ids * 8, label) for ids, label in lessons.rows(48, seed=3)]
    data = [row for pair in zip(short, long, strict=True) for row in pair]
    settings = lessons.SETTINGS.model_copy(update={"epochs": 1})
    logits, padding = [], []
    for n_tokens in (None, [len(ids) for ids, _ in data]):
        trained = lessons.model(dropout=0.0, positions=128)
        lesson = replace(
            lessons.lesson(validated=False),
            batches=shuffled(96, 8, 0),
            collate=lambda rows, epoch: lessons.padded([data[row] for row in rows]),
            n_tokens=n_tokens,
        )
        padding.append(train(trained, lesson, settings).n_padding)
        logits.append(lessons.logits_of(trained))
    assert padding[1] < padding[0] / 3
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "points", [(3, 24, 41), pytest.param((1, 7, 12, 13, 20, 29, 36, 37, 44, 46), marks=pytest.mark.slow)], ids=["three", "ten"]
)
def test_kill_9_and_resume_end_in_the_same_weights(tmp_path, uninterrupted, points):
    folders = {at: tmp_path / str(at) for at in points}
    words = [str(word) for at, folder in folders.items() for word in (folder, at)]
    subprocess.run([sys.executable, lessons.__file__, *words], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=300)
    expected, logits = uninterrupted
    for at, folder in folders.items():
        last = newest(folder)
        assert (int(last.name.split("-")[1]) if last else 0) >= at - 1  # that of step `at` may not be whole
        trained = lessons.model()
        record = train(trained, lessons.lesson(), lessons.SETTINGS, work=folder)
        assert torch.equal(lessons.logits_of(trained), logits), at
        assert record.curve == expected.curve
        assert record.operations == pytest.approx(expected.operations)
        for name in ("best_epoch", "n_tokens", "n_padding", "n_steps"):
            assert getattr(record, name) == getattr(expected, name), name
        assert not folder.exists()


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path, uninterrupted):
    work = tmp_path / "work"
    stop = RuntimeError("power cut")

    def until_epoch_2(point):
        if point["epoch"] == 2:
            raise stop

    with pytest.raises(RuntimeError, match="power cut"):
        train(lessons.model(), lessons.lesson(), lessons.SETTINGS, work=work, checkpoint_every_s=0, on_epoch=until_epoch_2)
    last = newest(work)
    assert last is not None
    assert {p.suffix for p in last.iterdir()} >= {".safetensors", ".json"}
    assert not (last / "training_args.bin").exists()
    assert [p.name for p in work.glob("checkpoint-*")] == [last.name]
    other = lessons.SETTINGS.model_copy(update={"epochs": 1})
    trained = lessons.model()
    record = train(trained, lessons.lesson(), other, work=work)
    assert record.n_steps == 12
    expected = lessons.model()
    train(expected, lessons.lesson(), other)
    assert torch.equal(lessons.logits_of(trained), lessons.logits_of(expected))


def test_no_room_on_disk_is_said_before_any_step(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(1 << 30, 1 << 30, 1 << 20))
    with pytest.raises(InputError, match="no room on disk for the checkpoints"):
        train(lessons.model(), lessons.lesson(), lessons.SETTINGS, work=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_training_that_diverges_says_so():
    plain = lessons.lesson()
    lesson = lessons.Lesson(plain.batches, plain.collate, lambda model, batch: plain.loss(model, batch) * float("nan"))
    with pytest.raises(IclError, match="diverged"):
        train(lessons.model(), lesson, lessons.SETTINGS)


def test_a_model_without_trained_weights_is_refused():
    frozen = lessons.model().requires_grad_(False)
    with pytest.raises(InputError, match="no weight of the model is trained"):
        train(frozen, lessons.lesson(), lessons.SETTINGS)
