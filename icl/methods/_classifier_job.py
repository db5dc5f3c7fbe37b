"""One fit of the method classifier: its rows as texts, new models, their trainings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..seeds import rng_for
from ..train.search import Space, around, one_of
from ..values import Example, field_text
from ._fit import FIT, Fit

if TYPE_CHECKING:
    from torch import Tensor

    from ..train.classifier import EncoderClassifier
    from ..train.record import Training
    from ..train.teach import Taught
    from ..train.texts import Read
    from ._paraphrase import Paraphrased
    from .classifier import Classifier

MOST_OWN = 500
"""Rows that the accuracy on the training's own rows is found on."""
UNSEEN = -5.0
"""Logit of a label that no row has, in a head that is about to be trained further."""
SMALL, LEARNING_RATE_SMALL, LEARNING_RATE = 512, 1e-4, 3e-5
"""Where nobody names a learning rate: that of encoders narrower than SMALL, such as minilm, and of wider ones."""


@dataclass
class Job(Fit):
    method: Classifier
    evaluated: list[Example]
    seen: tuple[str, ...]
    inputs: tuple[str, ...]
    soft: Sequence[Sequence[float]] | None

    BOUNDS = 300, 5, 20
    ONCE = ("paraphrases",)

    def run(self) -> tuple[EncoderClassifier, dict[str, Any]]:
        s, said = self.method.settings, self.paraphrases
        started = time.monotonic()
        epochs, tried = self._folds(self.epochs)
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
    def base_name(self) -> str:
        return self.method.base

    @property
    def _judges(self) -> Sequence[Example]:
        return self.evaluated

    @property
    def _strata(self) -> list[str]:
        return self.answers

    def _identity(self) -> list[Any]:
        soft = None if self.soft is None else [list(map(float, row)) for row in self.soft]
        said = None if self.paraphrases is None else self.paraphrases.versions
        return [self.method.base, [[e.uid, e.target] for e in self.pool], soft, said, self.method.target_temperature]

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
