"""Takes out rows in which something looks like personal data: an address, a number of a person, an account or a device."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from ... import patterns
from ...endpoint.personal import PersonalKind, has
from ...plugins import Context
from ...protocols import Selector
from ...values import Example, embedded_text
from ..filters import Filter
from ._common import StageSettings


class Settings(StageSettings):
    kinds: list[PersonalKind] = Field(["email", "phone", "card", "iban", "ip", "ssn"], description="What is looked for.")
    patterns: dict[str, str] = Field({}, description="Regular expressions of your own, by the name that the log shows.")

    @field_validator("patterns")
    @classmethod
    def _compiles(cls, value: dict[str, str]) -> dict[str, str]:
        for name, pattern in value.items():
            if problem := patterns.problem(pattern):
                raise ValueError(f"'{name}' is {problem}")
        return value


def build(settings: Settings, context: Context) -> Selector:
    """Looks at all that a demonstration shows: input fields, answer and rationale.

    Patterns find what is written the usual way; they do not know names of people or places, and are no proof that a text has none.
    Card and account numbers count only if their check digits are right. A row on which a pattern of your own does not end in time is left out.
    """
    own = {name: patterns.compiled(pattern) for name, pattern in settings.patterns.items()}

    def why(example: Example, key: Any) -> str | None:
        text = "\n".join([embedded_text(example.fields), example.target or "", example.rationale or ""])
        for kind in settings.kinds:
            if has(kind, text):
                return f"personal data: {kind}"
        for name, pattern in own.items():
            try:
                if patterns.search(pattern, text):
                    return f"personal data: {name}"
            except patterns.TooSlow:  # it may be there, so the row is left out
                return f"personal data: {name}, which took longer than {patterns.SECONDS:g} s"
        return None

    return Filter(context.pool, why)
