"""Rationales that the model writes for the labelled examples itself, kept where they lead to the right answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import CostLimitError, InputError, Problem
from ..progress import note
from ..seeds import rng_for
from ..values import Example, Prompt
from ._abstain import is_right
from ._rationale import after_rationale, rationale_of, written_before
from ._written import Lost, write

if TYPE_CHECKING:
    from ._predictor import FewShotPredictor
    from .few_shot import FewShot

DESCRIPTION = "Labelled examples without a rationale that the model writes one for: a number, or settings; kept where its answer is right."


class BootstrapSettings(BaseModel):
    """How rationales are had from the model."""

    model_config = ConfigDict(extra="forbid")

    rows: int = Field(64, ge=1, description="Labelled examples that a rationale is written for, drawn with the seed.")
    tries: int = Field(0, ge=0, description="Further rationales sampled for an example that the likeliest one fails.")


def bootstrap_of(value: Any) -> BootstrapSettings | None:
    """A method's option `bootstrap`. Raises InputError."""
    if value is None or isinstance(value, BootstrapSettings):
        return value
    try:
        return BootstrapSettings.model_validate(dict(value) if isinstance(value, Mapping) else {"rows": value})
    except ValidationError as error:
        raise InputError(
            [
                Problem(f"{'.'.join(map(str, e['loc']))}: {e['msg']}", "Write 64, or {rows: 64, tries: 4}.", field="bootstrap")
                for e in error.errors()
            ]
        ) from None


@dataclass(frozen=True)
class Asked:
    """What the model is asked for: who asks, and for which rows of the pool."""

    asker: FewShotPredictor
    rows: list[Example]
    given: list[Example]
    """Rows that have a rationale already."""


def asked(method: FewShot, settings: BootstrapSettings, pool: Sequence[Example], fit: Mapping[str, Any]) -> Asked:
    """The rows that a rationale is written for, and a prompt that shows those that are given. Nothing is asked here.

    fit: what else `FewShot.fit` was given. Raises InputError without a model, and for a template without a rationale block.
    """
    if method.lm is None:
        raise InputError(
            Problem("rationales are written by a language model, and there is none", "Give one, or leave it out.", field="bootstrap")
        )
    given = [row for row in pool if row.rationale is not None]
    without = [row for row in pool if row.rationale is None]
    plain: dict[str, Any] = {"samples": 1, "greedy": True, "vote": "plain", "abstain": None, "calibration": None, "bootstrap": None}
    asker = replace(method, shots=method.shots if given else 0, **plain).fit(given, **fit)
    if not asker.bound.template.has_rationale:
        message = f"the template '{asker.bound.template.name}' has no place for a rationale"
        raise InputError(Problem(message, "Add a block 'rationale' to it, or leave 'bootstrap' out.", field="bootstrap"))
    rng = rng_for(method.seed, "bootstrap")
    at = range(len(without)) if len(without) <= settings.rows else sorted(rng.sample(range(len(without)), settings.rows))
    return Asked(asker, [without[i] for i in at], given)


def bootstrapped(asking: Asked, settings: BootstrapSettings, pool: Sequence[Example], name: str) -> list[Example]:
    """The rows of the pool that have a rationale, or that the model wrote one for whose answer is right; none, if there is no such one.

    Zelikman et al. 2022, https://arxiv.org/abs/2203.14465 (STaR), sec. 3.1, without its training (rationales are shown, not learned) and
    without its second try, which tells the model the right answer. Everything comes from the pool: the right answers that a rationale is
    judged by are labels owned. Rows that have a rationale keep it, and are the demonstrations that the others are asked with; if no row
    has one, the template's instruction alone asks for one. Raises CostLimitError where the model's `max_cost` is reached.
    """
    texts = _rationales(asking.asker, asking.rows, settings.tries)
    made = {row.uid: text for row, text in zip(asking.rows, texts, strict=True) if text is not None}
    note(
        f"{name}: {len(made)} of {len(asking.rows)} rationales led to the right answer and are shown beside {len(asking.given)} that were given"
    )
    return [replace(row, rationale=made.get(row.uid, row.rationale)) for row in pool if row.uid in made or row.rationale is not None]


def _rationales(asker: FewShotPredictor, rows: Sequence[Example], tries: int) -> list[str | None]:
    """Per row the first rationale whose answer is right; None if there is none. The likeliest text first, then samples for what is left."""
    found: list[str | None] = [None] * len(rows)
    work = [(i, prompt) for i, prompt in enumerate(asker._pack(rows)) if isinstance(prompt, Prompt)]
    lm = asker._lm()
    for turn, n in enumerate((1, tries)):
        left = [(i, prompt) for i, prompt in work if found[i] is None]
        if not n or not left:
            continue
        # A single text would be the likeliest once more, so at least two are sampled.
        how = asker._writing(left[0][1], samples=max(2, n) if turn else 1)
        for (i, _), texts in zip(left, write(lm, [prompt for _, prompt in left], how), strict=True):
            if isinstance(texts, Lost):
                if texts.limit:
                    raise CostLimitError(texts.why)
                continue
            found[i] = next((good for text in texts[:n] if (good := _if_right(asker, rows[i], text, how.stop)) is not None), None)
    return found


def _if_right(asker: FewShotPredictor, row: Example, text: str, stop: tuple[str, ...]) -> str | None:
    """The rationale of a text whose answer is the row's; None if it is another, or there is no rationale."""
    answer, _ = asker._read_text(row, after_rationale(asker.bound, row, text), stop)
    if not is_right(answer, row):
        return None
    return rationale_of(asker.bound, row, text).strip().removeprefix(written_before(asker.bound, row).strip()).strip() or None
