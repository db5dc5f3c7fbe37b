"""A sentence encoder tuned on the labelled examples by contrast, and a head on it (SetFit's idea): strong with few labels, no prompt."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError, Problem
from ..protocols import Encoder, MethodContext
from ..values import Example, Kind, Prediction, embedded_text
from ._common import inputs_of, label_order, labelled, queries_of, voted
from ._folder import save_predictor
from ._heads import Head, HeadKind, fit_head, load_head, save_head

if TYPE_CHECKING:
    from ..retrieve import SentenceEncoder

KINDS: frozenset[Kind] = frozenset({"classify"})
NEEDS_LABELS = True
NEEDS_MODEL = False
WEIGHTS = "head.safetensors"
ENCODER = "encoder"


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    encoder: str | None = Field(None, description="The sentence encoder that tuning starts from; default: the suite's.")
    steps: int | None = Field(None, ge=1, description="Training steps; default: 24, or as many as show each example twice, at most 1000.")
    batch: int = Field(32, ge=4, description="Texts in a step; every pair of them counts.")
    learning_rate: float = Field(5e-5, gt=0, description="Largest step of the optimiser (AdamW); it warms up and falls to nothing.")
    temperature: float = Field(0.1, gt=0, description="Of the contrastive loss: the smaller, the more the hardest pairs count.")
    head: HeadKind = Field("logistic", description="Logistic regression, the same in the features of a Gaussian kernel, or neighbours.")
    c: float = Field(10.0, gt=0, description="Inverse strength of the head's L2 penalty.")


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
        from ..retrieve.encoders import model_in
        from ..train.contrastive import n_steps_for, tune
        from ..weights import quiet_transformers

        usable = labelled(pool, "contrastive")
        base = load_encoder(self.encoder)
        if not isinstance(base, SentenceEncoder):
            message = f"the encoder '{base.name}' has no weights here, so it cannot be tuned"
            raise InputError(Problem(message, "Start from minilm, a hub id or a sentence-transformers folder.", field="encoder"))
        order = label_order(usable, labels)
        seen = [label for label in order if any(e.target == label for e in usable)]
        texts, targets = [embedded_text(e.fields) for e in usable], [str(e.target) for e in usable]
        s = self.settings
        model = model_in(base.folder)
        if len(seen) > 1:
            tune(
                model,
                texts,
                targets,
                batch=s.batch,
                steps=s.steps or n_steps_for(len(texts), s.batch),
                learning_rate=s.learning_rate,
                temperature=s.temperature,
                seed=self.seed,
            )
        folder = Path(tempfile.mkdtemp(prefix="icl-"))
        with quiet_transformers():
            model.module.save(str(folder / ENCODER), create_model_card=False)
        encoder = _tuned(base.name, folder / ENCODER)
        weakref.finalize(encoder, shutil.rmtree, folder, ignore_errors=True)
        head = fit_head(s.head, encoder.encode(texts), [seen.index(t) for t in targets], len(seen), s.c, self.seed)
        return ContrastivePredictor(encoder, head, tuple(seen), inputs_of(usable, self.inputs), order)


def _tuned(base: str, folder: Path) -> SentenceEncoder:
    """Its vectors are not kept on disk: each fit makes another encoder."""
    from ..retrieve import SentenceEncoder

    return SentenceEncoder(f"{base}, tuned", folder, cache=False)


@dataclass
class ContrastivePredictor:
    encoder: SentenceEncoder
    head: Head
    seen: tuple[str, ...]
    """The labels that the examples had, in the order of the head's."""
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    name: str = "contrastive"

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        examples = queries_of(queries, self.inputs)
        if not examples:
            return []
        rows = self.head.shares(self.encoder.encode([embedded_text(e.fields) for e in examples]))
        return [voted(e, dict(zip(self.seen, row.tolist(), strict=True)), self.labels) for e, row in zip(examples, rows, strict=True)]

    def save(self, folder: Path | str) -> None:
        state = {
            "method": "contrastive",
            "name": self.name,
            "kind": "classify",
            "inputs": self.inputs,
            "labels": self.labels,
            "seen": self.seen,
            "head": self.head.kind,
            "base": self.encoder.name.removesuffix(", tuned"),
        }

        def write(to: Path) -> None:
            shutil.copytree(self.encoder.folder, to / ENCODER)
            save_head(self.head, to / WEIGHTS)

        save_predictor(folder, state, write)


def build(settings: Settings, context: MethodContext) -> Contrastive:
    return Contrastive(settings, settings.encoder or context.encoder, context.inputs, context.seed)


def load(folder: Path, state: Mapping[str, Any], *, lm: Any = None, device: str | None = None) -> ContrastivePredictor:
    seen = tuple(state["seen"])
    head = load_head(folder / WEIGHTS, state["head"], len(seen))
    encoder = _tuned(state["base"], folder / ENCODER)
    return ContrastivePredictor(encoder, head, seen, tuple(state["inputs"]), tuple(state["labels"]), state["name"])
