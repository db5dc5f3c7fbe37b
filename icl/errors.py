"""Everything icl raises on purpose.

IclError                     something went wrong while running (exit code 1)
├── FetchError               weights or data could not be fetched whole
├── CostLimitError           the next request could cost more than what is left
└── InputError               what the user gave cannot be used (exit code 2); carries every problem found, not the first
    ├── UnknownNameError     a name that nothing has; lists the known ones and the nearest
    └── MissingExtraError    an optional package is needed; names the line that installs it

An `assert` in the code is for our own mistakes only; bad input always ends here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with something the user gave."""

    message: str
    """What is wrong, in one sentence, with the values seen."""
    fix: str = ""
    """What to do about it."""
    file: str | None = None
    """The file it is in, as the user wrote the path."""
    line: int | None = None
    """Line in that file, counted from 1."""
    field: str | None = None
    """Path of the field (`tasks.0.label`), the column, or the option."""

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        head = ": ".join(part for part in (where, self.field, self.message) if part)
        return f"{head}\n  {self.fix}" if self.fix else head


class IclError(Exception):
    """Base of all errors of this package. `exit_code` is what the command line returns for it."""

    exit_code = 1


class FetchError(IclError):
    """Weights or data could not be fetched, or did not arrive as they should; nothing half-done is left behind."""


class CostLimitError(IclError):
    """The next request to a paid model could go over the limit, so it was not sent.

    results: what the call had finished, in the order of its items, None for each item that was not; nothing that was paid for is lost.
    """

    def __init__(self, message: str, results: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.results: tuple[Any, ...] = tuple(results)


MANY_NAMES = 60
"""More are not listed whole in a message."""


class InputError(IclError):
    """What the user gave cannot be used. `problems` holds all that was found."""

    exit_code = 2

    def __init__(self, problems: Problem | str | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class UnknownNameError(InputError):
    """A name that nothing has."""

    def __init__(
        self, kind: str, name: str, known: Iterable[str], *, file: str | None = None, line: int | None = None, field: str | None = None
    ) -> None:
        super().__init__(Problem(f"there is no {kind} named '{name}'", suggest(name, known), file, line, field))


class MissingExtraError(InputError):
    """A package that icl does not install by itself is needed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(Problem(f"{purpose} needs the package '{package}'", f"Install it with: pip install 'icl[{extra}]'"))


def suggest(name: str, known: Iterable[str]) -> str:
    """'Did you mean …?' with the known names after it, or the likest of them where there are many."""
    names: Sequence[str] = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    listing = f"Known: {', '.join(names)}." if names else "None is known."
    if len(names) > MANY_NAMES:
        shown = sorted(difflib.get_close_matches(name, names, n=12, cutoff=0))
        listing = f"Known are {len(names):,} names, the likest {', '.join(shown)}."
    return f"Did you mean '{close[0]}'? {listing}" if close else listing
