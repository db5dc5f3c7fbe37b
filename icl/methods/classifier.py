"""An encoder of the BERT kind with a classification head, trained on the labelled examples: the usual way to fine-tune."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..errors import InputError, Problem
from ..protocols import MethodContext
from ..train.augment import Augment
from ..train.search import need_optuna
from ..train.settings import ClassWeights, TrainingSettings
from ..train.split import Validation
from ..values import Example, Kind, Prediction, field_text
from ._common import check_targets, check_weights, inputs_of, label_order, labelled, queries_of, voted
from ._folder import save_predictor
from ._shown import shown

if TYPE_CHECKING:
    from torch import Tensor

    from ..train.classifier import EncoderClassifier

KINDS: frozenset[Kind] = frozenset({"classify"})
NEEDS_LABELS = True
NEEDS_MODEL = False
BASE = "encoder"
"""What the option `base` names."""


class Settings(TrainingSettings):
    base: str | None = Field(
        None, description="minilm, a folder, or a hub id such as bert-base-uncased; default: the suite's encoder.", min_length=1
    )
    freeze: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        0, description="Lowest layers that are not trained, the embeddings with them; all: only the head is."
    )
    start: Literal["probe", "random"] = Field(
        "probe", description="A head of ours begins as logistic regression on the untrained encoder's vectors, or at random."
    )
    dropout: float | None = Field(None, ge=0, lt=1, description="In encoder and head; default: the base's own.")
    norm: Literal["none", "layer", "batch"] = Field("none", description="Normalisation in the head.")
    hidden: int = Field(0, ge=0, description="Width of a hidden layer in the head; 0: none.")
    long: Literal["truncate", "head_tail", "slide"] = Field(
        "truncate", description="Of a text that is too long: its beginning, beginning and end, or windows whose logits are averaged."
    )
    max_tokens: int | None = Field(None, ge=8, description="Tokens of a text, or of a window; default: what the base reads at most.")
    r_drop: float = Field(
        0.0, ge=0, description="Alpha of R-Drop: each row is computed twice, and what dropout makes of it should not differ; 0: once."
    )
    mixout: float = Field(0.0, ge=0, lt=1, description="Share of the encoder's weights that are as before training, anew in each step.")
    validation: Validation = Field(
        "auto",
        description="Share of the rows held out to keep the best epoch, folds (they choose the epochs), none, or auto: a tenth from 1,000.",
    )
    search: int | None = Field(
        None, ge=1, description="Trials of a search for better settings around these, on rows held out or folds of the pool."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target that all labels have evenly.")
    focal: float = Field(0.0, ge=0, description="Gamma of the focal loss; 0: cross-entropy.")
    class_weights: ClassWeights = Field("none", description="balanced: rare labels count more; or label: weight, others 1.")
    augment: Augment = Field(
        default_factory=lambda: Augment.model_validate({}),
        description="Shares of the words that are changed, anew in each epoch, and paraphrases by a language model.",
    )


@dataclass(frozen=True)
class Classifier:
    settings: Settings
    base: str = "minilm"
    inputs: tuple[str, ...] = ()
    seed: int = 0
    work: Path | None = None
    """For checkpoints."""
    evaluated: tuple[Example, ...] = ()
    """Rows to judge each epoch by, instead of some of the pool. Their labels count as labels owned."""
    on_epoch: Callable[[Mapping[str, float]], None] | None = None
    device: str | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    """(logits (n, n_labels), targets (n,) or (n, n_labels)) -> (n,) nats, instead of the loss that the settings say."""
    target_temperature: float = 1.0
    """At which the probabilities of a teacher are learned (`losses.distilled`)."""
    templates: tuple[Path, ...] = ()
    """Folders that the template of paraphrases may lie in."""

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
    ) -> ClassifierPredictor:
        """Train. targets: for each row the probabilities of the labels, in the order of `labels`, that it is to learn instead of its own
        label, as a teacher gave them.

        Raises InputError before that: fewer than two labels in the pool, targets that are not as many as the labels, a base that is no
        encoder, no room for checkpoints, a search without optuna.
        """
        from ._classifier_job import Job

        check_targets(targets, len(pool), len(labels))
        usable = labelled(pool, "classifier") if targets is None else list(pool)
        order = label_order([*usable, *self.evaluated], labels)
        seen = tuple(label for label in order if any(e.target == label for e in usable)) if targets is None else tuple(labels)
        check_weights(self.settings.class_weights, order)
        if len(seen) < 2:
            message = f"all {len(usable)} examples have the label '{seen[0]}', so there is nothing to tell apart"
            raise InputError(Problem(message, "Give examples of two labels at least.", field="pool"))
        inputs = inputs_of(usable, self.inputs)
        job = Job(self, usable, [e for e in self.evaluated if e.target in seen], seen, inputs, targets)
        best, found = job.searched() if self.settings.search is not None else (job, None)
        made, training = best.run()
        if found is not None:
            training = found.counted(training)
        if self.work is not None:
            shutil.rmtree(self.work, ignore_errors=True)
        return ClassifierPredictor(made, seen, inputs, order, training)


@dataclass
class ClassifierPredictor:
    made: EncoderClassifier
    seen: tuple[str, ...]
    """The labels that the examples had, in the order of the head's."""
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    training: Mapping[str, Any]
    """How it was trained, and what that cost."""
    name: str = "classifier"

    @property
    def totals(self) -> Any:
        """Tokens and operations of all predictions so far."""
        return self.made.used

    def reset_totals(self) -> None:
        """What was predicted so far belongs to the training."""
        from ..train.cost import Used

        self.made.used = Used()

    _repr_html_ = shown

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        examples = queries_of(queries, self.inputs)
        if not examples:
            return []
        reads = self.made.read([[field_text(e.fields[name]) for name in self.inputs] for e in examples])
        shares = self.made.predict(reads).double().softmax(dim=-1).tolist()
        return [
            replace(
                voted(e, dict(zip(self.seen, row, strict=True)), self.labels),
                n_tokens=read.n_tokens,
                n_windows=len(read.windows) if len(read.windows) > 1 else 0,
                n_cut=read.n_cut,
            )
            for e, read, row in zip(examples, reads, shares, strict=True)
        ]

    def save(self, folder: Path | str) -> None:
        state = {
            "method": "classifier",
            "name": self.name,
            "kind": "classify",
            "inputs": self.inputs,
            "labels": self.labels,
            "seen": self.seen,
            "form": asdict(self.made.form),
            "long": self.made.reader.long,
            "training": dict(self.training),
        }
        save_predictor(folder, state, self.made.save)


def build(settings: Settings, context: MethodContext) -> Classifier:
    """Raises MissingExtraError for a search without optuna."""
    if settings.search is not None:
        need_optuna()
    encoder = context.encoder if isinstance(context.encoder, str) else context.encoder.name
    base = settings.base or encoder
    return Classifier(settings, base, context.inputs, context.seed, context.work, templates=context.template_folders)


def load(folder: Path, state: Mapping[str, Any], *, lm: Any = None, device: str | None = None) -> ClassifierPredictor:
    from ..train.classifier import Form, load_classifier

    made = load_classifier(folder, Form(**state["form"]), state["long"], device)
    return ClassifierPredictor(made, tuple(state["seen"]), tuple(state["inputs"]), tuple(state["labels"]), state["training"], state["name"])
