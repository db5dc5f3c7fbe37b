"""The neighbours vote: the labels of the nearest labelled examples, without any language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..protocols import Encoder, MethodContext, Retriever
from ..values import Example, Hit, Kind, Prediction
from ._common import encoder_state, index_of, inputs_of, label_order, labelled, neighbours_of, open_index, queries_of, voted
from ._folder import INDEX, save_predictor

if TYPE_CHECKING:
    from ..retrieve import DemoIndex

KINDS: frozenset[Kind] = frozenset({"classify"})
NEEDS_LABELS = True
NEEDS_MODEL = False
Weighting = Literal["similarity", "plain"]
SMALLEST_WEIGHT = 1e-6
"""A neighbour at a cosine of 0 or less still counts as one, beneath all others."""


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    k: int = Field(8, ge=1, description="How many neighbours vote.")
    weighted: Weighting = Field("similarity", description="A vote counts its cosine similarity, or 1.")
    encoder: str | None = Field(None, description="A sentence encoder; default: the suite's.")


@dataclass(frozen=True)
class KnnVote:
    k: int = 8
    weighted: Weighting = "similarity"
    encoder: str | Encoder = "minilm"
    inputs: tuple[str, ...] = ()

    @property
    def kinds(self) -> frozenset[Kind]:
        return KINDS

    def fit(self, pool: Sequence[Example], labels: Sequence[str] = (), unlabelled: Sequence[Example] = ()) -> KnnVotePredictor:
        usable = labelled(pool, "knn_vote")
        index = index_of(usable, self.encoder)
        return KnnVotePredictor(index, self.k, self.weighted, inputs_of(usable, self.inputs), label_order(usable, labels))


@dataclass
class KnnVotePredictor:
    index: DemoIndex
    k: int
    weighted: Weighting
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    name: str = "knn_vote"

    def __post_init__(self) -> None:
        self._neighbours: Retriever = neighbours_of(self.index)

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        examples = queries_of(queries, self.inputs)
        found = self._neighbours(examples, self.k)
        return [self._vote(query, hits) for query, hits in zip(examples, found, strict=True)]

    def _vote(self, query: Example, hits: Sequence[Hit]) -> Prediction:
        if not hits:
            return Prediction(query.uid, None, candidates=self.labels, why="no labelled example is left beside the query's own copies")
        shares: dict[str, float] = {}
        for hit in hits:
            # Plain votes that are equal are decided by the similarities: far too small to outweigh a vote.
            close = max(hit.score, SMALLEST_WEIGHT)
            vote = close if self.weighted == "similarity" else 1 + close * 1e-3 / len(hits)
            shares[str(hit.example.target)] = shares.get(str(hit.example.target), 0.0) + vote
        return voted(query, shares, self.labels, tuple(h.uid for h in hits))

    def add(self, examples: Sequence[Example]) -> None:
        """Take new labelled examples, and any new labels, from the next query on."""
        usable = labelled(examples, "knn_vote")
        self.index.add(usable)
        self.labels = label_order(usable, self.labels)

    def save(self, folder: Path | str) -> None:
        state = {
            "method": "knn_vote",
            "name": self.name,
            "kind": "classify",
            "inputs": self.inputs,
            "labels": self.labels,
            "settings": {"k": self.k, "weighted": self.weighted},
            "encoder": encoder_state(self.index.encoder),
        }
        save_predictor(folder, state, lambda to: self.index.save(to / INDEX))


def build(settings: Settings, context: MethodContext) -> KnnVote:
    return KnnVote(settings.k, settings.weighted, settings.encoder or context.encoder, context.inputs)


def load(folder: Path, state: Mapping[str, Any], *, lm: Any = None, device: str | None = None) -> KnnVotePredictor:
    index = open_index(folder / INDEX)
    s = state["settings"]
    return KnnVotePredictor(index, s["k"], s["weighted"], tuple(state["inputs"]), tuple(state["labels"]), state["name"])
