"""A language model as a judge of answers in words: which of two is better, asked in both orders, or how good one is on a scale.

A judge is a prompt like any other (a template without demonstrations whose labels are A and B, or the marks), so that any language model
can be one, on this machine or behind an address. What it says is an opinion: `agreement` says how far it is that of people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError, Problem
from ..values import Prediction
from .intervals import Interval, wilson

if TYPE_CHECKING:
    from ..prompt import Template
    from ..protocols import LanguageModel

CRITERION = "is more helpful and more correct"
RUBRIC = "1 is useless or wrong, the highest mark is as good as it can be"
PAIR = """---
kind: classify
input: [task, first, second]
labels: [A, B]
---
{{% block example %}}Task:
{{{{ task }}}}

Answer A:
{{{{ first }}}}

Answer B:
{{{{ second }}}}

Which answer {criterion}? Say A or B.
Better:{{% endblock %}}
{{% block answer %}} {{{{ answer }}}}{{% endblock %}}
"""
MARKS = """---
kind: classify
input: [task, answer_given]
labels: [{marks}]
---
{{% block example %}}Task:
{{{{ task }}}}

Answer:
{{{{ answer_given }}}}

Mark the answer from 1 to {top}: {rubric}.
Mark:{{% endblock %}}
{{% block answer %}} {{{{ answer }}}}{{% endblock %}}
"""


@dataclass(frozen=True, slots=True)
class Preference:
    """What a judge says of two answers."""

    as_first: str | None
    """What it chose when ours stood first: `ours`, `theirs`; None: it said neither."""
    as_second: str | None

    @property
    def value(self) -> float:
        """1: ours in both orders, 0: theirs in both, 0.5: it depends on the order, which counts as a tie. nan if it did not answer both.

        Zheng et al. 2023, https://arxiv.org/abs/2306.05685, sec. 3.4 (the conservative rule against position bias).
        """
        if self.as_first is None or self.as_second is None:
            return float("nan")
        return ((self.as_first == "ours") + (self.as_second == "ours")) / 2

    @property
    def consistent(self) -> bool:
        return self.as_first is not None and self.as_first == self.as_second


def is_plain(text: str) -> bool:
    """Whether a text may stand in a judge's template."""
    return not any(mark in text for mark in ("{", "}", "\n"))


class Judge:
    """A language model that compares or marks answers. Each question is asked once."""

    def __init__(self, lm: LanguageModel, *, criterion: str = CRITERION, rubric: str = RUBRIC, top: int = 5, format: str = "auto") -> None:
        """criterion: goes on from "Which answer". rubric: what the marks from 1 to `top` mean. Raises InputError for text with braces, and a `top`
        less than 2."""
        for field, text in (("criterion", criterion), ("rubric", rubric)):
            if not is_plain(text):
                raise InputError(Problem("braces and line ends have no place here", "Write one plain sentence.", field=field))
        if top < 2:
            raise InputError(Problem(f"marks from 1 to {top} tell no answers apart", "Give 2 or more.", field="top"))
        self.lm, self.top, self.format = lm, top, format
        self._pair = _template(PAIR.format(criterion=criterion), "judge-pair")
        self._mark = _template(MARKS.format(marks=", ".join(f'"{n}"' for n in range(1, top + 1)), top=top, rubric=rubric), "judge-mark")
        self._known: dict[tuple[str, ...], Prediction] = {}

    def compare(self, cases: Sequence[tuple[str, str, str]]) -> list[Preference]:
        """cases: (task, our answer, their answer). Both orders of all cases are asked in one call."""
        asked = [(task, *pair) for task, ours, theirs in cases for pair in ((ours, theirs), (theirs, ours))]
        said = self._ask(self._pair, ("task", "first", "second"), asked)
        chosen = [p.answer for p in said]
        names: tuple[Mapping[str, str], Mapping[str, str]] = ({"A": "ours", "B": "theirs"}, {"A": "theirs", "B": "ours"})
        return [
            Preference(names[0].get(first or ""), names[1].get(second or ""))
            for first, second in zip(chosen[::2], chosen[1::2], strict=True)
        ]

    def mark(self, cases: Sequence[tuple[str, str]]) -> list[float]:
        """cases: (task, answer). 0 for the lowest mark, 1 for the highest: the mean over the judge's probabilities, or of the one mark it
        writes where it has none (Liu et al. 2023, https://arxiv.org/abs/2303.16634, sec. 2). nan where it gives none."""
        return [self._share(p) for p in self._ask(self._mark, ("task", "answer_given"), cases)]

    def _share(self, prediction: Prediction) -> float:
        if prediction.answer is None:
            return float("nan")
        shares = prediction.probabilities or {prediction.answer: 1.0}
        return sum(share * (int(mark) - 1) for mark, share in shares.items()) / (self.top - 1)

    def _ask(self, template: Template, fields: tuple[str, ...], cases: Sequence[tuple[str, ...]]) -> list[Prediction]:
        from ..methods import FewShot

        keys = [(template.name, *case) for case in cases]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if new:
            options: dict[str, Any] = {"template": template, "shots": 0, "format": self.format, "max_new_tokens": 8, "retriever": "random"}
            labels = tuple(template.words or ())
            predictor = FewShot(self.lm, **options).fit([], labels=labels, inputs=fields, kind="classify")
            said = predictor.predict([dict(zip(fields, key[1:], strict=True)) for key in new])
            self._known |= dict(zip(new, said, strict=True))
        return [self._known[key] for key in keys]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a judge agrees with people's choices between two answers."""

    share: float
    """Of the pairs that people had a choice in: the judge chooses the same in both orders."""
    interval: Interval
    kappa: float
    """Cohen's kappa over ours, theirs and tie, all pairs: 0 is what chance gives, 1 is full agreement."""
    consistent: float
    """Share of all pairs on which the judge says the same in both orders."""
    n: int


def agreement(judge: Judge, cases: Sequence[tuple[str, str, str]], chosen: Sequence[Literal["ours", "theirs", "tie"]]) -> Agreement:
    """cases: as in `Judge.compare`. chosen: what people preferred. Raises InputError if lengths differ, or nobody preferred anything."""
    if len(cases) != len(chosen) or not any(each != "tie" for each in chosen):
        message = f"{len(chosen)} choices, {sum(each != 'tie' for each in chosen)} of them not a tie, for {len(cases)} cases"
        raise InputError(Problem(message, "Give one choice per case, and at least one that is no tie."))
    found = judge.compare(cases)
    said = ["ours" if p.value == 1 else "theirs" if p.value == 0 else "tie" for p in found]
    decided = [(s, c) for s, c in zip(said, chosen, strict=True) if c != "tie"]
    hits = sum(s == c for s, c in decided)
    n = len(cases)
    observed = sum(s == c for s, c in zip(said, chosen, strict=True)) / n
    expected = sum(said.count(name) * list(chosen).count(name) for name in ("ours", "theirs", "tie")) / n**2
    kappa = (observed - expected) / (1 - expected) if expected < 1 else 1.0
    return Agreement(hits / len(decided), wilson(hits, len(decided)), kappa, sum(p.consistent for p in found) / n, n)


def _template(source: str, name: str) -> Template:
    from ..prompt import Template

    return Template.parse(source, name)
