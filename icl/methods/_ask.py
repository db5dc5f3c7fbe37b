"""Selectors and orders of a predictor, and what they ask its language model: many queries, each with demonstrations, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CostLimitError, InputError, Problem
from ..plugins import Asking, Learned, ScoreMany, find, parse_spec
from ..prompt import Unfit
from ..values import Example, Hit, Prompt
from ._labels import log_scores
from ._written import Lost

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..retrieve.retriever import CheckedOrder
    from ..retrieve.stages import Stages
    from ._predictor import FewShotPredictor
    from .few_shot import FewShot


def score_many(predictor: FewShotPredictor, pairs: Sequence[tuple[Example, Sequence[Example]]]) -> list[NDArray[np.float64] | None]:
    """Per (query, demonstrations in prompt order) the uncalibrated log-scores of the answers, (n_answers,); None: cannot be scored.

    All are given to the model in one call, which computes the beginnings that prompts share once. Raises InputError where answers
    are free text, CostLimitError where the model's `max_cost` is reached.
    """
    if predictor.kind == "answer":
        raise InputError(Problem("this retriever or order scores labels, and the answers here are free text", "Take another one."))
    packed = [_packed(predictor, query, shown) for query, shown in pairs]
    work = [(query, made) for (query, _), made in zip(pairs, packed, strict=True) if not isinstance(made, Unfit)]
    found = predictor._raw(predictor._lm(), work) if work else []
    if limits := [each.why for each in found if isinstance(each, Lost) and each.limit]:
        raise CostLimitError(limits[0])
    values = iter([None if isinstance(each, Lost) else log_scores(each[1], each[0], predictor.method.readouts[0]) for each in found])
    return [None if isinstance(made, Unfit) else next(values) for made in packed]


def _packed(predictor: FewShotPredictor, query: Example, shown: Sequence[Example]) -> Prompt | Unfit:
    return predictor._pack_one(query, [Hit(e.uid, 0.0, e) for e in shown], [e.uid for e in reversed(shown)])


def asking(predictor: FewShotPredictor) -> Asking:
    """The predictor's model, and what was learned from it."""
    return Asking(predictor.score_many, predictor.learned, partial(_train_encoder, predictor))


def _train_encoder(predictor: FewShotPredictor, rows: Sequence[Example], settings: Any, score_many: ScoreMany, to: Path) -> bool:
    """As `plugins.TrainEncoder`, but raises InputError where nothing can be scored: the results would speak of a trained retriever."""
    from ..train.retriever import train_retriever

    method = predictor.method
    train_retriever(rows, score_many, to, labels=predictor.labels, settings=settings, base=method.encoder, seed=method.seed)
    return True


def retriever_of(predictor: FewShotPredictor, asking: Asking) -> Stages:
    """The method's retriever, over the predictor's pool as it is."""
    from ..retrieve import build_retriever

    codec = predictor._model.codec()
    retriever: Stages = build_retriever(
        predictor.method.retriever,
        predictor.pool,
        index=lambda: predictor.index,
        labels=predictor.labels,
        seed=predictor.method.seed,
        folders=predictor.method.plugins,
        count_tokens=codec.count if codec is not None else None,
        score_many=asking,
    )
    return retriever


def order_of(predictor: FewShotPredictor, asking: Asking) -> CheckedOrder:
    """The method's order."""
    from ..retrieve import build_order

    method = predictor.method
    order: CheckedOrder = build_order(
        method.order,
        labels=predictor.labels,
        seed=method.seed if method.order_seed is None else method.order_seed,
        folders=method.plugins,
        pool=predictor.pool,
        score_many=asking,
    )
    return order


def asks_model(method: FewShot) -> bool:
    """Whether a selector or order of the method asks the language model."""
    return _any_selector(method, "NEEDS_MODEL") or _asks("order", method.order, method, "NEEDS_MODEL")


def learn(predictor: FewShotPredictor) -> None:
    """Ask what a selector that `LEARNS` asks once for a pool, unless it was used: who loads a saved predictor shall not have to."""
    method = predictor.method
    has_work = predictor._retriever is None and predictor._model.reference is not None and method.shots and len(predictor.pool)
    if has_work and _any_selector(method, "LEARNS"):
        predictor._retrieving()([predictor.pool[0]], method.shots)


def _any_selector(method: FewShot, flag: str) -> bool:
    return any(_asks("selector", value, method, flag) for value in _listed(method.retriever))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _asks(kind: str, value: Any, method: FewShot, flag: str) -> bool:
    if not isinstance(value, str | Mapping):
        return False
    spec = parse_spec(value, kind)
    inner = [part for part in _listed(spec.settings.get("of")) if part is not None]  # a selector of selectors
    needs = getattr(find(kind, spec.name, method.plugins).load(), flag, False)
    return bool(needs) or any(_asks(kind, part, method, flag) for part in inner)


class Rehearsal:
    """Prompts as a predictor makes them, but for what its selectors and orders would learn from the model: that is noted, not asked."""

    def __init__(self, predictor: FewShotPredictor) -> None:
        self._predictor = predictor
        self._asked: list[tuple[Example, Sequence[Example]]] = []
        learned = Learned(deepcopy(predictor.learned.values), dict(predictor.learned.folders))
        noting = Asking(self._note, learned, self._train)
        self._retrieve, self._order = retriever_of(predictor, noting), order_of(predictor, noting)

    def _train(self, rows: Sequence[Example], settings: Any, score_many: ScoreMany, to: Path) -> bool:
        from ..train.retriever import NothingScoredError

        try:
            return _train_encoder(self._predictor, rows, settings, score_many, to)
        except NothingScoredError:
            return False

    def _note(self, pairs: Sequence[tuple[Example, Sequence[Example]]]) -> list[NDArray[np.float64] | None]:
        self._asked += pairs
        return [None] * len(pairs)

    def pack(self, queries: Sequence[Example]) -> list[Prompt | Unfit]:
        """Prompts of about the sizes that the real ones will have."""
        return self._predictor._pack_with(queries, self._retrieve, self._order)

    def asked(self) -> tuple[list[Example], list[Prompt | Unfit]]:
        """What the model would have been asked since the last time: queries and their prompts."""
        asked, self._asked = self._asked, []
        return [query for query, _ in asked], [_packed(self._predictor, query, shown) for query, shown in asked]
