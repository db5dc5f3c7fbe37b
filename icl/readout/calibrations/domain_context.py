"""Divides out the label probabilities of random words of the task's own texts (Fei et al. 2023)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ...errors import InputError, Problem
from ...plugins import Context
from ...seeds import rng_for
from ...values import Example, field_text
from ._common import Prior, content_free, input_names

READ = 1000
"""Rows of the pool whose words are drawn from: a large index is not read whole."""


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    texts: int = Field(20, ge=1, le=1000, description="Random texts that are scored.")


def build(settings: Settings, context: Context) -> Prior:
    """p(y | x) / mean p(y | random text), normalised. Each field of a random text has as many words as that field has on average.

    Fei et al. 2023, https://arxiv.org/abs/2305.19148, sec. 4: 20 texts, words drawn with replacement. Departure: the words are the pool's,
    not the test texts', so that a query's answer does not depend on the other queries.
    """
    return Prior(lambda: content_free(context, random_texts(context, settings.texts)))


def random_texts(context: Context, n: int) -> list[list[str]]:
    """n rows of one text per field, out of random words of the pool."""
    rng = rng_for(context.seed, "domain_context")
    rows: list[Example] = list(context.pool) if len(context.pool) <= READ else [context.pool[i] for i in range(READ)]
    if not rows:
        raise InputError(
            Problem("random words are drawn from the labelled examples and there are none", "Use 'contextual'.", field="calibration")
        )
    words = {name: [field_text(row.fields[name]).split() for row in rows] for name in input_names(context)}
    bags = {name: [word for text in texts for word in text] for name, texts in words.items()}
    lengths = {name: max(1, round(len(bags[name]) / len(rows))) for name in words}
    return [[" ".join(rng.choices(bags[name] or [""], k=lengths[name])) for name in words] for _ in range(n)]
