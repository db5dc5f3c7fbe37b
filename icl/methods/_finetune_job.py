"""One fit of the method finetune: rows as prompts with answers, copies of the base, their trainings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem
from ..protocols import LanguageModel
from ..train.search import Found, Space, around, one_of
from ..values import Example
from ._common import check_weights, inputs_of
from ._fit import FIT, Fit

if TYPE_CHECKING:
    from ..model import Seq2SeqModel, TorchModel
    from ..train.causal import Taught
    from ..train.peft_kinds import Form, Trainable
    from ..train.record import Training
    from ..train.token_losses import LossForm
    from ._finetuned import FinetunedPredictor
    from ._predictor import FewShotPredictor
    from .finetune import Finetune

RATES = {"full": 5e-5, "freeze": 1e-4, "lora": 5e-4, "ia3": 1e-2, "bitfit": 2e-3, "added_attention": 1e-2, "prompt": 1e-2, "prefix": 1e-2}
"""Learning rates where nobody names one: the fewer weights a kind trains, the larger its steps."""


@dataclass
class Job(Fit):
    method: Finetune
    labels: Sequence[str]
    soft: Sequence[Sequence[float]] | None

    BOUNDS = 200, 3, 20
    ONCE = ("base",)

    def run(self) -> FinetunedPredictor:
        from ..train.cost import operations_of
        from ._finetuned import FinetunedPredictor, TrainedHandle, trained_model
        from ._predictor import FewShotPredictor

        s, started = self.method.settings, time.monotonic()
        self._check()
        epochs, tried = self._folds(self.epochs)
        rows, validation = self._held
        trainable, record, n_rows = self._train(rows, validation, epochs, FIT, patience=s.patience, on_epoch=self.method.on_epoch)
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
            "n_cut": sum(each.cut for each in self.taught if each is not None),
            "validation": {"n_rows": len(self.method.evaluated or validation), "folds": len(tried)},
        }
        return FinetunedPredictor(predictor, handle, operations_of(trainable.model), base, about, self.method.name)

    def searched(self) -> tuple[Job, Found | None]:
        """See `Fit`; what can be refused is, before the first trial."""
        self._check()
        return super().searched()

    def _space(self) -> Space:
        s = self.method.settings
        space: dict[str, Any] = {
            "learning_rate": around(s.learning_rate or RATES[s.kind], 4),
            "epochs": one_of(self.epochs, max(1, self.epochs // 2), 2 * self.epochs),
            "weight_decay": one_of(s.weight_decay, 0.0, 0.1),
        }
        if s.kind == "lora":
            space |= {"rank": one_of(s.rank, max(1, s.rank // 4), 2 * s.rank), "dropout": one_of(s.dropout, 0.0, 0.1)}
        if s.kind in ("prompt", "prefix", "added_attention"):
            space["virtual_tokens"] = one_of(s.virtual_tokens, max(1, s.virtual_tokens // 2), 2 * s.virtual_tokens)
        return space

    @property
    def base_name(self) -> str:
        return str(self.base.name)

    @property
    def _judges(self) -> Sequence[Example]:
        return self.method.evaluated

    def _identity(self) -> list[Any]:
        """The rows as tokens: template, label words and format with them."""
        rows = [[e.uid, right] for e, right in zip(self.pool, self._right(self.pool), strict=True)]
        tokens = [None if each is None else [each.split.prefix, each.split.continuations] for each in self.taught]
        return [self.base.fingerprint, rows, tokens, self.method.target_temperature]

    def _check(self) -> None:
        """Before anything is trained."""
        from ..train.peft_kinds import refuse

        s = self.method.settings
        refuse(self.base.model, self.form)
        if s.gradient_checkpointing and not self.base.device.startswith("cuda"):
            message = "gradient_checkpointing saves memory of a CUDA device, and the model is on a CPU"
            raise InputError(Problem(message, "Leave it out; rows_at_once: 1 takes less memory here.", field="gradient_checkpointing"))
        if self.prompted.kind == "classify":
            check_weights(s.class_weights, self.prompted.labels)
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
    def base(self) -> TorchModel | Seq2SeqModel:
        """What is trained a copy of."""
        from ..model import load_model
        from ._finetuned import local

        s, given = self.method.settings, self.method.prompt.lm
        if s.base is None and (s.quantization is None or given is None):
            return local(given)
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
        return local(load_model(**reference))

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

        from ._finetuned import trained_model

        lm: LanguageModel = self.base
        if self.form.kind in ("prompt", "prefix"):
            lm = trained_model(self.base, self._trainable())
        prompt = replace(self.method.prompt, lm=lm, shots=0, retriever="random")
        if self.soft is None:
            return prompt.fit(self.pool, self.labels)
        return prompt.fit((), self.labels, inputs=inputs_of(self.pool, prompt.inputs), kind="classify")  # no label of a row is looked at

    @cached_property
    def answers(self) -> list[str]:
        """The target of each row, the most likely label where there are probabilities."""
        if self.soft is None:
            return [str(e.target) for e in self.pool]
        return [self.labels[max(range(len(self.labels)), key=list(row).__getitem__)] for row in self.soft]

    @property
    def _strata(self) -> list[str]:
        """What rows are held out by: labels; answers and choices are each row's own."""
        return self.answers if self.prompted.kind == "classify" else [""] * len(self.pool)

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

    def _train(
        self,
        rows: Sequence[int],
        validation: Sequence[int],
        epochs: int,
        name: str,
        *,
        patience: int | None = None,
        on_epoch: Callable[[Mapping[str, float]], None] | None = None,
    ) -> tuple[Trainable, Training, int]:
        """Train a new copy on some rows of the pool; how many of them fit. patience: None: through all epochs, as for folds."""
        from ..train.causal import lesson_for
        from ..train.loop import train
        from ._lessons import computing_of, taught_rows

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
        lesson = lesson_for(
            taught,
            computing_of(self.base, trainable, taught[0]),
            self._loss(rows),
            s.batch_size,
            seed=m.seed,
            validation=[each for each in judges if each is not None],
            key=[
                self.base.fingerprint,
                [[self.pool[i].uid, self._right(self.pool)[i]] for i in rows],
                [[each.split.prefix, each.split.continuations] for each in taught],
                m.target_temperature,
            ],
        )
        updated = {"epochs": epochs, "learning_rate": s.learning_rate or RATES[s.kind], "patience": patience}
        record = train(
            trainable.outer,
            lesson,
            s.model_copy(update=updated),
            seed=m.seed,
            work=m.work / name if m.work is not None else None,
            device="cpu" if self.base.device == "cpu" else "cuda",
            description=f"Training {self.base.name} ({s.kind})" + (f", {name}" if name != FIT else ""),
            on_epoch=on_epoch,
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
        return LossForm(s.losses, s.label_smoothing, s.focal, tuple(weights) if weights else None, self.method.target_temperature)
