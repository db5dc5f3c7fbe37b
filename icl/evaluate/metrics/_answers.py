"""What the metrics of answers in words share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ...errors import MissingExtraError
from ...values import Example, Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def references_of(example: Example) -> tuple[str, ...]:
    """All accepted answers of an item; none where it has none."""
    return example.references or ((example.target,) if example.target is not None else ())


def words_of(text: str) -> list[str]:
    """The words of a text, case-folded: runs of letters and digits, with an apostrophe inside them."""
    return [word.casefold() for word in _WORD.findall(text)]


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of n words, in order."""
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


def need(package: str, purpose: str, extra: str = "answers") -> None:
    """Raises MissingExtraError if a package of an extra is not installed. Nothing is imported."""
    if find_spec(package) is None:
        raise MissingExtraError(package, extra, purpose)


@dataclass(frozen=True)
class PerAnswer:
    """A metric that is the mean of what a function says of each answer."""

    value: Callable[[str, Example], float]
    """(answer, its item) -> value; nan where the item cannot be judged."""
    bounds: tuple[float, float] | None = (0.0, 1.0)
    higher_is_better: bool = True
    ranked: bool = True
    """False: the figure only describes, and no method leads by it."""

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64, nan where there is no answer or nothing to judge it by."""
        import numpy as np

        pairs = zip(predictions, examples, strict=True)
        return np.array([np.nan if p.answer is None else self.value(p.answer, e) for p, e in pairs], dtype=np.float64)


def best_of(compare: Callable[[str, str], float]) -> Callable[[str, Example], float]:
    """The best value over an item's references; nan where it has none."""

    def best(answer: str, example: Example) -> float:
        return max((compare(answer, reference) for reference in references_of(example)), default=float("nan"))

    return best
