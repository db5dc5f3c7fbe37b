"""Abstaining: an answer whose probability is below a threshold is withheld. The threshold is given, or fitted on the labelled examples
for a wished accuracy or coverage, then frozen and saved with the predictor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import CostLimitError, InputError, Problem, suggest
from ..readout import same_answer
from ..values import Example, Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Evidence: TypeAlias = tuple[NDArray[np.float64], NDArray[np.bool_]]
    """(n,) confidence and (n,) whether the answer was right, of examples that the answer was given without."""

FOLDS = 5
"""Parts that examples are split into where each is judged by what was fitted on the others."""
_Share = Annotated[float, Field(ge=0, le=1, strict=True)]


class Abstain(BaseModel):
    """When to withhold an answer, by one of `threshold`, `accuracy` and `coverage`, and what to answer instead."""

    model_config = ConfigDict(extra="forbid")
    threshold: _Share | None = Field(None, description="Answers less probable than this are withheld.")
    accuracy: _Share | None = Field(None, description="The smallest threshold at which so many of the answers are right, on the pool.")
    coverage: _Share | None = Field(None, description="The largest threshold at which so many items are answered, on the pool.")
    label: str | None = Field(None, description="What is answered instead, such as a label for what fits none of the others.")

    @model_validator(mode="after")
    def _one_of_three(self) -> Abstain:
        given = [name for name in ("threshold", "accuracy", "coverage") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of threshold, accuracy and coverage, not {' and '.join(given) or 'none'}")
        return self


Option: TypeAlias = _Share | Abstain | None
"""What a method's setting `abstain` takes: a number is a threshold."""
DESCRIPTION = "Withhold answers whose probability is below a threshold: a number, or {accuracy: …} or {coverage: …} to fit one on the pool."


def rule_of(value: Any) -> Abstain | None:
    """The rule that an option `abstain` means. Raises InputError for what is none."""
    if value is None or isinstance(value, Abstain):
        return value
    try:
        return Abstain.model_validate(dict(value) if isinstance(value, Mapping) else {"threshold": value})
    except ValidationError as error:
        problems = []
        for item in error.errors():
            unknown = item["type"] == "extra_forbidden"
            message = f"there is no option '{item['loc'][-1]}'" if unknown else item["msg"].removeprefix("Value error, ")
            fix = (
                suggest(str(item["loc"][-1]), Abstain.model_fields) if unknown else "Give a number from 0 to 1, or such as {accuracy: 0.9}."
            )
            problems.append(Problem(message, fix, field="abstain"))
        raise InputError(problems) from None


@dataclass
class Abstaining:
    """A predictor's rule and its threshold, fitted when it is first needed."""

    rule: Abstain
    evidence: Callable[[], Evidence]
    """Called once, where the threshold has to be fitted."""
    frozen: float | None = None
    failed: InputError | None = None
    """Why it cannot be fitted. It is tried once."""
    planned: bool = False
    """The work of `evidence` was counted."""

    @property
    def is_fitted(self) -> bool:
        """Whether the threshold comes from the labelled examples."""
        return self.rule.threshold is None

    def threshold(self) -> float:
        """Raises InputError if there is none that keeps what was wished."""
        if self.rule.threshold is not None:
            return self.rule.threshold
        if self.failed is not None:
            raise self.failed
        if self.frozen is None:
            try:
                self.frozen = threshold_for(self.rule, *self.evidence())
            except InputError as error:
                self.failed = error
                raise
        return self.frozen

    def apply(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The predictions, with those withheld that are not sure enough."""
        return [withhold(p, self.threshold(), self.rule.label) for p in predictions]

    def guard(self, predict: Callable[[], list[Prediction]]) -> list[Prediction]:
        """What `predict` gives, withheld where it is not sure enough; so too what it had done when a cost limit stopped it."""
        try:
            return self.apply(predict())
        except CostLimitError as error:
            raise CostLimitError(str(error), [p if p is None else self.apply([p])[0] for p in error.results or ()]) from None


def abstaining(option: Any, evidence: Callable[[], Evidence], frozen: float | None = None) -> Abstaining | None:
    """For a method's option `abstain`; None if it is None. frozen: the threshold of a saved predictor."""
    rule = rule_of(option)
    return None if rule is None else Abstaining(rule, evidence, frozen, planned=frozen is not None)


def abstain_state(abstaining: Abstaining | None) -> dict[str, Any]:
    """What a saved predictor says of it: `abstain`, the rule, and `abstain_threshold`. Raises InputError if it cannot be fitted."""
    if abstaining is None:
        return {}
    return {"abstain": abstaining.rule.model_dump(exclude_none=True), "abstain_threshold": abstaining.threshold()}


def withhold(prediction: Prediction, threshold: float, label: str | None = None) -> Prediction:
    """The prediction, or if it is less probable than the threshold one that answers `label`, or nothing.

    One without an answer or probabilities stays as it is, as does one that answers `label` by itself.
    """
    confidence = prediction.confidence
    if confidence is None or confidence >= threshold or prediction.answer == label:
        return prediction
    why = None if label is not None else f"abstained: the probability {confidence:.3g} of the answer is below {threshold:.3g}"
    return replace(prediction, answer=label, withheld=prediction.answer, why=why)


def threshold_for(rule: Abstain, confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The threshold that keeps a wished accuracy with the fewest answers withheld, or a wished coverage with the most.

    It lies half-way between two confidences that occurred; 0 where nothing has to be withheld. Raises InputError if there are no rows,
    or if the wished accuracy is reached nowhere.
    """
    import numpy as np

    n = len(confidence)
    if not n:
        raise InputError(Problem("none of the labelled examples could be scored to fit a threshold on", "Give a number.", field="abstain"))
    values, starts = np.unique(np.sort(confidence), return_index=True)  # ascending: from value i on, n - starts[i] are answered
    answered = n - starts
    if rule.coverage is not None:
        enough = np.flatnonzero(answered >= math.ceil(rule.coverage * n - 1e-9))
        at = int(enough[-1]) if rule.coverage < 1 else 0
    else:
        assert rule.accuracy is not None
        hits = np.cumsum(right[np.argsort(confidence, kind="stable")][::-1])[::-1][starts]
        reached = np.flatnonzero(hits / answered >= rule.accuracy - 1e-12)
        if not len(reached):
            best = int(np.argmax(hits / answered))
            message = f"no threshold reaches an accuracy of {rule.accuracy:g} on the {n} labelled examples"
            fix = f"The best is {hits[best] / answered[best]:.3f}, with {answered[best] / n:.0%} of them answered. Wish for less, or give a number."
            raise InputError(Problem(message, fix, field="abstain"))
        at = int(reached[0])
    return float((values[at] + values[at - 1]) / 2) if at else 0.0


def is_right(answer: str | None, example: Example) -> bool:
    """Whether an answer is the row's label, or one of its references, written a little differently at most (`readout.same_answer`)."""
    if answer is None or not example.references:
        return answer is not None and answer == example.target
    return any(same_answer(answer, reference) for reference in example.references)


def evidence_of(predictions: Sequence[Prediction], examples: Sequence[Example]) -> Evidence:
    """Of the predictions that have a confidence."""
    import numpy as np

    pairs = [(p.confidence, is_right(p.answer, e)) for p, e in zip(predictions, examples, strict=True) if p.confidence is not None]
    return np.array([c for c, _ in pairs], dtype=np.float64), np.array([r for _, r in pairs], dtype=np.bool_)


def crossed(
    rows: Sequence[Example], labels: Sequence[str], answer: Callable[[Sequence[int], Sequence[int]], Sequence[Prediction]]
) -> Evidence:
    """Each row answered by what was fitted on the other parts of the rows.

    answer: (positions to fit on, positions to answer) -> a prediction for each of the latter.
    """
    part = folds([labels.index(str(e.target)) for e in rows])
    answers: dict[int, Prediction] = {}
    for fold in range(int(part.max()) + 1):
        held, others = (part == fold).nonzero()[0].tolist(), (part != fold).nonzero()[0].tolist()
        answers |= dict(zip(held, answer(others, held), strict=True))
    return evidence_of([answers[i] for i in range(len(rows))], rows)


def no_evidence() -> Evidence:
    """Of a saved predictor, which has its threshold and no examples."""
    import numpy as np

    return np.zeros(0), np.zeros(0, dtype=np.bool_)


def folds(targets: Sequence[int]) -> NDArray[np.int64]:
    """(n,) the part, from 0, that each example is in: at most `FOLDS`, each label's examples spread over them.

    Raises InputError if there are not two examples.
    """
    import numpy as np

    n = len(targets)
    if n < 2:
        raise InputError(Problem("a threshold cannot be fitted on a single labelled example", "Give a number.", field="abstain"))
    part = np.empty(n, dtype=np.int64)
    part[np.argsort(np.asarray(targets), kind="stable")] = np.arange(n) % min(FOLDS, n)
    return part
