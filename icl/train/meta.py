"""Meta-training: a causal model learns to learn from demonstrations, on prompts of many tasks (MetaICL, Min et al. 2022,
https://arxiv.org/abs/2110.15943). What is trained is a LoRA adapter; what is learned of a prompt are its answers alone.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, Problem
from ..files import sha256_file, write_text
from ..seeds import rng_for
from ..weights import quiet_transformers
from .episodes import Episode, Episodes
from .language import load_base
from .loop import Lesson, seeded, train
from .meta_settings import MetaSettings
from .packing import NO_LABEL, Packed
from .perplexity import token_losses
from .task_folder import Source, read_folder

RECORD, WORKING = "meta.json", "working"
LEARNING_RATE = 2e-4


@dataclass(frozen=True)
class Tasks:
    """Which tasks."""

    folder: Path
    exclude: Sequence[str] = ()
    """Names of tasks that are left out; `*` stands for anything."""
    held_out: Sequence[Path] = ()
    """Files with the data that the model is to be judged on: what has text in common with them is left out."""


def train_meta(
    tasks: Tasks,
    out: Path,
    *,
    base: str = "smollm2",
    settings: MetaSettings | None = None,
    seed: int = 0,
    device: str | None = None,
    on_point: Callable[[Mapping[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Train an adapter, write it into the folder `out`, which `load_model(base, adapter=out)` takes, and return its record (meta.json).

    Interrupted, the same call goes on from its last checkpoint. on_point: told each point of the curve as it comes: `loss`, and
    `validation_loss` on tasks that are not trained on; both in nats per token of the answers.

    Raises InputError before training: no tasks, names that fit none, a base without weights, a folder that holds something else.
    """
    settings = settings or MetaSettings.model_validate({})
    check_out(out)
    found = read_folder(tasks.folder, exclude=tasks.exclude, held_out=tasks.held_out, kinds=settings.kinds, overlap=settings.overlap)
    trained_on, judged_on = _apart(found.tasks, settings.validation_tasks, seed)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    made = load_base(base, causal=True, device=device)
    outer = _adapted(made.model, settings, seed)
    lessons = _Lessons(made, trained_on, judged_on, settings, seed)
    before = lessons.validated(outer.get_base_model())
    rounds = min(settings.validations, -(-settings.episodes // settings.batch_size))  # fewer than a step each make no sense
    plan = settings.model_copy(update={"epochs": rounds, "learning_rate": settings.learning_rate or LEARNING_RATE})
    record = train(
        outer.get_base_model(),
        lessons.lesson(rounds, [base, [[t.name, [[e.uid, e.target] for e in t.rows]] for t in found.tasks]]),
        plan,
        seed=seed,
        work=out / WORKING,
        device=device,
        description=f"Meta-training {base}",
        on_epoch=on_point,
        checkpoint_every_s=settings.checkpoint_every,
    ).as_dict()
    outer.peft_config["default"].base_model_name_or_path = base  # the folder of the weights here is none of its users' business
    with quiet_transformers():
        outer.save_pretrained(str(out), save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)  # a form to be filled in
    drawn = Counter(e.task for e in lessons.drawn)
    about = {
        "base": base,
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "tasks": {t.name: {"kind": t.kind, "n_rows": len(t.rows), "n_episodes": drawn[t.name]} for t in trained_on},
        "validation_tasks": [t.name for t in judged_on],
        "validation_loss_before": before,
        "left_out": found.left_out,
        "rows_left_out": found.rows_left_out,
        "held_out": {str(file): sha256_file(file) for file in tasks.held_out},
        "n_answers": sum(len(e.answers) for e in lessons.drawn),
        "n_random_words": sum(e.random_words for e in lessons.drawn),
        "training": record,
    }
    write_text(out / RECORD, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    return about


def check_out(out: Path) -> None:
    """Raises InputError unless the folder is free, or holds a meta-trained adapter, which is replaced, or checkpoints of one."""
    fine = not out.exists() or (out.is_dir() and ((out / RECORD).is_file() or {p.name for p in out.iterdir()} <= {WORKING}))
    if not fine:
        raise InputError(Problem("this holds something that is not a meta-trained adapter", "Name a new folder.", str(out), field="--out"))
    if (out / RECORD).is_file():
        shutil.rmtree(out / WORKING, ignore_errors=True)


def _apart(tasks: Sequence[Source], n: int, seed: int) -> tuple[list[Source], list[Source]]:
    """(tasks to train on, tasks to measure on)."""
    n = min(n, len(tasks) - 1)
    chosen = {task.name for task in rng_for(seed, "validation tasks").sample(sorted(tasks, key=lambda t: t.name), n)}
    return [t for t in tasks if t.name not in chosen], [t for t in tasks if t.name in chosen]


def _adapted(model: Any, settings: MetaSettings, seed: int) -> Any:
    """The model with a LoRA adapter beside its linear layers (Hu et al. 2022, https://arxiv.org/abs/2106.09685); the rest is frozen."""
    from peft import LoraConfig, get_peft_model

    transposed = any(type(module).__name__ == "Conv1D" for module in model.modules())
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules="all-linear", fan_in_fan_out=transposed,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    with seeded(seed, "adapter"), quiet_transformers():
        return get_peft_model(model, config)


class _Lessons:
    """Episodes in batches, and their loss."""

    def __init__(self, made: Any, tasks: Sequence[Source], judges: Sequence[Source], settings: MetaSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        pad = made.tokenizer.pad_token_id if made.tokenizer.pad_token_id is not None else made.tokenizer.eos_token_id or 0
        self.packed = Packed(False, 0, int(pad))
        draws = Episodes(tasks, made.tokenizer, settings, seed, "episode")
        self.drawn = [draws.draw(number) for number in range(settings.episodes)]
        self.judges: list[Episode] = []
        if judges:
            others = Episodes(judges, made.tokenizer, settings, seed, "validation")
            self.judges = [others.draw(number) for number in range(settings.validation_episodes)]

    def lesson(self, rounds: int, key: Any) -> Lesson:
        batches = self._batches(rounds)
        n_tokens = [len(episode.ids) for episode in self.drawn]
        return Lesson(batches.__getitem__, self._collate, self._loss, self._validate if self.judges else None, ("step",), key, n_tokens)

    def _batches(self, rounds: int) -> list[list[list[int]]]:
        """The steps of each round: episodes of similar length together, since that saves padding. The last ones fill up the last round by
        coming again."""
        size = self.settings.batch_size
        n = len(self.drawn) * (self.settings.epochs or 1)
        per_round = -(-n // (rounds * size)) * size
        found = []
        for start in range(0, rounds * per_round, per_round):
            numbers = [at % len(self.drawn) for at in range(start, start + per_round)]
            numbers.sort(key=lambda at: (len(self.drawn[at].ids), at))
            steps = [numbers[at : at + size] for at in range(0, len(numbers), size)]
            rng_for(self.seed, "order", start).shuffle(steps)
            found.append(steps)
        return found

    def _collate(self, rows: Sequence[int], round_: int) -> dict[str, Tensor]:
        return self._batch([self.drawn[row] for row in rows])

    def _batch(self, episodes: Sequence[Episode]) -> dict[str, Tensor]:
        labels = []
        for episode in episodes:
            wanted = [NO_LABEL] * len(episode.ids)
            for start, stop in episode.answers:
                wanted[start:stop] = episode.ids[start:stop]
            labels.append([wanted])
        return self.packed.batch([[episode.ids] for episode in episodes], labels)

    def _loss(self, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean over the episodes of their nats per token of an answer."""
        values, places = token_losses(model, self.packed, batch, causal=True)
        rows = places.nonzero()[:, 0]
        counts = torch.bincount(rows, minlength=len(places)).clamp_min(1)
        return (values / counts[rows]).sum() / len(places)

    def validated(self, model: Any) -> float | None:
        """The loss on tasks that are not trained on, in nats per token of the answers, of the model as it is; None without such tasks."""
        if not self.judges:
            return None
        model.eval()
        with torch.no_grad():
            return self._validate(model)["validation_loss"]

    def _validate(self, model: Any) -> dict[str, float]:
        device = next(model.parameters()).device
        size = self.settings.batch_size
        total = 0.0
        for at in range(0, len(self.judges), size):
            some = self.judges[at : at + size]
            batch = {name: tensor.to(device) for name, tensor in self._batch(some).items()}
            total += float(self._loss(model, batch)) * len(some)
        return {"validation_loss": total / len(self.judges)}
