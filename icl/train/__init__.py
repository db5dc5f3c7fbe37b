"""What trained methods share. How it is used:

    from ..train.settings import TrainingSettings          # light: a method's Settings inherit it

    class Settings(TrainingSettings): …                    # epochs, batch_size, learning_rate, layer_decay, patience, …

    from ..train import Lesson, train, shuffled, seeded    # imports torch: inside functions

    with seeded(seed, "head"):                             # new weights are drawn
        model = …
    lesson = Lesson(
        batches=shuffled(len(rows), settings.batch_size, seed, lengths),   # epoch -> rows of each step
        collate=lambda rows, epoch: {"input_ids": …, "attention_mask": …, "labels": …},
        loss=lambda model, batch: cross_entropy(…),        # mean over the rows; formulas live in losses.py
        validate=lambda model: {"validation_loss": …, "accuracy": …},      # or None
        best=("accuracy", "-validation_loss"),
        key=[[row.uid, row.target] for row in rows],       # for checkpoints
    )
    record = train(model, lesson, settings, seed=seed, work=folder_or_None)

`train` leaves the best weights in the model and returns a `Training` (record.py): curve, seconds, memory, parameters, tokens, operations.
With `work` it writes checkpoints there and goes on from them after an interruption. A predictor keeps the record as its attribute
`training` (a mapping, `record.as_dict()`), from where a run puts it into timing.json; an attribute `totals` with `computed`, `padding`
and `operations` is what its predictions cost. A method gets `work` from `MethodContext.work`.

settings.py  what all trained methods can be told     loop.py        the loop, on the Trainer of transformers
record.py    what is known afterwards                 checkpoint.py  its working files
split.py     validation within the pool               layers.py      freezing, dropout, learning rates by layer
losses.py    losses as pure functions                 cost.py        operations, memory, room on disk
encoder.py   a loop for sentence encoders, on which   contrastive.py and retriever.py (EPR) stand
pretrain.py  language models from plain text, with    documents, scratch, language, reader, packing, perplexity
multitask.py one encoder, several tasks               meta.py        few-shot prompts of many tasks, with task_folder, episodes
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "Lesson": "loop",
    "train": "loop",
    "shuffled": "loop",
    "seeded": "loop",
    "Training": "record",
    "TrainingSettings": "settings",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'icl.train' has no attribute '{name}'")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
