"""Takes out rows in which something looks like personal data: an address, a number of a person, an account or a device."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, field_validator

from ...plugins import Context
from ...protocols import Selector
from ...values import Example, embedded_text
from ..filters import Filter
from ._common import StageSettings

Kind = Literal["email", "phone", "card", "iban", "ip", "ssn"]
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
# With a country code, or in groups that no date, amount or order number is written in.
_PHONE = re.compile(
    r"(?<![\w+])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){5,12}|\(\d{2,5}\)[ .-]?\d{3,4}[ .-]?\d{3,4}|\d{3}[.-]\d{3}[.-]\d{4})(?!\w)"
)
_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)")
_IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)")
_SSN = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")


class Settings(StageSettings):
    kinds: list[Kind] = Field(["email", "phone", "card", "iban", "ip", "ssn"], description="What is looked for.")
    patterns: dict[str, str] = Field({}, description="Regular expressions of your own, by the name that the log shows.")

    @field_validator("patterns")
    @classmethod
    def _compiles(cls, value: dict[str, str]) -> dict[str, str]:
        for name, pattern in value.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{name}' is no regular expression: {error}") from None
        return value


def build(settings: Settings, context: Context) -> Selector:
    """Looks at all that a demonstration shows: input fields, answer and rationale.

    Patterns find what is written the usual way; they do not know names of people or places, and are no proof that a text has none.
    Card and account numbers count only if their check digits are right.
    """
    own = {name: re.compile(pattern) for name, pattern in settings.patterns.items()}

    def why(example: Example, key: Any) -> str | None:
        text = "\n".join([embedded_text(example.fields), example.target or "", example.rationale or ""])
        for kind in settings.kinds:
            if LOOKS[kind](text):
                return f"personal data: {kind}"
        return next((f"personal data: {name}" for name, pattern in own.items() if pattern.search(text)), None)

    return Filter(context.pool, why)


def _luhn(number: str) -> bool:
    digits = [int(c) for c in number if c.isdigit()]
    doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 1


def _iban(number: str) -> bool:
    """The remainder modulo 97 of the number with letters as two digits; the match may reach into a word behind it."""
    plain = number.replace(" ", "")
    return any(
        int("".join(str(int(c, 36)) for c in plain[4:length] + plain[:4])) % 97 == 1 for length in range(15, min(len(plain), 34) + 1)
    )


LOOKS: dict[str, Callable[[str], bool]] = {
    "email": lambda text: _EMAIL.search(text) is not None,
    "phone": lambda text: _PHONE.search(text) is not None,
    "card": lambda text: any(_luhn(found.group()) for found in _CARD.finditer(text)),
    "iban": lambda text: any(_iban(found.group()) for found in _IBAN.finditer(text)),
    "ip": lambda text: any(all(int(part) < 256 for part in found.group().split(".")) for found in _IP.finditer(text)),
    "ssn": lambda text: _SSN.search(text) is not None,
}
