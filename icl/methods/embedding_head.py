"""Logistic regression on sentence embeddings: the cheapest trained rival."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from ..protocols import Encoder, MethodContext
from ..values import Example, Kind, Prediction, embedded_text
from ._common import encoder_again, encoder_state, inputs_of, label_order, labelled, queries_of, voted
from ._folder import save_predictor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS: frozenset[Kind] = frozenset({"classify"})
NEEDS_LABELS = True
NEEDS_MODEL = False
WEIGHTS = "head.safetensors"


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    c: float = Field(10.0, gt=0, description="Inverse strength of the L2 penalty; larger fits the examples more closely.")
    encoder: str | None = Field(None, description="A sentence encoder; default: the suite's.")


@dataclass(frozen=True)
class EmbeddingHead:
    c: float = 10.0
    encoder: str | Encoder = "minilm"
    inputs: tuple[str, ...] = ()

    @property
    def kinds(self) -> frozenset[Kind]:
        return KINDS

    def fit(self, pool: Sequence[Example], labels: Sequence[str] = (), unlabelled: Sequence[Example] = ()) -> EmbeddingHeadPredictor:
        from ..retrieve import load_encoder

        usable = labelled(pool, "embedding_head")
        encoder = load_encoder(self.encoder)
        order = label_order(usable, labels)
        seen = [label for label in order if any(e.target == label for e in usable)]
        vectors = encoder.encode([embedded_text(e.fields) for e in usable])
        weights, bias = _fit(vectors, [seen.index(str(e.target)) for e in usable], len(seen), self.c)
        return EmbeddingHeadPredictor(encoder, weights, bias, tuple(seen), inputs_of(usable, self.inputs), order)


def _fit(vectors: NDArray[np.float32], targets: Sequence[int], n_labels: int, c: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """((n_labels, dimensions), (n_labels,)) float64. With one label there is nothing to learn: zeros."""
    import numpy as np

    if n_labels == 1:
        return np.zeros((1, vectors.shape[1])), np.zeros(1)
    from sklearn.linear_model import LogisticRegression

    # float64 and lbfgs: deterministic, and the optimum does not depend on the order of the rows beyond the solver's tolerance.
    head = LogisticRegression(C=c, max_iter=2000).fit(vectors.astype(np.float64), np.asarray(targets))
    if n_labels == 2:  # sklearn keeps one row for two labels: its sigmoid is our softmax over (0, logit)
        return np.vstack([np.zeros_like(head.coef_), head.coef_]), np.concatenate([[0.0], head.intercept_])
    return head.coef_, head.intercept_


@dataclass
class EmbeddingHeadPredictor:
    encoder: Encoder
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    seen: tuple[str, ...]
    """The labels that the examples had; the rows of `weights`."""
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    name: str = "embedding_head"

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        import numpy as np

        from ..readout import probabilities

        examples = queries_of(queries, self.inputs)
        if not examples:
            return []
        vectors = self.encoder.encode([embedded_text(e.fields) for e in examples]).astype(np.float64)
        # Not `@`: einsum adds in the same order for any number of rows, so that a prediction does not depend on its batch.
        logits = np.einsum("nd,ld->nl", vectors, self.weights) + self.bias
        rows = probabilities(logits)
        return [voted(e, dict(zip(self.seen, row.tolist(), strict=True)), self.labels) for e, row in zip(examples, rows, strict=True)]

    def save(self, folder: Path | str) -> None:
        from safetensors.numpy import save_file

        state = {
            "method": "embedding_head",
            "name": self.name,
            "kind": "classify",
            "inputs": self.inputs,
            "labels": self.labels,
            "seen": self.seen,
            "encoder": encoder_state(self.encoder),
        }
        save_predictor(folder, state, lambda to: save_file({"weights": self.weights.copy(), "bias": self.bias.copy()}, to / WEIGHTS))


def build(settings: Settings, context: MethodContext) -> EmbeddingHead:
    return EmbeddingHead(settings.c, settings.encoder or context.encoder, context.inputs)


def load(folder: Path, state: Mapping[str, Any], *, lm: Any = None, device: str | None = None) -> EmbeddingHeadPredictor:
    from safetensors.numpy import load_file

    tensors = load_file(folder / WEIGHTS)
    labels, inputs = tuple(state["labels"]), tuple(state["inputs"])
    encoder = encoder_again(state["encoder"])
    return EmbeddingHeadPredictor(encoder, tensors["weights"], tensors["bias"], tuple(state["seen"]), inputs, labels, state["name"])
