"""A causal language model fine-tuned with its prompt: template and label words are those of the few-shot prompt, without demonstrations."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from ..errors import InputError, Problem
from ..protocols import LanguageModel, MethodContext
from ..train.settings import TrainingSettings
from ..train.split import FOLDS, Validation, best_epoch, folds, held_out
from ..values import KINDS as ALL_KINDS
from ..values import Example, Kind
from ._calibrate import refuse_without_labels
from ._common import inputs_of, labelled
from .few_shot import method_of

if TYPE_CHECKING:
    from ..model import TorchModel
    from ..train.causal import Taught
    from ..train.peft_kinds import Form, Trainable
    from ..train.record import Training
    from ..train.token_losses import LossForm
    from ._finetuned import FinetunedPredictor
    from ._predictor import FewShotPredictor
    from .few_shot import FewShot

KINDS: frozenset[Kind] = frozenset(ALL_KINDS)
NEEDS_LABELS = True
NEEDS_MODEL = True
"""Unless it names its base: `needs_model` says."""
TRAINS = True
FIT = "fit"
"""The training whose model is kept, beside those of the folds."""
FEWEST_STEPS, MOST_EPOCHS, FEWEST_EPOCHS = 200, 20, 3
"""Where nobody says how many epochs: as many as make that many steps, within these bounds."""
RATES = {"full": 5e-5, "freeze": 1e-4, "lora": 5e-4, "ia3": 1e-2, "bitfit": 3e-3, "prompt": 1e-2, "prefix": 1e-2}
"""Learning rates where nobody names one: the fewer weights a kind trains, the larger its steps."""
Loss = Literal["labels", "language_model", "unlikelihood", "length_normalised"]


class Settings(TrainingSettings):
    kind: Literal["full", "lora", "ia3", "bitfit", "prompt", "prefix", "freeze"] = Field(
        "lora",
        description="What is trained: all weights, adapters (lora, ia3), biases, virtual tokens in front of prompts (their embeddings, or "
        "keys and values in every layer), or the layers above frozen ones.",
    )
    base: str | None = Field(
        None, min_length=1, description="The model that is trained: smollm2, a folder, a hub id; default: the suite's."
    )
    batch_size: int = Field(8, ge=1, description="Rows per step.")
    rank: int = Field(16, ge=1, description="Of LoRA's matrices.")
    alpha: float | None = Field(None, gt=0, description="LoRA's scale times its rank; default: twice the rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Of the inputs of LoRA.")
    target_modules: list[str] = Field(
        default_factory=list, description="Layers LoRA stands beside, such as q_proj; default: all linear ones."
    )
    virtual_tokens: int = Field(20, ge=1, description="How many, for prompt and prefix.")
    freeze: int | None = Field(None, ge=0, description="Lowest layers that are not trained, for freeze; default: two thirds of them.")
    quantization: Literal["4bit", "8bit"] | None = Field(
        None, description="The base in 4 or 8 bits under lora or ia3; on CUDA, with bitsandbytes."
    )
    gradient_checkpointing: bool = Field(False, description="Compute activations again instead of keeping them: less memory, on CUDA.")
    loss: Loss | list[Loss] = Field(
        "labels",
        description="labels: cross-entropy over the labels' scores; language_model: of the right answer's tokens; T-Few's unlikelihood and "
        "length_normalised; of a list the sum. Answers in words have language_model.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target that all labels have evenly.")
    focal: float = Field(0.0, ge=0, description="Gamma of the focal loss; 0: cross-entropy.")
    class_weights: Literal["none", "balanced"] | dict[str, float] = Field(
        "none", description="balanced: rare labels count more; or label: weight, others 1."
    )
    validation: Validation = Field(
        "auto",
        description="Share of the rows held out to keep the best epoch, folds (they choose the epochs), none, or auto: a tenth from 1,000.",
    )
    readout: Literal["sum", "per_token", "per_byte", "per_char"] = Field("sum", description="How a label's score is read, in training too.")
    calibration: str | dict[str, Any] | None = Field(
        None, description="Corrects the trained model's bias towards some labels; one that needs no labelled examples."
    )
    template: str | None = Field(None, description="A template instead of the task's.")
    format: Literal["auto", "plain", "chat"] | None = Field(None, description="Plain text or chat turns, instead of the suite's.")
    max_tokens: int | None = Field(None, ge=1, description="Token budget of a prompt; default: the model's window.")
    max_new_tokens: int = Field(64, ge=1, description="Longest answer in words.")

    @field_validator("loss")
    @classmethod
    def _some(cls, value: Loss | list[Loss]) -> Loss | list[Loss]:
        if not value or (isinstance(value, list) and len(set(value)) < len(value)):
            raise ValueError("name one loss, or several different ones")
        return value

    @property
    def losses(self) -> tuple[Loss, ...]:
        return (self.loss,) if isinstance(self.loss, str) else tuple(self.loss)


@dataclass(frozen=True)
class Finetune:
    """Trains a copy of `lm`, or of the base that the settings name; `lm` itself stays as it is."""

    settings: Settings
    prompt: FewShot
    """The prompt without demonstrations, of the model that is trained."""
    seed: int = 0
    work: Path | None = None
    """For checkpoints."""
    evaluated: tuple[Example, ...] = ()
    """Rows to judge each epoch by, instead of some of the pool. Their labels count as labels owned."""
    on_epoch: Callable[[Mapping[str, float]], None] | None = None
    name: str = "finetune"

    @property
    def kinds(self) -> frozenset[Kind]:
        return KINDS

    def fit(
        self,
        pool: Sequence[Example],
        labels: Sequence[str] = (),
        unlabelled: Sequence[Example] = (),
        *,
        targets: Sequence[Sequence[float]] | None = None,
    ) -> FinetunedPredictor:
        """Train. targets: for each row the probabilities of the labels, in the order of `labels`, that it is to learn instead of its own
        label, as a teacher gave them.

        Raises InputError before that: one label only, a model that cannot be trained or lacks what the kind trains, no room for checkpoints.
        """
        from ..train.loop import seeded

        usable = labelled(pool, "finetune") if targets is None else list(pool)
        _check_targets(usable, labels, targets, self.prompt.kind)
        job = _Job(self, usable, labels, targets)
        with seeded(self.seed, "fit"):
            predictor = job.run()
        if self.work is not None:
            shutil.rmtree(self.work, ignore_errors=True)
        return predictor


def _check_targets(pool: Sequence[Example], labels: Sequence[str], targets: Sequence[Sequence[float]] | None, kind: Kind | None) -> None:
    if targets is None:
        return
    if kind not in (None, "classify"):
        raise InputError(Problem("probabilities of labels are for tasks with one set of labels", "Leave them out.", field="targets"))
    if not pool or len(targets) != len(pool):
        raise InputError(Problem(f"{len(targets)} rows of probabilities for {len(pool)} examples", "Give one for each.", field="targets"))
    if wrong := [len(row) for row in targets if len(row) != len(labels)]:
        raise InputError(
            Problem(f"{wrong[0]} probabilities for {len(labels)} labels", "Give one per label, in their order.", field="targets")
        )


@dataclass
class _Job:
    """One fit: its rows, and the trainings it takes."""

    method: Finetune
    pool: list[Example]
    labels: Sequence[str]
    soft: Sequence[Sequence[float]] | None

    def run(self) -> FinetunedPredictor:
        from ..train.cost import operations_of
        from ._finetuned import FinetunedPredictor, TrainedHandle, trained_model
        from ._predictor import FewShotPredictor

        s, started = self.method.settings, time.monotonic()
        self._check()
        validation = [] if self.method.evaluated else held_out(self.answers, s.validation, self.method.seed)
        epochs = s.epochs or min(MOST_EPOCHS, max(FEWEST_EPOCHS, -(-FEWEST_STEPS * s.batch_size // len(self.pool))))
        tried: list[Training] = []
        if s.validation == "folds" and not self.method.evaluated and len(self.pool) >= 2 * FOLDS:
            epochs, tried = self._folds(epochs)
        out = set(validation)
        rows = [i for i in range(len(self.pool)) if i not in out]
        trainable, record, n_rows = self._train(rows, validation, epochs, FIT)
        trainable.settle()
        lm = trained_model(self.base, trainable)
        base = {"reference": dict(self.base.reference), "fingerprint": self.base.fingerprint, "window": lm.window}
        handle = TrainedHandle(lm, lm.reference, None, lm.window, form=trainable.form, trainable=trainable)
        bound = self.prompted.bound
        predictor = FewShotPredictor(self.prompted.method, bound, (), handle)
        about = {
            **record.as_dict(),
            "kind": s.kind,
            "base": self.base.name,
            "operations": record.operations + sum(each.operations for each in tried),
            "seconds": round(time.monotonic() - started, 3),
            "n_rows": n_rows,
            "n_unfit": sum(each is None for each in self.taught),
            "validation": {"n_rows": len(self.method.evaluated or validation), "folds": len(tried)},
        }
        return FinetunedPredictor(predictor, handle, operations_of(trainable.model), base, about, self.method.name)

    def _check(self) -> None:
        """Before anything is trained."""
        s = self.method.settings
        if s.gradient_checkpointing and not self.base.device.startswith("cuda"):
            message = "gradient_checkpointing saves memory of a CUDA device, and the model is on a CPU"
            raise InputError(Problem(message, "Leave it out; rows_at_once: 1 takes less memory here.", field="gradient_checkpointing"))
        if self.prompted.kind == "classify":
            seen = {label for label, answer in zip(self.prompted.labels, self._sums, strict=True) if answer > 0}
            if len(seen) < 2:
                message = f"all {len(self.pool)} examples have the label '{next(iter(seen), None)}', so there is nothing to tell apart"
                raise InputError(Problem(message, "Give examples of two labels at least.", field="pool"))

    @property
    def _sums(self) -> list[float]:
        """How much of each label the rows have."""
        if self.soft is not None:
            sums = [sum(float(row[i]) for row in self.soft) for i in range(len(self.labels))]
            return sums + [0.0] * (len(self.prompted.labels) - len(sums))
        return [float(self.answers.count(label)) for label in self.prompted.labels]

    # ── the model and its prompts ────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def base(self) -> TorchModel:
        """What is trained a copy of."""
        from ..model import load_model
        from ._finetuned import causal

        s, given = self.method.settings, self.method.prompt.lm
        if s.base is None and (s.quantization is None or given is None):
            return causal(given)
        if s.base is not None and "://" in s.base:
            fix = "Name a catalogue model, a folder or a hub id."
            raise InputError(Problem(f"the model behind '{s.base}' cannot be trained from here", fix, field="base"))
        reference = dict(given.reference) if s.base is None and given is not None else {"name": s.base}
        if s.quantization is not None:
            import torch

            if not torch.cuda.is_available():
                raise InputError(
                    Problem(
                        f"quantization='{s.quantization}' needs a CUDA device, and there is none", "Leave it out.", field="quantization"
                    )
                )
            reference["quantization"] = s.quantization
        return causal(load_model(**reference))

    @cached_property
    def form(self) -> Form:
        from ..train.peft_kinds import Form

        s = self.method.settings
        alpha = s.alpha if s.alpha is not None else 2.0 * s.rank
        return Form(s.kind, s.rank, alpha, s.dropout, tuple(s.target_modules), s.virtual_tokens, s.freeze)

    def _trainable(self) -> Trainable:
        """A new copy; its new weights are the same for the same seed."""
        from ..train.loop import seeded
        from ..train.peft_kinds import make_trainable

        with seeded(self.method.seed, "adapter"):
            checkpointing = self.method.settings.gradient_checkpointing
            return make_trainable(self.base.model, self.form, self._beginning(), checkpointing=checkpointing)

    def _beginning(self) -> list[int]:
        """Tokens that virtual ones begin as: those of the labels (Lester et al. 2021, sec. 3.2), or of the first rows' answers."""
        texts = list(self.labels) or [str(e.target) for e in self.pool[:8]]
        return [i for text in texts for i in self.base.codec.tokens.literal([f" {text}"])[0]]

    @cached_property
    def prompted(self) -> FewShotPredictor:
        """The prompt, with the virtual tokens of the kind; its model is not asked anything."""
        from dataclasses import replace

        from ._finetuned import trained_model

        lm: LanguageModel = self.base
        if self.form.kind in ("prompt", "prefix"):
            lm = trained_model(self.base, self._trainable())
        prompt = replace(self.method.prompt, lm=lm)
        if self.soft is None:
            return prompt.fit(self.pool, self.labels)
        return prompt.fit((), self.labels, inputs=inputs_of(self.pool, prompt.inputs), kind="classify")  # no label of a row is looked at

    @cached_property
    def answers(self) -> list[str]:
        """The target of each row, the most likely label where there are probabilities."""
        if self.soft is None:
            return [str(e.target) for e in self.pool]
        return [self.labels[max(range(len(self.labels)), key=list(row).__getitem__)] for row in self.soft]

    @cached_property
    def taught(self) -> list[Taught | None]:
        """Each row as it is trained on; None for one that no prompt can hold."""
        from ._lessons import taught_rows

        return taught_rows(self.prompted, self.pool, self._right(self.pool), self.base)

    def _right(self, rows: Sequence[Example]) -> list[Any]:
        """Per row its target, or the probabilities of all labels."""
        if self.soft is None or rows is not self.pool:
            return [e.target for e in rows]
        more = (0.0,) * (len(self.prompted.labels) - len(self.labels))
        return [(*map(float, row), *more) for row in self.soft]

    # ── trainings ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _folds(self, epochs: int) -> tuple[int, list[Training]]:
        """How many epochs are best for rows that a training did not see, judged on each fifth of the pool in turn."""
        records = []
        for n, part in enumerate(folds(self.answers, self.method.seed)):
            rest = [i for i in range(len(self.pool)) if i not in set(part)]
            records.append(self._train(rest, part, epochs, f"fold-{n}")[1])
        return best_epoch([r.curve for r in records]), records

    def _train(self, rows: Sequence[int], validation: Sequence[int], epochs: int, name: str) -> tuple[Trainable, Training, int]:
        """Train a new copy on some rows of the pool; how many of them fit. A training for the folds goes through all epochs."""
        from ..train.causal import lesson_for
        from ..train.loop import train
        from ._lessons import path_of, taught_rows

        m, s = self.method, self.method.settings
        trainable = self._trainable()
        taught = [each for i in rows if (each := self.taught[i]) is not None]
        if not taught:
            raise InputError(Problem("no example fits the token budget", "Raise max_tokens, or use shorter texts.", field="max_tokens"))
        if m.evaluated:
            known = [e for e in m.evaluated if self.prompted.kind != "classify" or e.target in self.prompted.labels]
            judges = taught_rows(self.prompted, known, self._right(known), self.base)
        else:
            judges = [self.taught[i] for i in validation]
        path = path_of(self.base, trainable, taught[0])
        lesson = lesson_for(
            taught,
            path,
            self._loss(rows),
            s.batch_size,
            seed=m.seed,
            validation=[each for each in judges if each is not None],
            key=[
                self.base.fingerprint,
                [[self.pool[i].uid, self._right(self.pool)[i]] for i in rows],
                [each.split.prefix for each in taught],
            ],
        )
        updated = {"epochs": epochs, "learning_rate": s.learning_rate or RATES[s.kind], "patience": s.patience if name == FIT else None}
        record = train(
            trainable.outer,
            lesson,
            s.model_copy(update=updated),
            seed=m.seed,
            work=m.work / name if m.work is not None else None,
            device="cpu" if self.base.device == "cpu" else "cuda",
            description=f"Training {self.base.name} ({s.kind})" + (f", {name}" if name != FIT else ""),
            on_epoch=m.on_epoch if name == FIT else None,
        )
        return trainable, record, len(taught)

    def _loss(self, rows: Sequence[int]) -> LossForm:
        from ..train.losses import class_weights
        from ..train.token_losses import LossForm

        s = self.method.settings
        if self.prompted.kind == "answer":
            return LossForm(("language_model",))
        classify = self.prompted.kind == "classify"
        weights = class_weights(s.class_weights, [self.answers[i] for i in rows], self.prompted.labels) if classify else None
        return LossForm(s.losses, s.label_smoothing, s.focal, tuple(weights) if weights else None)


def needs_model(settings: Mapping[str, Any], folders: Sequence[Path]) -> bool:
    """Whether it trains the suite's language model."""
    return not settings.get("base")


PROMPT_SETTINGS = ("readout", "calibration", "template", "format", "max_tokens", "max_new_tokens")


def build(settings: Settings, context: MethodContext) -> Finetune:
    """Raises InputError for a calibration that needs labelled examples: the model has learned those."""
    refuse_without_labels(settings.calibration, context.plugin_folders)
    options = {name: getattr(settings, name) for name in PROMPT_SETTINGS}
    prompt = method_of({**options, "shots": 0, "retriever": "random"}, context, "finetune")
    return Finetune(settings, prompt, context.seed, context.work)


def load(folder: Path, state: Mapping[str, Any], *, lm: LanguageModel | None = None, device: str | None = None) -> FinetunedPredictor:
    from ._finetuned import load_finetuned

    return load_finetuned(folder, state, lm, device)
