"""The most frequent answer of the labelled examples: what any method must beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..plugins import NoSettings as Settings
from ..protocols import MethodContext
from ..values import KINDS as ALL_KINDS
from ..values import Example, Kind, Prediction
from ._common import best, floored, inputs_of, kind_of, label_order, labelled, queries_of
from ._folder import save_predictor
from ._shown import shown

KINDS: frozenset[Kind] = frozenset(ALL_KINDS)
NEEDS_LABELS = True
NEEDS_MODEL = False
CHANCE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Majority:
    """classify: the most frequent label. choose: the most frequent place of the right choice. answer: the most frequent answer."""

    kind: Kind | None = None
    inputs: tuple[str, ...] = ()

    @property
    def kinds(self) -> frozenset[Kind]:
        return KINDS

    def fit(self, pool: Sequence[Example], labels: Sequence[str] = (), unlabelled: Sequence[Example] = ()) -> MajorityPredictor:
        usable = labelled(pool, "majority")
        kind = self.kind or kind_of(usable)
        inputs = inputs_of(usable, self.inputs)
        if kind == "choose":
            places = Counter(str(e.choices.index(e.target)) for e in usable if e.target in e.choices)
            return MajorityPredictor(kind, inputs, (), dict(sorted(places.items(), key=lambda p: int(p[0]))))
        counts = Counter(str(e.target) for e in usable)
        order = label_order(usable, labels if kind == "classify" else ())
        return MajorityPredictor(kind, inputs, order if kind == "classify" else (), {t: counts[t] for t in order if counts[t]})


@dataclass
class MajorityPredictor:
    kind: Kind
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    counts: dict[str, int]
    """Label, place of the right choice (from 0), or answer -> how often, in label order or as first seen."""
    name: str = "majority"

    _repr_html_ = shown

    def predict(self, queries: Sequence[Any]) -> list[Prediction]:
        return [self._predict(q) for q in queries_of(queries, self.inputs)]

    def _predict(self, query: Example) -> Prediction:
        if self.kind == "choose":
            return self._choose(query)
        answer, tie = best(self.counts, list(self.counts))
        if self.kind == "answer":
            return Prediction(query.uid, answer, tie=tie)
        return Prediction(query.uid, answer, floored(self.counts, self.labels), self.labels, tie=tie)

    def _choose(self, query: Example) -> Prediction:
        if not query.choices:
            return Prediction(query.uid, None, why="the query has no choices")
        names = tuple(dict.fromkeys(query.choices))
        shares = dict.fromkeys(names, 0.0)
        for place, choice in enumerate(query.choices):
            shares[choice] += self.counts.get(str(place), 0)
        if not any(shares.values()):
            shares = dict.fromkeys(names, 1.0)
        answer, tie = best(shares, names)
        return Prediction(query.uid, answer, floored(shares, names), names, tie=tie)

    def save(self, folder: Path | str) -> None:
        state = {"method": "majority", "name": self.name, "kind": self.kind, "inputs": self.inputs, "labels": self.labels}
        save_predictor(folder, {**state, "counts": self.counts})


def build(settings: Settings, context: MethodContext) -> Majority:
    return Majority(context.kind, context.inputs)


def load(folder: Path, state: Mapping[str, Any], *, lm: Any = None, device: str | None = None) -> MajorityPredictor:
    return MajorityPredictor(state["kind"], tuple(state["inputs"]), tuple(state["labels"]), dict(state["counts"]), state["name"])
