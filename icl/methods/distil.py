"""A teacher, any method, labels rows without labels with probabilities, and a student learns them beside the labelled examples.

Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531. With a few-shot prompt as the teacher and the same model fine-tuned without
demonstrations as the student it is context distillation (Snell, Klein and Zhong 2022, https://arxiv.org/abs/2209.15189).
"""

from __future__ import annotations

import inspect
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError, Problem
from ..files import read_text, write_text
from ..plugins import build as build_component
from ..plugins import needs_model as needs_model_of
from ..plugins import parse_spec
from ..progress import progress
from ..protocols import LanguageModel, MethodContext
from ..seeds import rng_for
from ..train.cost import tokens_spent
from ..values import Example, Kind, Prediction, digest, normalised_text
from ._common import inputs_of, label_order, labelled

KINDS: frozenset[Kind] = frozenset({"classify"})
NEEDS_LABELS = True
NEEDS_MODEL = True
"""For a prompt as the teacher, or a student that is the language model; `needs_model` says."""
INNER = {"teacher": "few_shot", "student": "classifier"}
"""Options that name methods -> their defaults."""
TRAINS = True
"""A fit is work: whoever only plans a run does none."""
UNIT = 32
"""Rows that the teacher is asked about in one call."""
Shares: TypeAlias = "list[float]"
_SPEC = "A method, as in a suite: a name, or a mapping from it to its settings."


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    teacher: str | dict[str, Any] = Field(INNER["teacher"], description=f"{_SPEC} It is fitted on the labelled examples.")
    student: str | dict[str, Any] = Field(INNER["student"], description=f"{_SPEC} One that learns probabilities.")
    temperature: float = Field(
        2.0,
        gt=0,
        description="Above 1 the student learns more of how the teacher ranks the labels it does not choose; students that have no loss of "
        "their own for it, such as embedding_head, learn the teacher's probabilities as they are.",
    )
    rows: int | None = Field(1000, ge=1, description="Rows without labels that the student learns from, at most; null: all.")
    gold: bool = Field(True, description="The student learns the labelled examples' own labels too; false: what the teacher says alone.")
    held_out: int = Field(
        100, ge=0, description="Further rows without labels on which student and teacher are compared; a fifth of the rows at most."
    )


def needs_model(settings: Mapping[str, Any], folders: Sequence[Path]) -> bool:
    """Whether teacher or student uses the suite's language model."""
    return any(needs_model_of(parse_spec(value, "method"), folders) for value in (settings.get(o, d) for o, d in INNER.items()))


@dataclass(frozen=True)
class Distil:
    teacher: Any
    """A method."""
    student: Any
    """A method whose `fit` takes `targets`."""
    settings: Settings = field(default_factory=lambda: Settings.model_validate({}))
    inputs: tuple[str, ...] = ()
    seed: int = 0
    lm: LanguageModel | None = None
    """That the teacher asks, for what it costs."""
    work: Path | None = None
    """For what the teacher has said so far, and for checkpoints."""

    def __post_init__(self) -> None:
        if "targets" not in inspect.signature(self.student.fit).parameters:
            message = f"{type(self.student).__name__} learns labels only, not the probabilities of a teacher"
            raise InputError(Problem(message, "Take classifier, embedding_head or finetune.", field="student"))

    @property
    def kinds(self) -> frozenset[Kind]:
        return KINDS

    def fit(self, pool: Sequence[Example], labels: Sequence[str] = (), unlabelled: Sequence[Example] = ()) -> Any:
        """The student's predictor, trained. Its attribute `training` says what that cost, the teacher's work included, and how far the student
        is from its teacher. Rows without labels whose text is in the pool are left out; where none are left, the teacher labels the pool's own
        rows. A label that such a row has by chance is never looked at.

        Raises InputError for a pool without labels.
        """
        usable = labelled(pool, "distil")
        order, started = label_order(usable, labels), time.monotonic()
        taught, held = self._rows(usable, unlabelled)
        lesson = _Teacher(self, usable, order).label([*taught, *held])
        told = [row for row in taught if row.uid in lesson.shares]
        own_rows = usable if self.settings.gold else []
        if not [*own_rows, *told]:
            raise InputError(Problem("the teacher answered no row, and the labels are not to be learned", "Set gold: true.", field="gold"))
        targets = [*([float(label == e.target) for label in order] for e in own_rows), *(lesson.shares[row.uid] for row in told)]
        student = self.student
        if "target_temperature" in getattr(student, "__dataclass_fields__", {}):
            student = replace(student, target_temperature=self.settings.temperature)
        predictor = student.fit([*own_rows, *told], order, targets=targets)
        predictor.name = "distil"
        own = dict(getattr(predictor, "training", None) or {})
        gap, spent = _gap(predictor, held, lesson.shares)
        if hasattr(predictor, "reset_totals"):  # what the comparison cost is no cost of the predictions to come
            predictor.reset_totals()
        predictor.training = {
            **own,
            "operations": own.get("operations", 0.0) + (lesson.about["operations"] or 0.0),
            "seconds": round(time.monotonic() - started + lesson.about["earlier_seconds"], 3),
            "teacher": {**lesson.about, "n_taught": len(told), "n_unscored": len(taught) + len(held) - len(lesson.shares)},
            "gap": gap,
            "operations_per_query": {"teacher": lesson.about["operations_per_query"], "student": spent},
        }
        if self.work is not None:
            shutil.rmtree(self.work, ignore_errors=True)
        return predictor

    def _rows(self, usable: Sequence[Example], unlabelled: Sequence[Example]) -> tuple[list[Example], list[Example]]:
        """(rows to learn from, rows to compare on), drawn with the seed, each text once, without any label."""
        inputs = inputs_of(usable, self.inputs)

        def text(row: Example) -> str:
            return normalised_text("\n".join(str(row.fields.get(name, "")) for name in inputs))

        known = {text(row) for row in usable}
        by_text = {key: row for row in unlabelled if (key := text(row)) not in known}
        rows = [replace(row, target=None) for row in by_text.values()]
        if not rows:
            return [replace(row, target=None, uid=f"{row.uid}-taught") for row in usable], []
        rows = sorted(rows, key=lambda row: (rng_for(self.seed, "distil", row.uid).random(), row.uid))
        n_held = min(self.settings.held_out, len(rows) // 5)
        most = len(rows) - n_held if self.settings.rows is None else self.settings.rows
        return rows[n_held : n_held + most], rows[:n_held]


@dataclass(frozen=True)
class _Lesson:
    shares: Mapping[str, Shares]
    """uid -> the teacher's probabilities, in the order of the labels."""
    about: dict[str, Any]
    """What it took."""


@dataclass
class _Teacher:
    """The teacher at work. What it has said is kept in `work`, so that an interrupted training asks nothing twice."""

    method: Distil
    pool: Sequence[Example]
    order: tuple[str, ...]

    def label(self, rows: Sequence[Example]) -> _Lesson:
        started = time.monotonic()
        before = tokens_spent(self.method.lm)
        predictor = self.method.teacher.fit(self.pool, labels=self.order)
        trained = dict(getattr(predictor, "training", None) or {})
        fit_seconds = time.monotonic() - started
        file = self.method.work / "teacher.json" if self.method.work is not None else None
        key = digest([[[e.uid, e.target] for e in self.pool], [row.uid for row in rows], self.order, repr(self.method.settings)])
        said = _said(file, key)
        meter = _Meter(predictor, self.method.lm, before, **said.get("meter", {}))
        shares: dict[str, Shares | None] = dict(said.get("shares", {}))
        earlier = float(said.get("seconds", 0.0))
        with progress("Teacher", len(rows), "rows") as advance:
            advance(len(shares))
            todo = [row for row in rows if row.uid not in shares]
            for start in range(0, len(todo), UNIT):
                part = todo[start : start + UNIT]
                predictions = predictor.predict(part)
                meter.add(part, predictions)
                shares |= {p.uid: _shares(p, self.order) for p in predictions}
                if file is not None:
                    seconds = earlier + time.monotonic() - started
                    write_text(file, json.dumps({"key": key, "shares": shares, "meter": meter.as_dict(), "seconds": seconds}))
                advance(len(part))
        about = {
            "n_rows": len(rows),
            "seconds": round(earlier + time.monotonic() - started, 3),
            "earlier_seconds": round(earlier, 3),
            "fit_seconds": round(fit_seconds, 3),
            "n_tokens": meter.n_tokens,
            "operations": None if meter.operations is None else meter.operations + trained.get("operations", 0.0),
            "operations_per_query": None if meter.operations is None or not rows else meter.operations / len(rows),
            **({"training": trained} if trained else {}),
        }
        return _Lesson({uid: found for uid, found in shares.items() if found is not None}, about)


def _said(file: Path | None, key: str) -> dict[str, Any]:
    """What an interrupted training of the same kind has left."""
    if file is None or not file.is_file():
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        return {}
    said: dict[str, Any] = json.loads(read_text(file))
    return said if said["key"] == key else {}


def _shares(prediction: Prediction, order: Sequence[str]) -> Shares | None:
    """Its probabilities; of an answer without any, certainty; None for a row that it could not answer."""
    if prediction.probabilities:
        shares = [float(prediction.probabilities.get(label, 0.0)) for label in order]
        total = sum(shares)
        return [share / total for share in shares] if total > 0 else None
    return [float(label == prediction.answer) for label in order] if prediction.answer in order else None


@dataclass
class _Meter:
    """Tokens and operations of a predictor's answers, from a cold start: what an earlier run left in a cache counts all the same, but of a
    model behind an address, whose tokens are those that were sent and written."""

    predictor: Any
    lm: Any
    asked: int = 0
    """Tokens of the model behind an address before this."""
    n_tokens: int = 0
    operations: float | None = 0.0

    def __post_init__(self) -> None:
        self._before = self._totals()

    def add(self, rows: Sequence[Example], predictions: Sequence[Prediction]) -> None:
        if self._before is not None:
            now = self._totals()
            assert now is not None
            self.n_tokens += now[0] - self._before[0]
            self.operations = (self.operations or 0.0) + now[1] - self._before[1]
            self._before = now
            return
        lm = getattr(self.predictor, "lm", None) or self.lm
        model = getattr(lm, "model", None)
        if model is None or not hasattr(self.predictor, "plan"):
            self.operations = None
            now_asked = tokens_spent(lm)
            self.n_tokens, self.asked = self.n_tokens + now_asked - self.asked, now_asked
            return
        from ..train.cost import operations_of

        n = self.predictor.plan(rows).computed
        lengths = [p.n_tokens for p in predictions if p.n_tokens]
        self.n_tokens += n
        self.operations = (self.operations or 0.0) + operations_of(model).forward(n, sum(lengths) / max(1, len(lengths)))

    def _totals(self) -> tuple[int, float] | None:
        # Those of a head on vectors leave out what a cache had.
        totals = None if hasattr(self.predictor, "encoder") else getattr(self.predictor, "totals", None)
        return None if totals is None else (totals.computed, totals.operations)

    def as_dict(self) -> dict[str, Any]:
        return {"n_tokens": self.n_tokens, "operations": self.operations}


def _gap(predictor: Any, held: Sequence[Example], shares: Mapping[str, Shares]) -> tuple[dict[str, Any] | None, float | None]:
    """How far the student is from its teacher on rows that it did not learn from, and its operations per row. None without such rows."""
    import math

    rows = [row for row in held if row.uid in shares]
    if not rows:
        return None, None
    meter = _Meter(predictor, None)
    predictions = predictor.predict(rows)
    meter.add(rows, predictions)
    agree, divergence = 0, 0.0
    for row, prediction in zip(rows, predictions, strict=True):
        teacher, student = shares[row.uid], list((prediction.probabilities or {}).values())
        agree += prediction.answer == list(prediction.probabilities or {})[teacher.index(max(teacher))]
        divergence += sum(p * math.log(p / max(q, 1e-12)) for p, q in zip(teacher, student, strict=True) if p > 0)
    found = {"n_rows": len(rows), "agreement": round(agree / len(rows), 6), "divergence_nats": round(divergence / len(rows), 6)}
    return found, None if meter.operations is None else meter.operations / len(rows)


def build(settings: Settings, context: MethodContext) -> Distil:
    def method(option: str) -> Any:
        work = context.work / option if context.work is not None else None
        inner = replace(context, work=work)
        return build_component("method", getattr(settings, option), inner, context.plugin_folders, option)

    return Distil(method("teacher"), method("student"), settings, context.inputs, context.seed, context.lm, context.work)


def load(folder: Path, state: Mapping[str, Any], *, lm: Any = None, device: str | None = None) -> Any:
    raise InputError(Problem("a student is saved under the name of its own method, never as 'distil'", "Save it again.", str(folder)))
