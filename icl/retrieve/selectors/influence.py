"""The rows with which prompts do better than without them (influence), the same for all queries."""

from __future__ import annotations

from ...plugins import Context
from ...protocols import Selector
from ._worth import Trial, WorthSettings, by_worth

NEEDS_MODEL = True
LEARNS = True


class Settings(WorthSettings):
    pass


def build(settings: Settings, context: Context) -> Selector:
    """Rows by influence, best first: the mean value of random prompts that show the row, less that of those that do not.

    Nguyen and Wong 2023, https://arxiv.org/abs/2302.11042, eq. 1. A prompt's value is the mean over rows of the pool, which no
    prompt they judge shows; the paper has a validation set of its own, here the pool is split in two halves, and prompts of each
    half are judged on the other. Costs `prompts` times `rows` prompts, once for a pool.
    """
    return by_worth(settings, context, "influence", influences)


def influences(trials: list[Trial]) -> dict[str, float]:
    """uid -> influence, of the rows of one half. A row that stands in all prompts, or in none, has none."""
    shown = {uid for trial in trials for uid in trial.shown}
    result = {}
    for uid in shown:
        with_it = [trial.value for trial in trials if uid in trial.shown]
        without = [trial.value for trial in trials if uid not in trial.shown]
        if without:
            result[uid] = sum(with_it) / len(with_it) - sum(without) / len(without)
    return result
