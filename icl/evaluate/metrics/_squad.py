"""The usual normalisations of short answers, and what is compared after them."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    normalisation: Literal["squad", "open"] = Field(
        "squad",
        description="squad: of the SQuAD script; open: of open-domain question answering, which takes letters and accents apart first.",
    )


def normalise(text: str) -> str:
    """Lower case, ASCII punctuation removed, the words a, an, the removed, single spaces. In this order, as in the SQuAD 1.1 evaluation
    script (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def normalise_open(text: str) -> str:
    """As `normalise`, after Unicode's canonical decomposition (NFD), so that an accented letter equals a letter and its accent: as in the
    evaluation of open-domain question answering (Lee et al. 2019, https://arxiv.org/abs/1906.00300, and DrQA before it)."""
    return normalise(unicodedata.normalize("NFD", text))


def normaliser(settings: Settings) -> Callable[[str], str]:
    return normalise if settings.normalisation == "squad" else normalise_open


def exact(answer: str, reference: str, normalise: Callable[[str], str] = normalise) -> float:
    """1 if the two are the same after normalisation, else 0."""
    return float(normalise(answer) == normalise(reference))


def f1(answer: str, reference: str, normalise: Callable[[str], str] = normalise) -> float:
    """F1 of the words the two share, each counted as often as it occurs.

    As in the SQuAD 2.0 script, if either has no words left the value is 1 when both have none, else 0.
    """
    a, b = normalise(answer).split(), normalise(reference).split()
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def after(settings: Settings, compare: Callable[[str, str, Callable[[str], str]], float]) -> Callable[[str, str], float]:
    """`compare` with the normalisation asked for."""
    by = normaliser(settings)
    return lambda answer, reference: compare(answer, reference, by)
