"""What a row is worth as a demonstration: prompts of random rows of one half of the pool, judged on rows of the other half."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...errors import InputError, Problem
from ...plugins import Context, ScoreMany, learned_key
from ...protocols import Selector
from ...seeds import rng_for, seed_for
from ...values import Example, Hit
from ..guard import Copies
from ._common import FromPool, StageSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class WorthSettings(StageSettings):
    prompts: int = Field(64, ge=2, description="Random prompts that are judged; with few, rows are in too few of them to tell.")
    rows: int = Field(16, ge=1, description="Rows of the pool that each prompt is judged on.")
    shots: int = Field(4, ge=1, description="Demonstrations in each of these prompts.")
    measure: Literal["log_likelihood", "accuracy"] = Field(
        "log_likelihood", description="A prompt's value on a row: the log-probability of its label, or whether that label is the likeliest."
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """A prompt that was judged."""

    shown: frozenset[str]
    """uids of its demonstrations."""
    value: float
    without: str | None = None
    """The row that was taken out of the prompt."""


def by_worth(
    settings: WorthSettings,
    context: Context,
    purpose: str,
    worth: Callable[[list[Trial]], dict[str, float]],
    *,
    also_without: bool = False,
) -> Selector:
    """The k rows of the largest worth, from the pool or among candidates, best first; ties, and rows that are in no prompt (worth 0),
    by rank, in the pool at random. A hit's score is its worth. Worths are computed once for a pool. Raises InputError if rows have
    no labels of one set."""
    assert context.score_many is not None
    score_many = context.score_many
    copies = Copies()
    if not context.labels:
        raise InputError(
            Problem(f"the selector '{purpose}' needs a set of labels", "Use it for tasks of the kind classify.", field=purpose)
        )

    def compute(pool: Sequence[Example]) -> dict[str, float]:
        mixed = sorted(pool, key=lambda row: seed_for(context.seed, purpose, row.uid))
        halves = mixed[::2], mixed[1::2]
        result: dict[str, float] = {}
        for i, (shown, judges) in enumerate((halves, halves[::-1])):
            drawn = _prompts(shown, settings, context.seed, f"{purpose}-{i}", also_without)
            result |= worth(_judged(drawn, judges[: settings.rows], context.labels, settings.measure, score_many))
        return {row.uid: result.get(row.uid, 0.0) for row in mixed}

    def known_or_asked(pool: Sequence[Example]) -> dict[str, float]:
        return context.learned.once(learned_key(purpose, settings, context, pool), lambda: compute(pool))

    worths = FromPool(context.pool, known_or_asked)

    def select(queries: Sequence[Example], k: int, candidates: list[list[Hit]] | None) -> list[list[Hit]]:
        known = worths()
        if candidates is None:
            place = {uid: i for i, uid in enumerate(known)}
            ranked = sorted(context.pool, key=lambda row: (-known[row.uid], place[row.uid]))
            return [_first(query, ranked, known, copies, k) for query in queries]
        ranks = [sorted((hit.example for hit in hits), key=lambda row: -known.get(row.uid, 0.0)) for hits in candidates]
        return [_first(query, rows, known, copies, k) for query, rows in zip(queries, ranks, strict=True)]

    return select


def _first(query: Example, rows: Sequence[Example], worths: dict[str, float], copies: Copies, k: int) -> list[Hit]:
    found: list[Hit] = []
    for row in rows:
        if len(found) == k:
            break
        if not copies(query, row):
            found.append(Hit(row.uid, worths.get(row.uid, 0.0), row))
    return found


Prompt = tuple[list[Example], str | None]


def _prompts(rows: Sequence[Example], settings: WorthSettings, seed: int, purpose: str, also_without: bool) -> list[Prompt]:
    """Half of the random prompts, each row in as many of them as any other (they are dealt out), and each less each of its rows."""
    generator = rng_for(seed, purpose)
    shots = min(settings.shots, len(rows))
    deck: list[Example] = []
    result: list[Prompt] = []
    for _ in range(-(-settings.prompts // 2) if rows else 0):
        shown: list[Example] = []
        while len(shown) < shots:
            if not deck:
                deck = list(rows)
                generator.shuffle(deck)
            place = next((i for i in range(len(deck) - 1, -1, -1) if deck[i] not in shown), None)
            if place is None:
                deck = []
                continue
            shown.append(deck.pop(place))
        result.append((shown, None))
        if also_without:
            result += [([other for other in shown if other is not row], row.uid) for row in shown]
    return result


def _judged(drawn: Sequence[Prompt], judges: Sequence[Example], labels: Sequence[str], measure: str, score_many: ScoreMany) -> list[Trial]:
    """One call of the model for all prompts and rows. A prompt that cannot be scored on some row is left out."""
    import numpy as np

    usable = [row for row in judges if row.target in labels]
    if not drawn or not usable:
        return []
    scores = iter(score_many([(row, shown) for shown, _ in drawn for row in usable]))
    result = []
    for shown, without in drawn:
        values = [_value(next(scores), labels.index(str(row.target)), measure) for row in usable]
        if np.isfinite(values).all():
            result.append(Trial(frozenset(row.uid for row in shown), float(np.mean(values)), without))
    return result


def _value(scores: NDArray[np.float64] | None, label: int, measure: str) -> float:
    import numpy as np

    if scores is None:
        return float("nan")
    if measure == "accuracy":
        return float(int(np.argmax(scores)) == label)
    return float(scores[label] - np.logaddexp.reduce(scores))
