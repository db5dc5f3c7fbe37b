"""An encoder of the BERT kind with a classification head, trained on the labelled examples: the usual way to fine-tune."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..errors import InputError, Problem
from ..progress import note
from ..protocols import MethodContext
from ..seeds import rng_for
from ..train.augment import Augment
from ..train.search import Space, around, need_optuna, one_of, search
from ..train.settings import TrainingSettings
from ..train.split import Validation, best_epoch, cross, held_out
from ..values import Example, Kind, Prediction, field_text
from ._common import check_targets, inputs_of, label_order, labelled, queries_of, voted
from ._folder import save_predictor
from ._shown import shown

if TYPE_CHECKING:
    from torch import Tensor

    from ..train.classifier import EncoderClassifier
    from ..train.record import Training
    from ..train.teach import Taught
    from ..train.texts import Read
    from ._paraphrase import Paraphrased

KINDS: frozenset[Kind] = frozenset({"classify"})
NEEDS_LABELS = True
NEEDS_MODEL = False
FIT = "fit"
"""The training whose model is kept, beside those of the folds."""
BASE = "encoder"
"""What the option `base` names."""
FEWEST_STEPS, MOST_EPOCHS, FEWEST_EPOCHS = 300, 20, 5
"""Where nobody says how many epochs: as many as make that many steps, within these bounds."""
MOST_OWN = 500
"""Rows that the accuracy on the training's own rows is found on."""
UNSEEN = -5.0
"""Logit of a label that no row has, in a head that is about to be trained further."""
SMALL, LEARNING_RATE_SMALL, LEARNING_RATE = 512, 1e-4, 3e-5
"""Where nobody names a learning rate: that of encoders narrower than SMALL, such as minilm, and of wider ones."""


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
    class_weights: Literal["none", "balanced"] | dict[str, float] = Field(
        "none", description="balanced: rare labels count more; or label: weight, others 1."
    )
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
        check_targets(targets, len(pool), len(labels))
        usable = labelled(pool, "classifier") if targets is None else list(pool)
        order = label_order([*usable, *self.evaluated], labels)
        seen = tuple(label for label in order if any(e.target == label for e in usable)) if targets is None else tuple(labels)
        if len(seen) < 2:
            message = f"all {len(usable)} examples have the label '{seen[0]}', so there is nothing to tell apart"
            raise InputError(Problem(message, "Give examples of two labels at least.", field="pool"))
        inputs = inputs_of(usable, self.inputs)
        job = _Job(self, usable, [e for e in self.evaluated if e.target in seen], seen, inputs, targets)
        made, training = job.run() if self.settings.search is None else job.searched()
        if self.work is not None:
            shutil.rmtree(self.work, ignore_errors=True)
        return ClassifierPredictor(made, seen, inputs, order, training)


@dataclass
class _Job:
    """One fit: its rows, and the trainings it takes."""

    method: Classifier
    pool: list[Example]
    evaluated: list[Example]
    seen: tuple[str, ...]
    inputs: tuple[str, ...]
    soft: Sequence[Sequence[float]] | None

    def run(self) -> tuple[EncoderClassifier, dict[str, Any]]:
        s, epochs, said = self.method.settings, self.epochs, self.paraphrases
        started = time.monotonic()
        tried: list[Training] = []
        if s.validation == "folds" and not self.evaluated:
            epochs, tried = self._folds(epochs)
        rows, validation = self._held
        made, record, reads = self._train(rows, validation, epochs, FIT, patience=s.patience, on_epoch=self.method.on_epoch)
        own = self._own_accuracy(made, rows, reads)
        long = [read for read in reads if read.n_cut or len(read.windows) > 1]
        more = {} if said is None else {"paraphrases": said.record}
        return made, {
            **record.as_dict(),
            **more,
            "operations": record.operations + sum(each.operations for each in tried) + ((said and said.record["operations"]) or 0.0),
            "seconds": round(time.monotonic() - started + (said.record["seconds"] if said is not None else 0.0), 3),
            "n_rows": len(reads),
            "training_accuracy": own,
            "validation": {"n_rows": len(self.evaluated or validation), "folds": len(tried)},
            "long_inputs": {
                "how": s.long,
                "n_rows": len(long),
                "n_windows": sum(len(read.windows) for read in long),
                "n_tokens_cut": sum(read.n_cut for read in long),
            },
        }

    def searched(self) -> tuple[EncoderClassifier, dict[str, Any]]:
        """As `run`, with the best of the settings that were tried."""
        m, s = self.method, self.method.settings
        parts = [self._held] if self.evaluated or self._held[1] else cross(self.answers, m.seed)
        if not parts:
            note(f"no search for settings: {len(self.pool)} rows are too few to judge by")
            return self.run()

        def attempt(changes: Mapping[str, Any], part: int, name: str) -> Training:
            job = self._with(changes)
            return job._train(*parts[part], job.epochs, name, patience=s.patience if len(parts) == 1 else None)[1]

        soft = None if self.soft is None else [list(map(float, row)) for row in self.soft]
        said = None if self.paraphrases is None else self.paraphrases.versions  # made here, so that no trial takes their time
        key = [m.base, s.model_dump(mode="json"), [[e.uid, e.target] for e in (*self.pool, *self.evaluated)], soft, said]
        found = search(
            self._space(), attempt, n_parts=len(parts), trials=s.search or 1, seed=m.seed, work=m.work, key=key, what=f"Search, {m.base}"
        )
        made, training = self._with(found.changes).run()
        return made, found.counted(training)

    def _with(self, changes: Mapping[str, Any]) -> _Job:
        """The same fit with other settings; folds are not asked for the number of epochs, since the search was."""
        s = self.method.settings
        validation = "none" if s.validation == "folds" else s.validation
        settings = s.model_copy(update={**changes, "search": None, "validation": validation})
        job = replace(self, method=replace(self.method, settings=settings))
        job.__dict__["paraphrases"] = self.paraphrases  # made once
        return job

    def _space(self) -> Space:
        s = self.method.settings
        return {
            "learning_rate": around(s.learning_rate or rate_for(self._made()), 4),
            "epochs": one_of(self.epochs, max(1, self.epochs // 2), 2 * self.epochs),
            "dropout": one_of(s.dropout, 0.0, 0.2),
            "weight_decay": one_of(s.weight_decay, 0.0, 0.1),
            "layer_decay": one_of(s.layer_decay, 0.9),
        }

    @property
    def epochs(self) -> int:
        """As the settings say, else as many as make `FEWEST_STEPS`."""
        s = self.method.settings
        return s.epochs or min(MOST_EPOCHS, max(FEWEST_EPOCHS, -(-FEWEST_STEPS * s.batch_size // len(self.pool))))

    @property
    def _held(self) -> tuple[list[int], list[int]]:
        """(rows to train on, rows of the pool that judge each epoch)."""
        validation = [] if self.evaluated else held_out(self.answers, self.method.settings.validation, self.method.seed)
        out = set(validation)
        return [i for i in range(len(self.pool)) if i not in out], validation

    @cached_property
    def paraphrases(self) -> Paraphrased | None:
        """The rows that are trained on in other words; made once."""
        how, m = self.method.settings.augment.paraphrase, self.method
        if how is None:
            return None
        from ._paraphrase import paraphrased

        texts = [text for fields in self._texts([self.pool[i] for i in self._held[0]]) for text in fields]
        return paraphrased(texts, how, seed=m.seed, work=m.work, templates=m.templates)

    def _own_accuracy(self, made: EncoderClassifier, rows: Sequence[int], reads: Sequence[Read]) -> float:
        """Accuracy on rows that were trained on, `MOST_OWN` of them at most, to be compared with that on others."""
        from ..train.cost import Used
        from ..train.teach import judged

        some = range(0, len(rows), -(-len(rows) // MOST_OWN))
        found = judged(made.predict([reads[i] for i in some]), self._targets([rows[i] for i in some]))
        made.used = Used()
        return round(found["accuracy"], 6)

    @cached_property
    def answers(self) -> list[str]:
        """The label of each row, the most likely one where there are probabilities."""
        if self.soft is None:
            return [str(e.target) for e in self.pool]
        return [self.seen[max(range(len(self.seen)), key=list(row).__getitem__)] for row in self.soft]

    def _targets(self, rows: Sequence[int]) -> Tensor:
        import torch

        if self.soft is None:
            return torch.tensor([self.seen.index(self.answers[i]) for i in rows])
        return torch.tensor([[float(p) for p in self.soft[i]] for i in rows])

    def _folds(self, epochs: int) -> tuple[int, list[Training]]:
        """How many epochs are best for rows that a training did not see, judged on each fifth of the pool in turn."""
        parts = cross(self.answers, self.method.seed)
        records = [self._train(rest, part, epochs, f"fold-{n}")[1] for n, (rest, part) in enumerate(parts)]
        return (best_epoch([r.curve for r in records]) if records else epochs), records

    def _train(
        self,
        rows: Sequence[int],
        validation: Sequence[int],
        epochs: int,
        name: str,
        *,
        patience: int | None = None,
        on_epoch: Callable[[Mapping[str, float]], None] | None = None,
    ) -> tuple[EncoderClassifier, Training, list[Read]]:
        """Train a new model on some rows of the pool. patience: None: through all epochs, as for folds."""
        from ..train.cost import Used
        from ..train.loop import train
        from ..train.mixout import mixing
        from ..train.teach import lesson_for

        m, s = self.method, self.method.settings
        made = self._made()
        texts = self._texts([self.pool[i] for i in rows])
        reads = made.read(texts)
        if s.start == "probe" and made.form.pooling != "own" and s.norm == "none" and not s.hidden:
            self._probe(made, reads, self._targets(rows))
        judges = self.evaluated or [self.pool[i] for i in validation]
        targets = self._targets(rows)
        lesson = lesson_for(
            made,
            (reads, targets),
            s.batch_size,
            seed=m.seed,
            validation=self._judged(made, validation),
            loss=m.loss or self._loss(made, rows),
            vary=self._vary(made, texts),
            alpha=s.r_drop,
            mixed=mixing(made.model, made.pretrained, s.mixout) if s.mixout else lambda model: model,
            key=[m.base, m.target_temperature, [self.pool[i].uid for i in rows], targets.tolist(), [e.uid for e in judges]],
        )
        record = train(
            made.model,
            lesson,
            s.model_copy(update={"epochs": epochs, "learning_rate": s.learning_rate or rate_for(made), "patience": patience}),
            seed=m.seed,
            work=m.work / name if m.work is not None else None,
            device=made.device,
            description=f"Training {m.base}" + (f", {name}" if name != FIT else ""),
            on_epoch=on_epoch,
        )
        made.used = Used()  # what was computed so far belongs to the training
        return made, record, reads

    def _made(self) -> EncoderClassifier:
        """A new model; its head is the same for the same seed."""
        from ..train.classifier import new_classifier
        from ..train.loop import seeded

        m, s = self.method, self.method.settings
        with seeded(m.seed, "head"):
            return new_classifier(
                m.base, len(self.seen), long=s.long, max_tokens=s.max_tokens, dropout=s.dropout, norm=s.norm, hidden=s.hidden,
                freeze=s.freeze, device=m.device,
            )  # fmt: skip

    def _texts(self, rows: Sequence[Example]) -> list[list[str]]:
        return [[field_text(e.fields[name]) for name in self.inputs] for e in rows]

    def _judged(self, made: EncoderClassifier, validation: Sequence[int]) -> Taught | None:
        """The rows that each epoch is judged by: those given for it, or these of the pool."""
        import torch

        if self.evaluated:
            return made.read(self._texts(self.evaluated)), torch.tensor([self.seen.index(str(e.target)) for e in self.evaluated])
        if not validation:
            return None
        return made.read(self._texts([self.pool[i] for i in validation])), self._targets(validation)

    def _loss(self, made: EncoderClassifier, rows: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
        import torch

        from ..train.losses import class_weights, distilled, label_loss

        s = self.method.settings
        weights = class_weights(s.class_weights, [self.answers[i] for i in rows], self.seen)
        weighted = None if weights is None else torch.tensor(weights, device=made.device)

        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            return label_loss(logits, targets, weights=weighted, smoothing=s.label_smoothing, focal=s.focal)

        temperature = self.method.target_temperature
        return loss if self.soft is None or temperature == 1 else distilled(loss, temperature)

    def _probe(self, made: EncoderClassifier, reads: Sequence[Read], targets: Tensor) -> None:
        """Begin with the best head for the encoder as it is, so that training does not first spoil it for a head that knows nothing
        (Kumar et al. 2022, https://arxiv.org/abs/2202.10054)."""
        import torch

        from ._heads import fit_soft_head

        vectors = made.vectors(reads)
        scale = vectors.shape[1] ** 0.5
        shares = torch.nn.functional.one_hot(targets, len(self.seen)) if targets.ndim == 1 else targets
        head = fit_soft_head("logistic", (vectors / scale).numpy(), shares.double().numpy(), unseen=UNSEEN)
        with torch.no_grad():
            made.model.classifier.weight.copy_(torch.from_numpy(head.arrays["weights"] / scale))
            made.model.classifier.bias.copy_(torch.from_numpy(head.arrays["bias"]))

    def _vary(self, made: EncoderClassifier, texts: Sequence[Sequence[str]]) -> Callable[[int, int], Read] | None:
        how, seed = self.method.settings.augment, self.method.seed
        if not (how.drop or how.swap or how.synonyms or how.paraphrase):
            return None
        from ..train.augment import changed, nearest_words, word_vectors

        encoder = getattr(made.model, "encoder", made.model)
        every = [text for fields in texts for text in fields]
        synonyms = nearest_words(every, word_vectors(made.reader.tokenizer, encoder)) if how.synonyms else {}
        versions = [[fields, *(self.paraphrases.of(fields) if self.paraphrases else ())] for fields in texts]

        def shown(row: int, epoch: int) -> Read:
            fields = rng_for(seed, "paraphrase", epoch, row).choice(versions[row])
            return made.reader.read([changed(text, how, rng_for(seed, "augment", epoch, row), synonyms) for text in fields])

        return shown


def rate_for(made: EncoderClassifier) -> float:
    """The learning rate where nobody names one."""
    return LEARNING_RATE_SMALL if int(made.model.config.hidden_size) < SMALL else LEARNING_RATE


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
