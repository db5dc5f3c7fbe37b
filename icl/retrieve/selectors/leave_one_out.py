"""The rows whose absence costs prompts the most (leave-one-out value), the same for all queries."""

from __future__ import annotations

from ...plugins import Context
from ...protocols import Selector
from ._worth import Trial, WorthSettings, by_worth

NEEDS_MODEL = True
LEARNS = True


class Settings(WorthSettings):
    pass


def build(settings: Settings, context: Context) -> Selector:
    """Rows by leave-one-out value, best first: how much a prompt loses when the row is taken out of it, on average over random prompts.

    The data valuation of Koh and Liang 2017 with prompts in the place of training sets, as Nguyen and Wong 2023,
    https://arxiv.org/abs/2302.11042, compare it with influences. The pool is split in two halves, and prompts of each half are judged
    on the other. Costs `prompts` times `rows` times (`shots` + 1) prompts, once for a pool.
    """
    return by_worth(settings, context, "leave_one_out", losses, also_without=True)


def losses(trials: list[Trial]) -> dict[str, float]:
    """uid -> mean loss of a prompt's value without the row. trials: each whole prompt, and each less one row."""
    whole = {frozenset(trial.shown): trial.value for trial in trials if trial.without is None}
    found: dict[str, list[float]] = {}
    for trial in trials:
        if trial.without is not None:
            found.setdefault(trial.without, []).append(whole[frozenset({*trial.shown, trial.without})] - trial.value)
    return {uid: sum(values) / len(values) for uid, values in found.items()}
