"""A head on sentence embeddings, by default logistic regression: the cheapest trained rival."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError, Problem
from ..protocols import Encoder, MethodContext
from ..values import Example, Kind, Prediction, embedded_text
from ._abstain import DESCRIPTION, Abstaining, Option, abstain_state, abstaining, crossed, no_evidence, rule_of
from ._common import check_targets, encoder_again, encoder_state, inputs_of, label_order, labelled, queries_of, voted
from ._folder import save_predictor
from ._heads import Head, HeadKind, fit_head, fit_soft_head, load_head, save_head
from ._shown import shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS: frozenset[Kind] = frozenset({"classify"})
NEEDS_LABELS = True
NEEDS_MODEL = False
WEIGHTS = "head.safetensors"


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    head: HeadKind = Field("logistic", description="Logistic regression, the same in the features of a Gaussian kernel, or neighbours.")
    c: float = Field(10.0, gt=0, description="Inverse strength of the L2 penalty; larger fits the examples more closely.")
    encoder: str | None = Field(None, description="A sentence encoder; default: the suite's.")
    abstain: Option = Field(None, description=DESCRIPTION)


@dataclass(frozen=True)
class EmbeddingHead:
    """The head as a method. abstain: withhold unsure answers, as `_abstain.Abstain` says; a number is the threshold."""

    c: float = 10.0
    encoder: str | Encoder = "minilm"
    inputs: tuple[str, ...] = ()
    head: HeadKind = "logistic"
    seed: int = 0
    abstain: Any = None

    def __post_init__(self) -> None:
        rule_of(self.abstain)

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
    ) -> EmbeddingHeadPredictor:
        """targets: for each row the probabilities of the labels, in the order of `labels`, that it is to learn instead of its own label."""
        from ..retrieve import load_encoder

        if targets is not None:
            return self._distilled(pool, tuple(labels), targets)
        usable, started = labelled(pool, "embedding_head"), time.monotonic()
        encoder = load_encoder(self.encoder)
        before = Counter(getattr(encoder, "encoded", ()))
        order, inputs = label_order(usable, labels), inputs_of(usable, self.inputs)
        vectors = encoder.encode([embedded_text(e.fields) for e in usable])

        def fitted(positions: Sequence[int]) -> EmbeddingHeadPredictor:
            targets = [str(usable[i].target) for i in positions]
            seen = [label for label in order if label in set(targets)]
            head = fit_head(self.head, vectors[list(positions)], [seen.index(t) for t in targets], len(seen), self.c, self.seed)
            return EmbeddingHeadPredictor(encoder, head, tuple(seen), inputs, order)

        predictor = fitted(range(len(usable)))

        def answer(others: Sequence[int], held: Sequence[int]) -> list[Prediction]:
            return fitted(others).answers([usable[i] for i in held], vectors[list(held)])

        predictor.abstaining = abstaining(self.abstain, lambda: crossed(usable, order, answer))
        predictor.training = self._record(predictor, len(usable), before, started)
        return predictor

    def _record(self, predictor: EmbeddingHeadPredictor, n_rows: int, before: Counter[int], started: float) -> dict[str, Any]:
        """What the fit took; before: what the encoder had encoded before it. Vectors that a cache had took nothing, solving for the head is not
        counted in operations."""
        from ..train.cost import memory_mb

        arrays = predictor.head.arrays
        n_tokens, operations = _spent(predictor.encoder, before)
        memory = memory_mb()
        return {
            "seed": self.seed,
            "n_rows": n_rows,
            "curve": [],
            "n_trained": sum(int(arrays[name].size) for name in ("weights", "bias") if name in arrays),
            "n_bytes": sum(int(array.nbytes) for array in arrays.values()),
            "n_tokens": n_tokens,
            "operations": operations,
            "seconds": round(time.monotonic() - started, 3),
            **({"peak_memory_mb": memory} if memory is not None else {}),
        }

    def _distilled(self, pool: Sequence[Example], labels: tuple[str, ...], targets: Sequence[Sequence[float]]) -> EmbeddingHeadPredictor:
        import numpy as np

        from ..retrieve import load_encoder

        check_targets(targets, len(pool), len(labels))
        if self.abstain is not None:
            raise InputError(Problem("a threshold cannot be fitted on rows that have no labels", "Leave it out.", field="abstain"))
        encoder = load_encoder(self.encoder)
        vectors = encoder.encode([embedded_text(e.fields) for e in pool])
        head = fit_soft_head(self.head, vectors, np.asarray(targets, dtype=np.float64), self.c, self.seed)
        return EmbeddingHeadPredictor(encoder, head, labels, inputs_of(pool, self.inputs), labels)


@dataclass
class EmbeddingHeadPredictor:
    encoder: Encoder
    head: Head
    seen: tuple[str, ...]
    """The labels that the examples had, in the order of the head's."""
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    name: str = "embedding_head"
    abstaining: Abstaining | None = None
    training: Mapping[str, Any] | None = None
    """How it was trained, and what that cost, where it is more than a head; what a teacher cost, where it learned from one."""
    _used: Any = None

    _repr_html_ = shown

    @property
    def totals(self) -> Any:
        """Tokens and operations of all predictions so far, where vectors were computed for them and no cache had them; None with an encoder
        that is not on this machine."""
        from ..train.cost import Used

        if self._used is None and hasattr(self.encoder, "encoded"):
            self._used = Used()
        return self._used

    def reset_totals(self) -> None:
        """What was predicted so far belongs to the training."""
        self._used = None

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        examples = queries_of(queries, self.inputs)
        if not examples:
            return []
        before = Counter(getattr(self.encoder, "encoded", ()))
        vectors = self.encoder.encode([embedded_text(e.fields) for e in examples])
        if (totals := self.totals) is not None:
            n_tokens, operations = _spent(self.encoder, before)
            totals.add(n_tokens, 0, operations)
        answers = self.answers(examples, vectors)
        return answers if self.abstaining is None else self.abstaining.apply(answers)

    def answers(self, examples: Sequence[Example], vectors: NDArray[np.float32]) -> list[Prediction]:
        """vectors: (n, dimensions), those of the examples. Nothing is withheld."""
        rows = self.head.shares(vectors)
        return [voted(e, dict(zip(self.seen, row.tolist(), strict=True)), self.labels) for e, row in zip(examples, rows, strict=True)]

    def save(self, folder: Path | str) -> None:
        state = {"method": "embedding_head", **self.state(), "encoder": encoder_state(self.encoder)}
        save_predictor(folder, state, lambda to: save_head(self.head, to / WEIGHTS))

    def state(self) -> dict[str, Any]:
        """What is saved of it beside its arrays and its encoder."""
        return {
            "name": self.name,
            "kind": "classify",
            "inputs": self.inputs,
            "labels": self.labels,
            "seen": self.seen,
            "head": self.head.kind,
            **({"training": dict(self.training)} if self.training is not None else {}),
            **abstain_state(self.abstaining),
        }


def _spent(encoder: Any, before: Counter[int]) -> tuple[int, float]:
    """(tokens, operations) of the texts that it has encoded since; before: its `encoded` then."""
    new = Counter(getattr(encoder, "encoded", ())) - before
    if not new:
        return 0, 0.0
    from ..train.cost import operations_of

    estimate = operations_of(encoder.module)
    return sum(n * texts for n, texts in new.items()), sum(estimate.forward(n * texts, n) for n, texts in new.items())


def build(settings: Settings, context: MethodContext) -> EmbeddingHead:
    return EmbeddingHead(settings.c, settings.encoder or context.encoder, context.inputs, settings.head, context.seed, settings.abstain)


def load(folder: Path, state: Mapping[str, Any], *, lm: Any = None, device: str | None = None) -> EmbeddingHeadPredictor:
    return EmbeddingHeadPredictor(encoder_again(state["encoder"]), *saved_parts(folder, state))


def saved_parts(folder: Path, state: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a predictor has beside its encoder, in the order of its fields."""
    seen = tuple(state["seen"])
    head = load_head(folder / WEIGHTS, state["head"], len(seen))
    held = abstaining(state.get("abstain"), no_evidence, state.get("abstain_threshold"))
    return head, seen, tuple(state["inputs"]), tuple(state["labels"]), state["name"], held, state.get("training")
