"""Personal data in a text, found by how it is written: to leave rows out, or to replace it before a text leaves the machine.

Patterns find what is written the usual way; they do not know names of people or places, and are no proof that a text has none. Card and
account numbers count only if their check digits are right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

PersonalKind = Literal["email", "phone", "card", "iban", "ip", "ssn"]
KINDS: tuple[PersonalKind, ...] = ("email", "iban", "card", "ip", "ssn", "phone")
"""In the order they are looked for: an account number holds what looks like a telephone number."""
Piece: TypeAlias = tuple[str, int, int]
"""(kind, start, end) in a text."""
Recogniser: TypeAlias = Callable[[str], Sequence[Piece]]
"""Finds more than the patterns here do; of pieces that overlap the first counts."""
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
# With a country code, or in groups that no date, amount or order number is written in.
_PHONE = re.compile(
    r"(?<![\w+])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){5,12}|\(\d{2,5}\)[ .-]?\d{3,4}[ .-]?\d{3,4}|\d{3}[.-]\d{3}[.-]\d{4})(?!\w)"
)
# These two are looked for at every place, each as long as it can be: two numbers side by side look like one that is too long.
_CARD = re.compile(r"(?<![\w-])(?=(\d(?:[ -]?\d){12,18})(?!\w))")
_IBAN = re.compile(r"(?<!\w)(?=([A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30})(?!\w))")
_IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)")
_SSN = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")


def found(kind: PersonalKind, text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each piece of that kind."""
    end = 0
    for match in _PATTERNS[kind].finditer(text):
        if match.start() < end:
            continue
        if (length := _CHECKS[kind](match[match.lastindex or 0])) is not None:
            end = match.start() + length
            yield match.start(), end


def has(kind: PersonalKind, text: str) -> bool:
    """Whether a text has personal data of that kind."""
    return next(found(kind, text), None) is not None


@dataclass
class Hidden:
    """What was replaced in the texts of one prompt, so that it can be put back into the answer. The same piece gets the same stand-in."""

    kinds: Sequence[PersonalKind] = KINDS
    stands_for: dict[str, str] = field(default_factory=dict)
    """`[EMAIL_1]` -> the address."""
    counts: Counter[str] = field(default_factory=Counter)
    """Kind -> pieces replaced."""
    more: Recogniser | None = None
    """Asked about what the patterns leave."""

    def hide(self, text: str, taken: str = "") -> str:
        """The text with stand-ins. taken: text whose own brackets may not be used as stand-ins."""
        for kind in self.kinds:
            for start, end in sorted(found(kind, text), reverse=True):
                text = text[:start] + self._stand_in(kind, text[start:end], taken + text) + text[end:]
                self.counts[kind] += 1
        if self.more is not None:
            for what, start, end in sorted(self._further(text), key=lambda piece: -piece[1]):
                text = text[:start] + self._stand_in(what, text[start:end], taken + text) + text[end:]
                self.counts[what] += 1
        return text

    def _further(self, text: str) -> list[Piece]:
        """What the recogniser finds, without what overlaps. Stand-ins are no personal data, whatever they look like; what a piece has before
        or behind one is (a name, found together with the address)."""
        assert self.more is not None
        stand_ins = sorted((m.start(), m.end()) for name in self.stands_for for m in re.finditer(re.escape(name), text))
        kept: list[Piece] = []
        for kind, start, end in self.more(text):
            borders = [start, *(min(max(at, start), end) for pair in stand_ins for at in pair), end]
            for left, right in zip(borders[::2], borders[1::2], strict=True):
                left, right = left + _blanks(text[left:right]), right - _blanks(text[left:right][::-1])
                if any(map(str.isalnum, text[left:right])) and all(right <= a or b <= left for _, a, b in kept):
                    kept.append((kind, left, right))
        return kept

    def _stand_in(self, kind: str, piece: str, taken: str) -> str:
        known = next((name for name, value in self.stands_for.items() if value == piece), None)
        n = 1
        while known is None:
            name = f"[{kind.upper()}_{n}]"
            if name not in self.stands_for and name not in taken:
                self.stands_for[name] = piece
                known = name
            n += 1
        return known

    def put_back(self, text: str) -> str:
        """An answer with what its stand-ins stand for."""
        for name, piece in self.stands_for.items():
            text = text.replace(name, piece)
        return text


def _blanks(text: str) -> int:
    """How many characters of white space it begins with."""
    return len(text) - len(text.lstrip())


def _whole(text: str) -> int | None:
    return len(text)


def _luhn(number: str) -> int | None:
    """The longest beginning of 13 to 19 digits, up to the end of a group, whose last digit is right (ISO/IEC 7812)."""
    places = [i for i, c in enumerate(number) if c.isdigit()]
    for n in range(len(places), 12, -1):
        digits = [int(number[i]) for i in places[:n]]
        whole = n == len(places) or places[n] > places[n - 1] + 1
        doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
        if whole and sum(doubled) % 10 == 0 and len(set(digits)) > 1:
            return places[n - 1] + 1
    return None


def _iban(number: str) -> int | None:
    """The remainder modulo 97 of the number with letters as two digits; the match may reach into a word behind it, so the longest length that
    fits is taken."""
    places = [i for i, c in enumerate(number) if c != " "]
    plain = number.replace(" ", "")
    for length in range(min(len(plain), 34), 14, -1):
        if int("".join(str(int(c, 36)) for c in plain[4:length] + plain[:4])) % 97 == 1:
            return places[length - 1] + 1
    return None


def _address(text: str) -> int | None:
    return len(text) if all(int(part) < 256 for part in text.split(".")) else None


_PATTERNS: Mapping[PersonalKind, re.Pattern[str]] = {
    "email": _EMAIL, "phone": _PHONE, "card": _CARD, "iban": _IBAN, "ip": _IP, "ssn": _SSN,
}  # fmt: skip
_CHECKS: Mapping[PersonalKind, Callable[[str], int | None]] = {
    "email": _whole, "phone": _whole, "card": _luhn, "iban": _iban, "ip": _address, "ssn": _whole,
}  # fmt: skip
