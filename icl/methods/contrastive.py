"""A sentence encoder tuned on the labelled examples by contrast, and a head on it (SetFit's idea): strong with few labels, no prompt."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError, Problem
from ..protocols import Encoder, MethodContext
from ..values import Example, Kind, Prediction, embedded_text
from ._abstain import DESCRIPTION, Option, abstaining, crossed
from ._common import inputs_of, label_order, labelled
from ._folder import save_predictor
from ._heads import HeadKind, fit_head, save_head
from .embedding_head import WEIGHTS, EmbeddingHeadPredictor, saved_parts

if TYPE_CHECKING:
    from ..retrieve import SentenceEncoder

KINDS: frozenset[Kind] = frozenset({"classify"})
NEEDS_LABELS = True
NEEDS_MODEL = False
ENCODER = "encoder"
TUNED = ", tuned"


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    encoder: str | None = Field(None, description="The sentence encoder that tuning starts from; default: the suite's.")
    steps: int | None = Field(
        None, ge=1, description="Training steps; default: 12 to 24, or as many as show each example twice, at most 1000."
    )
    batch: int = Field(32, ge=4, description="Texts in a step; every pair of them counts.")
    learning_rate: float = Field(5e-5, gt=0, description="Largest step of the optimiser (AdamW); it warms up and falls to nothing.")
    temperature: float = Field(0.1, gt=0, description="Of the contrastive loss: the smaller, the more the hardest pairs count.")
    head: HeadKind = Field("logistic", description="Logistic regression, the same in the features of a Gaussian kernel, or neighbours.")
    c: float = Field(10.0, gt=0, description="Inverse strength of the head's L2 penalty.")
    abstain: Option = Field(None, description=DESCRIPTION)


@dataclass(frozen=True)
class Contrastive:
    settings: Settings
    encoder: str | Encoder = "minilm"
    inputs: tuple[str, ...] = ()
    seed: int = 0

    @property
    def kinds(self) -> frozenset[Kind]:
        return KINDS

    def fit(self, pool: Sequence[Example], labels: Sequence[str] = (), unlabelled: Sequence[Example] = ()) -> ContrastivePredictor:
        """Tune and fit the head. With one label there is nothing to contrast, and the encoder stays as it is.

        Raises InputError for a pool without labels, or an encoder that has no weights here.
        """
        from ..retrieve import SentenceEncoder, load_encoder

        usable = labelled(pool, "contrastive")
        base = load_encoder(self.encoder)
        if not isinstance(base, SentenceEncoder):
            message = f"the encoder '{base.name}' has no weights here, so it cannot be tuned"
            raise InputError(Problem(message, "Start from minilm, a hub id or a sentence-transformers folder.", field="encoder"))
        order, inputs = label_order(usable, labels), inputs_of(usable, self.inputs)
        predictor = self._fitted(base, usable, order, inputs)

        def answer(others: Sequence[int], held: Sequence[int]) -> list[Prediction]:
            return self._fitted(base, [usable[i] for i in others], order, inputs).predict([usable[i] for i in held])

        predictor.abstaining = abstaining(self.settings.abstain, lambda: crossed(usable, order, answer))
        return predictor

    def _fitted(
        self, base: SentenceEncoder, usable: Sequence[Example], order: tuple[str, ...], inputs: tuple[str, ...]
    ) -> ContrastivePredictor:
        from ..retrieve.encoders import model_in
        from ..train.contrastive import Spent, n_steps_for, tune
        from ..train.cost import n_bytes_of
        from ..weights import quiet_transformers

        seen = [label for label in order if any(e.target == label for e in usable)]
        texts, targets = [embedded_text(e.fields) for e in usable], [str(e.target) for e in usable]
        s = self.settings
        model, spent, started = model_in(base.folder), Spent(), time.monotonic()
        losses: list[float] = []
        if len(seen) > 1:
            losses = tune(
                model,
                texts,
                targets,
                batch=s.batch,
                steps=s.steps or n_steps_for(len(texts), s.batch),
                learning_rate=s.learning_rate,
                temperature=s.temperature,
                seed=self.seed,
                spent=spent,
            )
        folder = Path(tempfile.mkdtemp(prefix="icl-"))
        with quiet_transformers():
            model.module.save(str(folder / ENCODER), create_model_card=False)
        encoder = _tuned(base.name, folder / ENCODER, model)
        weakref.finalize(encoder, shutil.rmtree, folder, ignore_errors=True)
        head = fit_head(s.head, encoder.encode(texts), [seen.index(t) for t in targets], len(seen), s.c, self.seed)
        training = {
            "seed": self.seed,
            "n_rows": len(usable),
            "n_steps": len(losses),
            "curve": [{"step": n, "loss": round(loss, 6)} for n, loss in enumerate(losses, 1)],
            "n_parameters": sum(p.numel() for p in model.module.parameters()),
            "n_bytes": n_bytes_of(model.module, trained_only=False),
            "n_trained": spent.n_trained,
            "n_tokens": spent.computed,
            "n_padding": spent.padding,
            "operations": spent.operations,
            "peak_memory_mb": spent.peak_memory_mb,
            "seconds": round(time.monotonic() - started, 3),
            "device": str(model.module.device),
        }
        return ContrastivePredictor(encoder, head, tuple(seen), inputs, order, training=training)


def _tuned(base: str, folder: Path, model: Any = None) -> SentenceEncoder:
    """Its vectors are not kept on disk: each fit makes another encoder. model: that of the folder, as it was tuned."""
    from ..retrieve import SentenceEncoder

    return SentenceEncoder(f"{base}{TUNED}", folder, cache=False, model=model)


@dataclass
class ContrastivePredictor(EmbeddingHeadPredictor):
    """A head on an encoder that is its own: it is saved with it."""

    name: str = "contrastive"

    def save(self, folder: Path | str) -> None:
        encoder: Any = self.encoder
        state = {"method": "contrastive", **self.state(), "base": encoder.name.removesuffix(TUNED)}

        def write(to: Path) -> None:
            shutil.copytree(encoder.folder, to / ENCODER)
            save_head(self.head, to / WEIGHTS)

        save_predictor(folder, state, write)


def build(settings: Settings, context: MethodContext) -> Contrastive:
    return Contrastive(settings, settings.encoder or context.encoder, context.inputs, context.seed)


def load(folder: Path, state: Mapping[str, Any], *, lm: Any = None, device: str | None = None) -> ContrastivePredictor:
    return ContrastivePredictor(_tuned(state["base"], folder / ENCODER), *saved_parts(folder, state))
