"""A language model, causal or an encoder-decoder, fine-tuned with its prompt: template and label words are those of the few-shot prompt, without demonstrations."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from ..errors import InputError, Problem
from ..protocols import LanguageModel, MethodContext
from ..train.search import need_optuna
from ..train.settings import ClassWeights, TrainingSettings
from ..train.split import Validation
from ..values import KINDS as ALL_KINDS
from ..values import Example, Kind
from ._calibrate import refuse_without_labels
from ._common import check_targets, labelled
from .few_shot import method_of

if TYPE_CHECKING:
    from ._finetuned import FinetunedPredictor
    from .few_shot import FewShot

KINDS: frozenset[Kind] = frozenset(ALL_KINDS)
NEEDS_LABELS = True
NEEDS_MODEL = True
"""Unless it names its base: `needs_model` says."""
TRAINS = True
BASE = "model"
"""What the option `base` names."""
Loss = Literal["labels", "language_model", "unlikelihood", "length_normalised"]


class Settings(TrainingSettings):
    kind: Literal["full", "lora", "ia3", "bitfit", "added_attention", "prompt", "prefix", "freeze"] = Field(
        "lora",
        description="What is trained: all weights, adapters (lora, ia3), biases, attention to learned vectors in every layer, virtual tokens "
        "in front of prompts (their embeddings, or keys and values in every layer), or the layers above frozen ones.",
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
    virtual_tokens: int = Field(20, ge=1, description="How many, for prompt and prefix; vectors per layer, for added_attention.")
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
    class_weights: ClassWeights = Field("none", description="balanced: rare labels count more; or label: weight, others 1.")
    validation: Validation = Field(
        "auto",
        description="Share of the rows held out to keep the best epoch, folds (they choose the epochs), none, or auto: a tenth from 1,000.",
    )
    search: int | None = Field(
        None, ge=1, description="Trials of a search for better settings around these, on rows held out or folds of the pool."
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
    target_temperature: float = 1.0
    """At which probabilities are learned instead of labels (see `train.losses.distilled`)."""

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

        Raises InputError before that: one label only, a model that cannot be trained or lacks what the kind trains, no room for checkpoints,
        a search without optuna.
        """
        from ..train.loop import seeded
        from ._finetune_job import Job

        usable = labelled(pool, "finetune") if targets is None else list(pool)
        if targets is not None and self.prompt.kind not in (None, "classify"):
            raise InputError(Problem("probabilities of labels are for tasks with one set of labels", "Leave them out.", field="targets"))
        check_targets(targets, len(usable), len(labels))
        job = Job(self, usable, labels, targets)
        with seeded(self.seed, "fit"):
            best, found = job.searched() if self.settings.search is not None else (job, None)
            predictor = best.run()
        if found is not None:
            predictor = replace(predictor, training=found.counted(predictor.training))
        if self.work is not None:
            shutil.rmtree(self.work, ignore_errors=True)
        return predictor


def needs_model(settings: Mapping[str, Any], folders: Sequence[Path]) -> bool:
    """Whether it trains the suite's language model."""
    return not settings.get("base")


PROMPT_SETTINGS = ("readout", "calibration", "template", "format", "max_tokens", "max_new_tokens")


def build(settings: Settings, context: MethodContext) -> Finetune:
    """Raises InputError for a calibration that needs labelled examples: the model has learned those; for a search without optuna."""
    if settings.search is not None:
        need_optuna()
    refuse_without_labels(settings.calibration, context.plugin_folders)
    options = {name: getattr(settings, name) for name in PROMPT_SETTINGS}
    prompt = method_of({**options, "shots": 0, "retriever": "random"}, context, "finetune")
    return Finetune(settings, prompt, context.seed, context.work)


def load(folder: Path, state: Mapping[str, Any], *, lm: LanguageModel | None = None, device: str | None = None) -> FinetunedPredictor:
    from ._finetuned import load_finetuned

    return load_finetuned(folder, state, lm, device)
