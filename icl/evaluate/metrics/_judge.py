"""What the metrics of a judging model share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from ...errors import suggest
from ...values import Example, Prediction, digest, embedded_text
from ...weights import CATALOGUE
from ..judging import Judge, is_plain
from ._answers import references_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Values = Callable[[Judge, Sequence[tuple[str, str, tuple[str, ...]]]], Sequence[float]]
"""(judge, (task, answer, references) per item) -> values."""
JUDGE = "The judge, a large model at best: a catalogue name, a folder, a hub id, or https://host/v1#model."
"""No model is the judge by default: of the catalogue's, the one that loads everywhere judges about as a coin does."""


def _known(name: str) -> str:
    if name not in CATALOGUE and "://" not in name and "/" not in name and not Path(name).exists():
        raise ValueError(f"there is no model named '{name}'. {suggest(name, CATALOGUE)}")
    return name


def _plain(text: str) -> str:
    if not is_plain(text):
        raise ValueError("braces and line ends have no place here; write one plain sentence")
    return text


ModelName = Annotated[str, AfterValidator(_known)]
Sentence = Annotated[str, AfterValidator(_plain)]


class Judged:
    """A metric that asks a judge once for each answer. The judge is loaded when there is something to judge."""

    bounds = (0.0, 1.0)

    def __init__(self, model: str, values: Values, **options: Any) -> None:
        """model: as `load_model` takes it. options: of `Judge`."""
        self.model, self._values, self._options = model, values, options
        self._judge: Judge | None = None
        self.verdicts: dict[str, float] = {}
        """What it said so far: a digest of the question -> the value."""

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64 in [0, 1], nan where there is no answer or the judge gives no verdict."""
        import numpy as np

        values = np.full(len(examples), np.nan)
        pairs = zip(predictions, examples, strict=True)
        at = [i for i, (p, e) in enumerate(pairs) if p.answer is not None and references_of(e)]
        if at:
            items = [(embedded_text(examples[i].fields), str(predictions[i].answer), references_of(examples[i])) for i in at]
            keys = [digest([self.signature(examples), *item]) for item in items]
            new = {key: item for key, item in zip(keys, items, strict=True) if key not in self.verdicts}
            said = dict(zip(new, self._values(self.judge, list(new.values())), strict=True)) if new else {}
            self.verdicts |= {key: float(value) for key, value in said.items() if np.isfinite(value)}
            values[at] = [self.verdicts.get(key, np.nan) for key in keys]
        return values

    @property
    def judge(self) -> Judge:
        if self._judge is None:
            from ...model import load_model

            self._judge = Judge(load_model(self.model), **self._options)
        return self._judge

    def signature(self, examples: Sequence[Example]) -> str:
        """Which model judged, and by what."""
        return "|".join([f"judge:{self.model}", *(f"{name}:{value}" for name, value in self._options.items())])
