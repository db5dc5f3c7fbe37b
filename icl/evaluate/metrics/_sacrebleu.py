"""Corpus metrics of sacrebleu: each item's counts are taken once, and every resample of the items is a sum of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...values import Example, Prediction
from ._answers import need, references_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PACKAGE, EXTRA = "sacrebleu", "answers"


class CorpusMetric:
    """A metric of the whole set of answers, in sacrebleu's own scale of 0 to 100 (TER: 0 upwards, lower is better).

    Post 2018, https://aclanthology.org/W18-6319. The value of a single item is sacrebleu's score of that item alone; the metric is not their
    mean but its corpus score, over the items that were scored.
    """

    def __init__(self, name: str, *, sentence: dict[str, Any] | None = None, higher_is_better: bool = True, **options: Any) -> None:
        """name: of the class in `sacrebleu.metrics`. sentence: options that differ for single items. Raises MissingExtraError."""
        need(PACKAGE, f"the metric {name}")
        from sacrebleu import metrics

        self._corpus = getattr(metrics, name)(**options)
        self._sentence = getattr(metrics, name)(**{**options, **(sentence or {})})
        self._known: dict[tuple[str, tuple[str, ...]], list[float]] = {}
        self.higher_is_better = higher_is_better
        self.bounds = (0.0, 100.0) if higher_is_better else None

    def __call__(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> NDArray[np.float64]:
        """(n,) float64: the score of each item alone, nan where there is no answer; the metric itself comes from `aggregate`."""
        import numpy as np

        found = [self._counts(p, e) for p, e in zip(predictions, examples, strict=True)]
        return np.array([np.nan if c is None else self._sentence._compute_score_from_stats(list(c)).score for c in found], dtype=np.float64)

    def aggregate(self, predictions: Sequence[Prediction], examples: Sequence[Example], samples: NDArray[np.int64]) -> NDArray[np.float64]:
        """samples: (r, m) positions of scored items. Returns (r,) float64, sacrebleu's corpus score of each row."""
        import numpy as np

        n = len(examples)
        counts = [self._counts(p, e) for p, e in zip(predictions, examples, strict=True)]
        width = max((len(c) for c in counts if c is not None), default=0)
        table = np.array([c if c is not None else [0.0] * width for c in counts], dtype=np.float64)
        flat = (samples + np.arange(len(samples))[:, None] * n).ravel()
        times = np.bincount(flat, minlength=len(samples) * n).reshape(len(samples), n)
        return np.array([self._corpus._compute_score_from_stats(row.tolist()).score for row in times @ table], dtype=np.float64)

    def signature(self, examples: Sequence[Example]) -> str:
        """What sacrebleu writes beside a score so that others can compute the same: its options, how many references, its version."""
        numbers = {len(references_of(e)) for e in examples}
        self._corpus.num_refs = numbers.pop() if len(numbers) == 1 else -1
        return str(self._corpus.get_signature())

    def _counts(self, prediction: Prediction, example: Example) -> list[float] | None:
        """The statistics that the score is computed from; None where there is no answer or no reference."""
        references = references_of(example)
        if prediction.answer is None or not references:
            return None
        key = (prediction.answer, references)
        if key not in self._known:
            (self._known[key],) = self._corpus._extract_corpus_statistics([prediction.answer], [[reference] for reference in references])
        return self._known[key]
