"""A small training that a test can kill: rows of token ids, whose label is a rule that a random BERT learns quickly."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from killing import killed

from icl.seeds import rng_for
from icl.train import Lesson, seeded, shuffled, train
from icl.train.losses import label_loss
from icl.train.settings import TrainingSettings

SETTINGS = TrainingSettings(epochs=4, batch_size=8, learning_rate=5e-3)


def rows(n: int, seed: int = 0) -> list[tuple[list[int], int]]:
    """The label is whether token 7 or token 8 is in the row, at a random place among 5 to 12 others."""
    made = []
    for i in range(n):
        rng = rng_for(seed, "row", i)
        label = rng.randrange(2)
        ids = [rng.randrange(20, 60) for _ in range(rng.randrange(5, 12))]
        ids.insert(rng.randrange(len(ids) + 1), 7 + label)
        made.append((ids, label))
    return made


def model(dropout: float = 0.1, positions: int = 32) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    with seeded(0, "model"):
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=2,
                max_position_embeddings=positions, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
            )
        )  # fmt: skip


def padded(some: list[tuple[list[int], int]]) -> dict[str, torch.Tensor]:
    width = max(len(ids) for ids, _ in some)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in some])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in some])
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([label for _, label in some])}


def lesson(n: int = 96, *, pause: float = 0.0, validated: bool = True, seed: int = 0) -> Lesson:
    data, held_out = rows(n), padded(rows(40, seed=1))

    def collate(positions: Any, epoch: int) -> dict[str, torch.Tensor]:
        time.sleep(pause)
        return padded([data[i] for i in positions])

    def loss(model: Any, batch: Any) -> torch.Tensor:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return label_loss(logits, batch["labels"]).mean()

    def validate(model: Any) -> dict[str, float]:
        batch = {name: value.to(model.device) for name, value in held_out.items()}
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        right = (logits.argmax(-1) == batch["labels"]).float().mean()
        return {"validation_loss": float(label_loss(logits, batch["labels"]).mean()), "accuracy": float(right)}

    batches = shuffled(n, SETTINGS.batch_size, seed, [len(ids) for ids, _ in data])
    return Lesson(batches, collate, loss, validate if validated else None, best=("accuracy", "-validation_loss"), key=[data])


def logits_of(trained: Any) -> torch.Tensor:
    batch = padded(rows(40, seed=2))
    with torch.no_grad():
        return trained(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def train_until_killed(folder: Path, at: int) -> None:
    """Trains with a checkpoint after every step, and is killed at some point after step `at`."""
    killed(
        lambda: train(model(), lesson(pause=0.01), SETTINGS, work=folder, checkpoint_every_s=0.0),
        lambda: any(int(path.name.split("-")[1]) >= at for path in folder.glob("checkpoint-*")),
        random.Random(at).uniform(0, 0.03),  # so that it may also be in the middle of writing a checkpoint
    )


if __name__ == "__main__":  # FOLDER STEP FOLDER STEP …
    torch.set_num_threads(1)
    for folder, at in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        train_until_killed(Path(folder), int(at))
