"""The rows nearest by an encoder that is trained on the model's own scores of the pool (EPR)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from ...errors import InputError, Problem
from ...plugins import Context, learned_key
from ...plugins import build as build_component
from ...protocols import Selector
from ...values import Example, Hit
from ..index import DemoIndex
from ._common import FromPool, StageSettings
from .knn import nearest

NEEDS_MODEL = True
LEARNS = True
FEWEST = 3
"""Rows: a query and two candidates, of which one is better. Among fewer there is nothing to learn."""


class Settings(StageSettings):
    candidates: int = Field(8, ge=2, description="Rows that are each tried as the one demonstration of a training query.")
    candidates_by: Literal["bm25", "knn"] = Field("bm25", description="What finds them: shared words, or the encoder as it was.")
    queries: int = Field(128, ge=2, description="Rows of the pool that are training queries; a fifth of them only measures the result.")
    measure: Literal["log_likelihood", "log_probability"] = Field(
        "log_likelihood", description="A candidate's score: the log-likelihood of the right label, or its share among all labels."
    )
    epochs: int = Field(4, ge=1, description="How often training goes over the queries.")
    batch: int = Field(16, ge=2, description="Queries in a batch; the others' rows are negatives too.")
    learning_rate: float = Field(5e-5, gt=0, description="Largest step of the optimiser (AdamW); it warms up and falls to nothing.")
    base: str | None = Field(None, description="The encoder that training starts from; default: the method's.")


def build(settings: Settings, context: Context) -> Selector:
    """Hits by the trained encoder's cosine, best first. Rows of the pool are training queries, other rows their candidates; a row that
    makes the right label likelier as the only demonstration is to be nearer to the query than one that does not.

    Rubin et al. 2022, https://arxiv.org/abs/2112.08633; how it is trained, and how that departs from the paper, stands in
    `icl.train.retriever`. Costs `queries` times `candidates` prompts, and training, once for a pool. A pool of fewer than three rows
    is ranked by `candidates_by`.
    """
    untrained: Selector = build_component("selector", settings.candidates_by, context, context.folders)
    found = FromPool(context.pool, lambda pool: _index(settings, context, pool))

    def select(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        index = found()
        if isinstance(index, InputError):
            raise index
        return untrained(queries, k, candidates) if index is None else nearest(lambda: index)(queries, k, candidates)

    return select


def _index(settings: Settings, context: Context, pool: Sequence[Example]) -> DemoIndex | InputError | None:
    """The pool as the trained encoder sees it; None if there is none, or why it cannot be trained: that is not tried again."""
    if len(pool) < FEWEST:
        return None
    assert context.score_many is not None
    if context.train_encoder is None:
        raise InputError(
            Problem("nothing here trains an encoder", "Use 'epr' in a method that has a model, or knn: {encoder: FOLDER}.", field="epr")
        )
    score_many, train = context.score_many, context.train_encoder
    try:
        folder = context.learned.folder(learned_key("epr", settings, context, pool), lambda to: train(pool, settings, score_many, to))
    except InputError as error:
        return error
    return None if folder is None else DemoIndex.build(pool, encoder=str(folder))
