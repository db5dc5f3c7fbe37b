"""The stored answer of the nearest example: what copying alone gets on answers in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from ..protocols import Encoder, MethodContext, Retriever
from ..values import Example, Kind, Prediction
from ._common import encoder_state, index_of, inputs_of, labelled, neighbours_of, open_index, queries_of
from ._folder import INDEX, save_predictor
from ._shown import shown

if TYPE_CHECKING:
    from ..retrieve import DemoIndex

KINDS: frozenset[Kind] = frozenset({"answer"})
NEEDS_LABELS = True
NEEDS_MODEL = False
CHANCE: frozenset[str] = frozenset()


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    encoder: str | None = Field(None, description="A sentence encoder; default: the suite's.")


@dataclass(frozen=True)
class NearestAnswer:
    encoder: str | Encoder = "minilm"
    inputs: tuple[str, ...] = ()

    @property
    def kinds(self) -> frozenset[Kind]:
        return KINDS

    def fit(self, pool: Sequence[Example], labels: Sequence[str] = (), unlabelled: Sequence[Example] = ()) -> NearestAnswerPredictor:
        usable = labelled(pool, "nearest_answer")
        return NearestAnswerPredictor(index_of(usable, self.encoder), inputs_of(usable, self.inputs))


@dataclass
class NearestAnswerPredictor:
    index: DemoIndex
    inputs: tuple[str, ...]
    name: str = "nearest_answer"

    def __post_init__(self) -> None:
        self._neighbours: Retriever = neighbours_of(self.index)

    _repr_html_ = shown

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        examples = queries_of(queries, self.inputs)
        result = []
        for query, hits in zip(examples, self._neighbours(examples, 1), strict=True):
            if hits:
                result.append(Prediction(query.uid, hits[0].example.target, demonstrations=(hits[0].uid,)))
            else:
                result.append(Prediction(query.uid, None, why="no labelled example is left beside the query's own copies"))
        return result

    def add(self, examples: Sequence[Example]) -> None:
        """Take new examples from the next query on."""
        self.index.add(labelled(examples, "nearest_answer"))

    def save(self, folder: Path | str) -> None:
        state = {"method": "nearest_answer", "name": self.name, "kind": "answer", "inputs": self.inputs}
        save_predictor(folder, {**state, "encoder": encoder_state(self.index.encoder)}, lambda to: self.index.save(to / INDEX))


def build(settings: Settings, context: MethodContext) -> NearestAnswer:
    return NearestAnswer(settings.encoder or context.encoder, context.inputs)


def load(folder: Path, state: Mapping[str, Any], *, lm: Any = None, device: str | None = None) -> NearestAnswerPredictor:
    return NearestAnswerPredictor(open_index(folder / INDEX), tuple(state["inputs"]), state["name"])
