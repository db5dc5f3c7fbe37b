"""What planned work will take: how fast a model is, as measured with text that no task has, and what an endpoint will cost."""

from __future__ import annotations

import time

from ..protocols import LanguageModel
from ..values import TokenCounts
from .schema import ModelEntry

DEFAULT_CONCURRENCY = 8
"""Requests to an endpoint at once, as in `load_model`."""
FILLER = "the quick brown fox jumps over the lazy dog and runs away from it "


def cost_of_plan(lm: LanguageModel, tokens: TokenCounts) -> float | None:
    """Money for a plan; None for a model here, or one without prices."""
    if not hasattr(lm, "cost_of"):
        return None
    read = TokenCounts(tokens.computed - tokens.generated, tokens.naive - tokens.generated)
    cost: float | None = lm.cost_of(read, tokens.generated)
    return cost


def requests_per_s(lm: LanguageModel, entry: ModelEntry) -> float:
    """Of an endpoint, judging by one request for a short text, with as many at once as the run will have."""
    _ = lm.estimator  # what the server can do is found out before the clock starts
    started = time.perf_counter()
    lm.generate([FILLER], max_new_tokens=16)
    return (entry.concurrency or DEFAULT_CONCURRENCY) / (time.perf_counter() - started)


def tokens_per_s(lm: LanguageModel) -> float:
    """Tokens per second on a few prompts of some 200 tokens, of text that no task has."""
    repeated = 15
    while repeated > 1 and lm.count_tokens(FILLER * repeated) > lm.window // 2:
        repeated //= 2
    texts = [f"{n} {FILLER * repeated}" for n in range(4)]
    answers = [[" yes", " no"]] * len(texts)
    lm.score(texts[:1], answers[:1])  # the first pass of a process is slower
    started = time.perf_counter()
    lm.score(texts, answers)
    return lm.plan(texts, answers).computed / (time.perf_counter() - started)
