"""The one training loop: the Trainer of transformers, with an order of rows, losses, validations and checkpoints of our own.

Departures from its defaults. The order of rows and the dropout of a step depend on the seed and the step alone, so a training that goes
on after an interruption ends with the same weights as one that was never stopped (fp32 on a CPU, with as many threads). Checkpoints hold
trained weights only, as safetensors, and are written by time. The best weights are kept in memory. It prints nothing.
"""

from __future__ import annotations

import contextlib
import math
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ..errors import InputError, Problem
from ..progress import progress
from ..seeds import rng_for, seed_for
from ..values import digest
from ..weights import quiet_transformers
from .checkpoint import finish, open_work, put_weights, read_state, trained_weights, write_state
from .cost import memory_mb, n_bytes_of, operations_of, reset_memory, tokens_of
from .layers import parameter_groups
from .record import Diverged, Training
from .settings import EPOCHS, LEARNING_RATE, TrainingSettings

Batch: TypeAlias = Mapping[str, Any]
CHECKPOINT_EVERY_S = 300.0
AT_ONCE, AT_ONCE_CUDA = 1024, 16384
"""Tokens of a step that go through a model together, where a lesson says how many its rows have. More of them take more memory and, with a
large model, are not faster."""


@dataclass(frozen=True)
class Lesson:
    """What is trained on. Rows are known by their positions only, so that they may be anything.

    Functions here must not draw from global generators: what is random is drawn from `seeds.rng_for(seed, …, epoch, row)`.
    """

    batches: Callable[[int], Sequence[Sequence[int]]]
    """epoch (from 0) -> the rows of each step; as many steps in every epoch. Usually `shuffled(…)`."""
    collate: Callable[[Sequence[int], int], Batch]
    """(rows, epoch) -> tensors on the CPU. A key `attention_mask`, anywhere inside, is what tokens are counted by."""
    loss: Callable[[Any, Batch], torch.Tensor]
    """(model, batch on its device) -> the mean loss of the batch's rows."""
    validate: Callable[[Any], Mapping[str, float]] | None = None
    """Called after every epoch with the model in evaluation mode, without gradients. Returns metrics by name, `validation_loss` usually
    among them."""
    best: Sequence[str] = ("-validation_loss",)
    """The epoch that is kept: highest in the first of these metrics, then in the second, …; a minus sign: lowest. The earliest of equals."""
    key: Any = None
    """JSON data that changes with the rows: a checkpoint is taken up only by the same training."""
    n_tokens: Sequence[int] | None = None
    """Of each row. Given: unless `rows_at_once` is set, a step goes through the model in parts of at most `AT_ONCE` tokens, or of one row."""
    passes: int = 1
    """Times that `loss` puts a batch through the model, for what that costs."""


def train(
    model: nn.Module,
    lesson: Lesson,
    settings: TrainingSettings,
    *,
    seed: int = 0,
    work: Path | None = None,
    device: str | None = None,
    description: str = "Training",
    on_epoch: Callable[[Mapping[str, float]], None] | None = None,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    keep_work: bool = False,
) -> Training:
    """Train a model in place: afterwards it has the best weights (the last ones without a validation), in evaluation mode.

    work: a folder for checkpoints, one every `checkpoint_every_s` seconds; a training that was killed goes on from there if it is called
    again in the same way, and at its end the folder goes. None: no checkpoints. device: where to train; default CUDA if there is one.
    on_epoch: told every point of the curve as it comes. keep_work: the folder stays, for the caller to remove once the model is written.

    Raises InputError before any step if the disk lacks room or nothing can be trained; Diverged if the loss is no number any more.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError(Problem("no weight of the model is trained", "Freeze fewer layers.", field="freeze"))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    steps = _Steps(lesson, settings, AT_ONCE if device == "cpu" else AT_ONCE_CUDA)
    resume = None
    if work is not None:
        shapes = [[name, list(p.shape)] for name, p in model.named_parameters() if p.requires_grad]
        key = digest([lesson.key, settings.model_dump(mode="json"), seed, shapes, len(steps), list(lesson.best)])
        resume = open_work(work, key, n_bytes_of(model))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_generators_kept())
        stack.enter_context(quiet_transformers(keep_stderr=True))
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="icl-train-")))
        progressing = _Progress(checkpoint_every_s if work is not None else math.inf, steps.n_per_epoch)
        trainer = _Trainer(
            model=model,
            args=_arguments(folder, settings, len(steps), seed, device),
            train_dataset=steps,
            data_collator=_first,
            callbacks=[progressing],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.set_up(lesson, settings, seed, device, on_epoch)
        progressing.advance = stack.enter_context(progress(description, len(steps), "steps"))
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        result = trainer.finished()
        # Else its forward pass is in mixed precision still, and that of the saved one is not.
        extract_model_from_parallel(model, keep_fp32_wrapper=False)
    if work is not None and not keep_work:
        shutil.rmtree(work, ignore_errors=True)
    return result


def shuffled(n_rows: int, batch_size: int, seed: int, lengths: Sequence[int] | None = None) -> Callable[[int], list[list[int]]]:
    """Every row once per epoch, in an order of its own. lengths: of the rows, so that those of a batch are of similar length, which
    saves padding: batches are cut from sorted runs of 16 of them, and mixed."""

    def batches(epoch: int) -> list[list[int]]:
        rng = rng_for(seed, "order", epoch)
        order = rng.sample(range(n_rows), n_rows)
        if lengths is not None:
            run = 16 * batch_size
            parts = [sorted(order[start : start + run], key=lambda row: lengths[row]) for start in range(0, n_rows, run)]
            order = [row for part in parts for row in part]
        result = [order[start : start + batch_size] for start in range(0, n_rows, batch_size)]
        rng.shuffle(result)
        return result

    return batches


@contextlib.contextmanager
def seeded(seed: int, *parts: str | int) -> Iterator[None]:
    """torch's generators start from a seed in the block (new heads and adapters are drawn with it), and are put back after it."""
    with _generators_kept():
        torch.manual_seed(seed_for(seed, *parts) % 2**63)
        yield


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    python, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)


class _Steps(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """All steps of a training, one after the other: (epoch, parts), each part a number of rows and their batch."""

    def __init__(self, lesson: Lesson, settings: TrainingSettings, at_once: int) -> None:
        self.lesson, self.settings, self.at_once = lesson, settings, at_once
        self._epoch, self._plan = 0, lesson.batches(0)
        self.n_per_epoch = len(self._plan)

    def __len__(self) -> int:
        return (self.settings.epochs or EPOCHS) * self.n_per_epoch

    def __getitem__(self, step: int) -> list[tuple[int, Batch]]:
        epoch, place = divmod(step, self.n_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self.lesson.batches(epoch)
            assert len(self._plan) == self.n_per_epoch, "an epoch has another number of steps"
        return [(len(part), self.lesson.collate(part, epoch)) for part in self._parts(self._plan[place])]

    def _parts(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """What of a step goes through the model together: `rows_at_once`, or rows of similar length that have few enough tokens with their
        padding, which is at most a third of them unless it is little."""
        lengths, size = self.lesson.n_tokens, self.settings.rows_at_once or len(rows)
        if lengths is None or self.settings.rows_at_once:
            return [rows[start : start + size] for start in range(0, len(rows), size)]
        parts: list[Sequence[int]] = []
        for row in sorted(rows, key=lengths.__getitem__):
            part = [*parts[-1], row] if parts else [row]
            whole = len(part) * lengths[row]
            if parts and whole <= self.at_once and whole - sum(lengths[at] for at in part) <= max(whole / 3, self.at_once / 16):
                parts[-1] = part
            else:
                parts.append([row])
        return parts


def _first(items: Sequence[Any]) -> Any:
    """A step is a whole batch already."""
    return items[0]


def _arguments(folder: Path, settings: TrainingSettings, n_steps: int, seed: int, device: str) -> Any:
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and device != "cpu" and torch.cuda.is_bf16_supported())
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,  # to the Trainer all epochs are one, whose steps are ours
        per_device_train_batch_size=1,
        learning_rate=settings.learning_rate or LEARNING_RATE,
        lr_scheduler_type=settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(settings.warmup * n_steps),
        max_grad_norm=settings.clip,
        seed=seed_for(seed, "train") % 2**32,
        use_cpu=device == "cpu",
        bf16=bf16,
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device != "cpu",
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # never one model in several copies
    return arguments


class _Progress(TrainerCallback):  # type: ignore[misc]
    """Says after each step what is due: a validation at the end of an epoch, a checkpoint after some time."""

    def __init__(self, checkpoint_every_s: float, n_per_epoch: int) -> None:
        self.advance: Any = lambda n=1: None
        self._every_s, self._n_per_epoch = checkpoint_every_s, n_per_epoch
        self._saved = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step:
            self.advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.advance(1)
        control.should_evaluate = state.global_step % self._n_per_epoch == 0
        if time.monotonic() - self._saved >= self._every_s:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._saved = time.monotonic()


@dataclass
class _Seen:
    """What a training has seen so far; in its checkpoints."""

    n_tokens: int = 0
    n_padding: int = 0
    operations: float = 0.0
    loss: float = 0.0
    """Sum over the steps of this epoch."""
    n_losses: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None
    best_score: list[float] | None = None
    peak_mb: float | None = None
    curve: list[dict[str, float]] = field(default_factory=list)


class _Trainer(Trainer):  # type: ignore[misc]
    """Steps with several parts, our own generators, validations, and checkpoints of trained weights."""

    optimizer: Any
    control: Any

    def set_up(
        self, lesson: Lesson, settings: TrainingSettings, seed: int, device: str, on_epoch: Callable[[Mapping[str, float]], None] | None
    ) -> None:
        self.lesson, self.settings, self.seed, self.on_epoch = lesson, settings, seed, on_epoch
        self.torch_device = device
        self.seen = _Seen()
        self.best: dict[str, torch.Tensor] | None = None
        self.stopped_early = False
        self.estimate = operations_of(self.model)
        self._losses: torch.Tensor | None = None
        self._begun = time.monotonic()
        reset_memory(device)

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        s = self.settings
        if self.optimizer is None:
            groups = parameter_groups(self.model, s.learning_rate or LEARNING_RATE, s.weight_decay, s.layer_decay)
            self.optimizer = torch.optim.AdamW(groups, fused=True)
        return self.optimizer

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """The mean loss over the rows of all parts, with its gradients."""
        model.train()
        torch.manual_seed(seed_for(self.seed, "step", self.state.global_step) % 2**63)
        total = torch.zeros((), device=self.args.device)
        n_rows = sum(n for n, _ in inputs)
        for n, part in inputs:
            batch = self._prepare_inputs(part)
            with self.compute_loss_context_manager():
                loss = self.lesson.loss(model, batch) * (n / n_rows)
            self._count(n, part)
            self.accelerator.backward(loss)
            total += loss.detach().float()
        self._losses = total.clone() if self._losses is None else self._losses + total
        self.seen.n_losses += 1
        return total

    def _count(self, n_rows: int, batch: Batch) -> None:
        n, padding = (n * self.lesson.passes for n in tokens_of(batch))
        seen = self.seen
        seen.n_tokens, seen.n_padding = seen.n_tokens + n, seen.n_padding + padding
        seen.operations += self.estimate.training(n + padding, (n + padding) / max(1, n_rows * self.lesson.passes))
        now = memory_mb(self.torch_device)
        seen.peak_mb = max(seen.peak_mb or 0.0, now) if now is not None else seen.peak_mb

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # `_count` estimates them

    def _drain(self) -> None:
        if self._losses is not None:
            self.seen.loss += float(self._losses)
            self._losses = None

    # ── the end of an epoch ──────────────────────────────────────────────────────────────────────────────────────────────

    def evaluate(self, *args: Any, **more: Any) -> dict[str, float]:
        """Put a point on the curve, keep the weights if they are the best, stop if it is time."""
        self._drain()
        seen = self.seen
        point = {"epoch": len(seen.curve) + 1, "step": int(self.state.global_step), "loss": round(seen.loss / max(1, seen.n_losses), 6)}
        seen.loss, seen.n_losses = 0.0, 0
        if not math.isfinite(point["loss"]):
            raise Diverged("training diverged: its loss is no number; lower its learning_rate", self.finished())
        if self.lesson.validate is not None:
            self.model.eval()
            with torch.no_grad():
                point |= {name: round(float(value), 6) for name, value in self.lesson.validate(self.model).items()}
            self._judge(point)
        seen.curve.append(point)
        if self.on_epoch is not None:
            self.on_epoch(point)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, point)
        patience = self.settings.patience
        if patience and seen.best_epoch is not None and len(seen.curve) - seen.best_epoch >= patience:
            self.stopped_early = self.state.global_step < self.state.max_steps
            self.control.should_training_stop = True
            self.control.should_save = False  # whoever goes on from an older checkpoint comes to stop here too
        return point

    def _judge(self, point: Mapping[str, float]) -> None:
        score = [-point[name[1:]] if name.startswith("-") else point[name] for name in self.lesson.best]
        if self.seen.best_score is None or score > self.seen.best_score:
            self.seen.best_score, self.seen.best_epoch = score, int(point["epoch"])
            self.best = trained_weights(self.model)

    def finished(self) -> Training:
        """The record, when the best weights are back in the model."""
        if self.best is not None:
            put_weights(self.model, self.best)
        self.model.eval()
        seen, parameters = self.seen, list(self.model.parameters())
        return Training(
            seed=self.seed,
            n_steps=int(self.state.global_step),
            epochs=len(seen.curve),
            best_epoch=seen.best_epoch,
            stopped_early=self.stopped_early,
            curve=tuple(seen.curve),
            n_parameters=sum(p.numel() for p in parameters),
            n_trained=sum(p.numel() for p in parameters if p.requires_grad),
            n_bytes=n_bytes_of(self.model),
            n_tokens=seen.n_tokens,
            n_padding=seen.n_padding,
            operations=seen.operations,
            seconds=round(seen.seconds + time.monotonic() - self._begun, 3),
            peak_memory_mb=seen.peak_mb,
            device=self.torch_device,
        )

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        self._drain()
        state = {**vars(self.seen), "seconds": self.seen.seconds + time.monotonic() - self._begun}
        write_state(Path(str(output_dir)), self.model, self.best, state)

    def _save_rng_state(self, output_dir: str) -> None:
        """A step's generators depend on its number, so there is no state to keep."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self.args.output_dir)
        finish(folder, folder / f"checkpoint-{self.state.global_step}")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.best, state = read_state(Path(resume_from_checkpoint), self.model)
        self.seen = _Seen(**state)
