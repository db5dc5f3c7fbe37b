"""How long methods will take on a task: a few of its own rows are answered, and training is estimated from the speed found.

Nothing is judged here: no label of a test item is read, and what the model says of the items is thrown away.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from ..plugins import find
from ..protocols import Encoder, LanguageModel
from ..values import RAW_QUERY, Example, TokenCounts, embedded_text
from .cells import Cell, needs
from .loading import MethodEntry
from .loop import UNIT_ITEMS
from .planning import Estimate
from .prepare import Prepared
from .speed import cost_of_plan
from .work import share_out

WARM, TIMED = 2, 8
"""Items that are answered before the clock starts, and on the clock where a whole unit would take too long."""
SHARE = 0.03
"""Of the time there is: a whole unit of items is timed where it takes no more."""
EMBEDDED = 48
TRAINED = frozenset({"embedding_head", "contrastive", "classifier", "finetune", "distil"})
"""Methods that learn weights: the trained side of a crossover."""
PROMPTS = frozenset({"few_shot", "zero_shot"})
"""The other side."""
BACKWARD = 3.0
"""A training step by a forward pass of its tokens."""
LIGHT = 0.002
"""Seconds for an item of a method that reads nothing but a stored vector, and for storing any answer."""


@dataclass
class Speeds:
    """What was found out on the way."""

    embed: float = 0.0
    """Seconds to embed one text."""
    token: float = 0.0
    """Seconds for one token of the language model here, in prompts with demonstrations where there are any."""
    row: float = 0.0
    """Tokens of a prompt without demonstrations and of all its labels: what a fine-tuned model reads for a row."""
    tokens: dict[str, float] = field(default_factory=dict)
    """Method -> tokens that an item takes in a whole unit of items."""


def measure(
    prepared: Prepared, budgets: Sequence[int], optional: Sequence[str], seconds: float, max_cost: float | None = None
) -> tuple[list[Estimate], Speeds]:
    """An estimate for every method of a suite with one task, at each of the label budgets. seconds: the time that a plan is made for.

    max_cost: money that endpoints may cost from when they were loaded, all together. Raises CostLimitError before it is passed.
    """
    (data,) = prepared.tasks.values()
    queries = list(data.test)
    speeds = Speeds()
    if encoder := next(iter(prepared.encoders.values()), None):
        speeds.embed = _embedding(encoder, [*data.task.train[:EMBEDDED], *queries[:EMBEDDED]])
    estimates = []
    for entry in sorted(prepared.loaded.methods, key=lambda e: not needs(e, "MODEL", prepared.loaded.plugins)):
        item, money = LIGHT, 0.0
        if needs(entry, "MODEL", prepared.loaded.plugins) and entry.spec.name in PROMPTS:
            if max_cost is not None:
                asked = [*data.task.train[: budgets[-1]], *queries[:UNIT_ITEMS]]
                share_out(prepared.left_of(max_cost), next(iter(prepared.models.values()), None), prepared.paid_encoder, asked)
            item, money = _prompting(prepared, entry, queries, min(budgets[-1], 64), seconds * SHARE, speeds)
        elif entry.spec.name in TRAINED - {"embedding_head"}:
            item = _reading(entry, speeds, data.task.train) + LIGHT
        elif needs(entry, "MODEL", prepared.loaded.plugins):
            item = speeds.token * max(speeds.tokens.values(), default=0.0)
        fit = {b: _fitting(entry, b, data.task.train, speeds) for b in budgets} if needs(entry, "LABELS", prepared.loaded.plugins) else {}
        estimates.append(Estimate(entry.name, item, fit, money, entry.name in optional))
    order = {entry.name: n for n, entry in enumerate(prepared.loaded.methods)}
    return sorted(estimates, key=lambda e: order[e.method]), speeds


def _embedding(encoder: Encoder, rows: Sequence[Example]) -> float:
    """Seconds to embed a text of the rows' words in another order, so that no cache has it. An endpoint, which takes money, is not asked."""
    if "://" in encoder.name:
        return 0.02
    texts = [embedded_text(row.fields) for row in unheard(rows)]
    encoder.encode([text + " " for text in texts[:2]])  # the first call loads the model
    started = time.perf_counter()
    encoder.encode(texts)
    return (time.perf_counter() - started) / len(texts)


def unheard(rows: Sequence[Example]) -> list[Example]:
    """The rows with the words of their texts in another order, so that no cache has them. They have no target."""
    rng = random.Random(time.time_ns())

    def shuffled(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        words = value.split()
        rng.shuffle(words)
        return " ".join([*words, str(rng.randrange(10**6))])

    return [
        Example(f"{RAW_QUERY}{n}", {name: shuffled(value) for name, value in row.fields.items()}, None, row.choices)
        for n, row in enumerate(rows)
    ]


def seconds_per_query(predictor: Any, rows: Sequence[Example]) -> float:
    """What an item takes of a predictor that reads items it has never seen; a run's own clock does not tell where methods share vectors."""
    queries = unheard(rows[: WARM + UNIT_ITEMS])
    predictor.predict(queries[:WARM])  # the first call loads what is needed
    started = time.perf_counter()
    timed = queries[WARM:] or queries
    predictor.predict(timed)
    return (time.perf_counter() - started) / len(timed)


def _prompting(
    prepared: Prepared, entry: MethodEntry, queries: Sequence[Example], budget: int, seconds: float, speeds: Speeds
) -> tuple[float, float]:
    """(seconds, money) for an item: a few are answered on the clock, and the tokens of a whole unit, which shares more of its prompts'
    beginnings, say how much less an item takes in one."""
    data = next(iter(prepared.tasks.values()))
    has_labels = needs(entry, "LABELS", prepared.loaded.plugins)
    (model,) = prepared.loaded.suite.model_entries
    lm: LanguageModel = prepared.lm(model.key)
    cell = Cell(model.key, data.entry.name, entry.name, budget if has_labels else None, prepared.seed if has_labels else None)
    predictor: Any = prepared.build(cell, lm).fit(prepared.pool(cell), labels=data.task.labels, unlabelled=data.task.unlabelled)
    unit = queries[:UNIT_ITEMS]
    whole = predictor.plan(unit)
    speeds.tokens[entry.name] = whole.computed / len(unit)
    if model.remote:
        took, _ = _timed(predictor, queries[:TIMED])
        return took, (cost_of_plan(lm, whole) or 0.0) / len(unit)
    if not has_labels:
        with suppress(InputError):  # a text that fits no prompt
            lengths = [prompt.n_tokens or 0 for prompt in predictor.prompts(queries[:TIMED])]
            speeds.row = sum(lengths) / len(lengths) + sum(lm.codec.count(label) for label in data.task.labels)
    warm = queries[-WARM:]
    predictor.predict(warm)
    took, counts = _timed(predictor, warm)
    if took * whole.computed * len(warm) / max(1, counts.computed) <= seconds:
        took, counts = _timed(predictor, unit)
        timed = len(unit)
    else:
        timed = min(TIMED, len(queries))
        took, counts = _timed(predictor, queries[:timed])
    if has_labels or not speeds.token:
        speeds.token = max(speeds.token, took * timed / max(1, counts.computed))
    return took * min(1.0, speeds.tokens[entry.name] * timed / max(1, counts.computed)) + LIGHT, 0.0


def _timed(predictor: Any, queries: Sequence[Example]) -> tuple[float, TokenCounts]:
    """(seconds for an item, planned tokens of all) of queries answered at once; planning belongs to a run too."""
    started = time.perf_counter()
    counts: TokenCounts = predictor.plan(queries)
    predictor.predict(queries)
    return (time.perf_counter() - started) / len(queries), counts


def _reading(entry: MethodEntry, speeds: Speeds, rows: Sequence[Example]) -> float:
    """Seconds for an item of a method that reads it with weights of its own: an encoder's, or a language model's."""
    if entry.spec.name not in ("finetune", "distil"):
        return speeds.embed
    return speeds.token * (min(speeds.tokens.values(), default=0.0) or speeds.row or _words(rows) * 2)


def _fitting(entry: MethodEntry, budget: int, rows: Sequence[Example], speeds: Speeds) -> float:
    """Seconds of one fit, embedding left out where vectors are shared."""
    name, n = entry.spec.name, min(budget, len(rows))
    if name == "embedding_head":
        return 0.05 + n * 5e-4
    if name in ("few_shot", "knn_vote", "majority", "nearest_answer") or name not in TRAINED:
        return _calibrating(entry, n, speeds) + 0.02
    seen = rows_in_training(entry, n)
    each = speeds.embed * 1.5 if name not in ("finetune", "distil") else speeds.token * (speeds.row or _words(rows) * 2)
    return 1.0 + BACKWARD * seen * each


def _calibrating(entry: MethodEntry, n: int, speeds: Speeds) -> float:
    """A calibration scores up to 128 rows of the pool."""
    fitted = entry.spec.settings.get("calibration") not in (None, "temperature") or entry.spec.settings.get("abstain") is not None
    return speeds.token * speeds.tokens.get(entry.name, 0.0) * min(n, 128) if fitted else 0.0


def rows_in_training(entry: MethodEntry, n: int) -> float:
    """How many rows go through a model while it is trained on `n`, each counted as often as it does."""
    settings: Mapping[str, Any] = entry.spec.settings
    if entry.spec.name == "contrastive":
        from ..train.contrastive import n_steps_for

        batch = int(settings.get("batch", 32))
        return batch * float(settings.get("steps") or n_steps_for(n, batch))
    module: Any = find("method", entry.spec.name).load()
    if settings.get("epochs"):
        return float(n * settings["epochs"])
    if hasattr(module, "FEWEST_STEPS"):
        batch = int(settings.get("batch_size") or module.Settings.model_fields["batch_size"].default)
        return float(n * min(module.MOST_EPOCHS, max(module.FEWEST_EPOCHS, module.FEWEST_STEPS * batch / n)))
    return 5.0 * n


def _words(rows: Sequence[Example]) -> float:
    sample = rows[:EMBEDDED]
    return sum(len(embedded_text(e.fields).split()) for e in sample) / max(1, len(sample)) + 4
