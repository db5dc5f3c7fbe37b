"""The usual normalisation of short answers, of the SQuAD 1.1 evaluation script (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...values import Example, Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, ASCII punctuation removed, the words a, an, the removed, single spaces. In this order, as in the script."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(answer: str, reference: str) -> float:
    """1 if the two are the same after normalisation, else 0."""
    return float(normalise(answer) == normalise(reference))


def f1(answer: str, reference: str) -> float:
    """F1 of the words the two share, each counted as often as it occurs.

    As in the SQuAD 2.0 script, if either has no words left the value is 1 when both have none, else 0.
    """
    a, b = normalise(answer).split(), normalise(reference).split()
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def best_over_references(
    compare: Callable[[str, str], float], predictions: Sequence[Prediction], examples: Sequence[Example]
) -> NDArray[np.float64]:
    """(n,) float64: the best value over an item's references; nan where there is no answer."""
    import numpy as np

    values = []
    for prediction, example in zip(predictions, examples, strict=True):
        references = example.references or ((example.target,) if example.target is not None else ())
        answer = prediction.answer
        values.append(np.nan if answer is None or not references else max(compare(answer, reference) for reference in references))
    return np.array(values, dtype=np.float64)
