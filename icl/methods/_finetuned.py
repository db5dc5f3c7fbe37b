"""A fine-tuned language model with its prompt: how it predicts, is saved, and is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem
from ..files import read_text, write_text
from ..progress import note
from ..protocols import LanguageModel
from ..values import Kind, Prediction, Prompt, TokenCounts
from ._folder import TEMPLATE_FILE, save_predictor
from ._model import ModelHandle
from ._shown import shown

if TYPE_CHECKING:
    from ..model import Seq2SeqModel, TorchModel
    from ..train.cost import Operations
    from ..train.peft_kinds import Form, Trainable
    from ._predictor import FewShotPredictor

MOVED = ("device", "memory", "max_batch", "attention")
"""Of a base's reference, what a whole model that was trained is loaded with too."""


@dataclass(frozen=True)
class Spent:
    """What predictions have cost so far, as a run reads it."""

    computed: int
    padded: int
    cached: int
    naive: int
    generated: int
    operations: float


def trained_model(base: TorchModel | Seq2SeqModel, trainable: Trainable) -> TorchModel | Seq2SeqModel:
    """A base's trained copy as a language model of its own."""
    from ..model import Seq2SeqModel, TorchModel
    from ..train.soft import SoftCodec
    from ..values import digest

    def identity() -> str:
        return digest([base.fingerprint, asdict(trainable.form), trainable.fingerprint()])

    name = f"{base.name}, {trainable.form.kind}"
    if isinstance(base, Seq2SeqModel):
        return Seq2SeqModel(
            trainable.model,
            base.codec,
            name=name,
            reference=base.reference,
            memory=base.limits.memory,
            max_batch=base.limits.max_rows,
            identity=identity,
        )
    codec = SoftCodec(base.codec, trainable.virtual) if trainable.virtual else base.codec
    return TorchModel(
        trainable.model,
        codec,
        name=name,
        reference=base.reference,
        memory=base.limits.memory,
        max_batch=base.limits.max_rows,
        identity=identity,
        attention=base.reference.get("attention"),
    )


@dataclass
class TrainedHandle(ModelHandle):
    """The trained model of a saved predictor: its base is loaded, and the weights are put in, when it first predicts."""

    form: Form | None = None
    folder: Path = Path()
    base: LanguageModel | None = None
    trainable: Trainable | None = None

    def load(self) -> LanguageModel:
        if self.lm is None:
            from ..train.peft_kinds import MODEL, load_trained

            assert self.form is not None
            reference = dict(self.reference or {})
            if self.form.kind == "full":
                kept = {name: reference[name] for name in (*MOVED, "dtype") if name in reference}
                base = self._loaded({**kept, "name": str(self.folder / MODEL)})
            else:
                base = local(self.base if self.base is not None else self._loaded(reference))
                if self.fingerprint and base.fingerprint != self.fingerprint:
                    note(f"'{base.name}' is not quite the model that was trained (dtype, device or files differ).")
            self.trainable = load_trained(base.model, self.form, self.folder)
            self.lm = base if self.form.kind == "full" else trained_model(base, self.trainable)
        return self.lm

    def _loaded(self, reference: Mapping[str, Any]) -> TorchModel | Seq2SeqModel:
        from ..model import load_model

        return local(load_model(**{**reference, **({"device": self.device} if self.device else {})}))

    def codec(self) -> Any:
        """That of the trained model: virtual tokens stand in front of its prompts."""
        return self.load().codec


def local(lm: LanguageModel | None) -> TorchModel | Seq2SeqModel:
    """The model as one that can be trained. Raises InputError for none, one behind an address, or several copies."""
    from ..model import Seq2SeqModel, TorchModel

    if isinstance(lm, TorchModel | Seq2SeqModel):
        return lm
    what = "no language model is given" if lm is None else f"'{lm.name}' is no language model on this machine, in one copy"
    raise InputError(Problem(f"{what}, and finetune trains one", "Name one: base: smollm2, or a folder or hub id.", field="base"))


@dataclass
class FinetunedPredictor:
    """The zero-shot prompt of the trained model."""

    prompted: FewShotPredictor
    handle: TrainedHandle
    estimate: Operations
    base: Mapping[str, Any]
    """`reference`, `fingerprint` and `window` of the model that was trained."""
    training: Mapping[str, Any]
    """How it was trained, and what that cost."""
    name: str = "finetune"
    _lengths: list[int] = field(default_factory=lambda: [0, 0])
    """(tokens of the prompts so far, their number)"""

    _repr_html_ = shown

    @property
    def kind(self) -> Kind:
        return self.prompted.kind

    @property
    def labels(self) -> tuple[str, ...]:
        return self.prompted.labels

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.prompted.inputs

    @property
    def lm(self) -> LanguageModel | None:
        """The trained model, if it is loaded."""
        return self.handle.lm

    @property
    def estimator(self) -> str:
        """How an answer is found."""
        return self.prompted.estimator

    @property
    def readouts(self) -> tuple[str, ...]:
        """The read-outs that its scores allow, its own first."""
        return self.prompted.readouts

    @property
    def calibration(self) -> Any:
        return self.prompted.calibration

    @property
    def totals(self) -> Spent:
        """Tokens and operations of all predictions so far; the part of attention by the mean length of the prompts."""
        t: Any = getattr(self.lm, "totals", None)
        if t is None:
            return Spent(0, 0, 0, 0, 0, 0.0)
        n, length = t.computed + t.padded, self._lengths[0] / max(1, self._lengths[1])
        return Spent(t.computed, t.padded, t.cached, t.naive, t.generated, self.estimate.forward(n, length))

    def prompt(self, query: Any) -> Prompt:
        """The prompt for one query."""
        return self.prompted.prompt(query)

    def prompts(self, queries: Sequence[Any]) -> list[Prompt]:
        """One prompt per query."""
        return self.prompted.prompts(queries)

    def plan(self, queries: Sequence[Any]) -> TokenCounts:
        """Tokens that `predict` computes from a cold start."""
        return self.prompted.plan(queries)

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        """One Prediction per query, in order, as the few-shot prompt's are."""
        found = self.prompted.predict(queries)
        known = [p.n_tokens for p in found if p.n_tokens is not None]
        self._lengths[0] += sum(known)
        self._lengths[1] += len(known)
        return found

    def save(self, folder: Path | str) -> None:
        """The trained weights (an adapter as PEFT reads it, or the whole model), the template, and the name of the base."""
        from ._state import prompt_state

        self.handle.load()
        trainable = self.handle.trainable
        assert trainable is not None
        state = prompt_state(self.prompted.method, self.prompted.bound, ModelHandle(reference=self.base["reference"]), None)
        bound = self.prompted.bound

        def write(to: Path) -> None:
            from ..train.peft_kinds import MODEL

            write_text(to / TEMPLATE_FILE, bound.template.source)
            trainable.save(to)
            if trainable.form.kind == "full":
                from ..model.load import load_tokenizer

                reference = self.base["reference"]
                load_tokenizer(str(reference["name"]), revision=reference.get("revision")).save_pretrained(str(to / MODEL))

        more = {"form": asdict(trainable.form), "estimate": asdict(self.estimate), "training": dict(self.training)}
        calibration = self.calibration.saved(self.prompted) if self.calibration is not None else None
        save_predictor(
            folder,
            {**state, **more, "method": "finetune", "name": self.name, "model": dict(self.base), "calibration_state": calibration},
            write,
        )


def load_finetuned(
    folder: Path, state: Mapping[str, Any], lm: LanguageModel | None = None, device: str | None = None
) -> FinetunedPredictor:
    """What `FinetunedPredictor.save` wrote. lm: the base, where it is loaded already."""
    from ..prompt import Template, bind
    from ..train.cost import Operations
    from ..train.peft_kinds import Form
    from ._predictor import FewShotPredictor
    from .few_shot import FewShot

    template = Template.parse(read_text(folder / TEMPLATE_FILE), state["template"]["name"], folder / TEMPLATE_FILE)
    if state["template"]["split_labels"]:
        from dataclasses import replace

        template = replace(template, split_labels=True)
    method = FewShot(
        template=template,
        words=state["words"],
        kind=state["kind"],
        inputs=tuple(state["inputs"]),
        name=state["name"],
        **{**state["settings"], "retriever": "random"},
    )
    bound = bind(template, kind=state["kind"], inputs=method.inputs, labels=tuple(state["labels"]), words=method.words)
    form = Form(**{**state["form"], "targets": tuple(state["form"]["targets"])})
    handle = TrainedHandle(**state["model"], device=device, form=form, folder=folder, base=lm)
    prompted = FewShotPredictor(method, bound, (), handle, frozen=state["calibration_state"])
    return FinetunedPredictor(prompted, handle, Operations(**state["estimate"]), state["model"], state["training"], state["name"])
