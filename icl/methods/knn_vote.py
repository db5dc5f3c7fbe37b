"""The neighbours vote: the labels of the nearest labelled examples, without any language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..protocols import Encoder, MethodContext, Retriever
from ..seeds import rng_for
from ..values import Example, Hit, Kind, Prediction
from ._abstain import DESCRIPTION, Option, abstain_state, abstaining, evidence_of, rule_of
from ._common import encoder_state, index_of, inputs_of, label_order, labelled, neighbours_of, open_index, queries_of, voted
from ._folder import INDEX, save_predictor
from ._shown import shown

if TYPE_CHECKING:
    from ..retrieve import DemoIndex
    from ._abstain import Evidence

KINDS: frozenset[Kind] = frozenset({"classify"})
NEEDS_LABELS = True
NEEDS_MODEL = False
CHANCE: frozenset[str] = frozenset()
Weighting = Literal["similarity", "plain"]
SMALLEST_WEIGHT = 1e-6
"""A neighbour at a cosine of 0 or less still counts as one, beneath all others."""
MOST_ROWS = 2000
"""Rows of the pool that a threshold for abstaining is fitted on."""


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    k: int = Field(8, ge=1, description="How many neighbours vote.")
    weighted: Weighting = Field("similarity", description="A vote counts its cosine similarity, or 1.")
    encoder: str | None = Field(None, description="A sentence encoder; default: the suite's.")
    abstain: Option = Field(None, description=DESCRIPTION)


@dataclass(frozen=True)
class KnnVote:
    """The vote as a method. abstain: withhold unsure answers, as `_abstain.Abstain` says; a number is the threshold."""

    k: int = 8
    weighted: Weighting = "similarity"
    encoder: str | Encoder = "minilm"
    inputs: tuple[str, ...] = ()
    abstain: Any = None

    def __post_init__(self) -> None:
        rule_of(self.abstain)

    @property
    def kinds(self) -> frozenset[Kind]:
        return KINDS

    def fit(self, pool: Sequence[Example], labels: Sequence[str] = (), unlabelled: Sequence[Example] = ()) -> KnnVotePredictor:
        usable = labelled(pool, "knn_vote")
        index = index_of(usable, self.encoder)
        inputs, order = inputs_of(usable, self.inputs), label_order(usable, labels)
        return KnnVotePredictor(index, self.k, self.weighted, inputs, order, abstain=self.abstain)


@dataclass
class KnnVotePredictor:
    index: DemoIndex
    k: int
    weighted: Weighting
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    name: str = "knn_vote"
    abstain: Any = None
    threshold: float | None = None
    """The fitted one of a saved predictor."""

    def __post_init__(self) -> None:
        self._neighbours: Retriever = neighbours_of(self.index)
        self.abstaining = abstaining(self.abstain, self._leave_one_out, self.threshold)

    _repr_html_ = shown

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        voted = self._votes(queries_of(queries, self.inputs))
        return voted if self.abstaining is None or not voted else self.abstaining.apply(voted)

    def _votes(self, examples: Sequence[Example]) -> list[Prediction]:
        found = self._neighbours(examples, self.k)
        return [self._vote(query, hits) for query, hits in zip(examples, found, strict=True)]

    def _leave_one_out(self) -> Evidence:
        """Of at most `MOST_ROWS` rows: a row and its copies have no vote on itself."""
        pool = self.index.examples
        chosen = range(len(pool)) if len(pool) <= MOST_ROWS else sorted(rng_for(0, "abstain").sample(range(len(pool)), MOST_ROWS))
        rows = [pool[i] for i in chosen]
        return evidence_of(self._votes(rows), rows)

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
        self.abstaining = abstaining(self.abstain, self._leave_one_out)

    def save(self, folder: Path | str) -> None:
        state = {
            "method": "knn_vote",
            "name": self.name,
            "kind": "classify",
            "inputs": self.inputs,
            "labels": self.labels,
            "settings": {"k": self.k, "weighted": self.weighted},
            "encoder": encoder_state(self.index.encoder),
            **abstain_state(self.abstaining),
        }
        save_predictor(folder, state, lambda to: self.index.save(to / INDEX))


def build(settings: Settings, context: MethodContext) -> KnnVote:
    return KnnVote(settings.k, settings.weighted, settings.encoder or context.encoder, context.inputs, settings.abstain)


def load(folder: Path, state: Mapping[str, Any], *, lm: Any = None, device: str | None = None) -> KnnVotePredictor:
    index = open_index(folder / INDEX)
    s = state["settings"]
    held = state.get("abstain"), state.get("abstain_threshold")
    return KnnVotePredictor(index, s["k"], s["weighted"], tuple(state["inputs"]), tuple(state["labels"]), state["name"], *held)
