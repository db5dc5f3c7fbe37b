"""What competes for a decision: the methods that fit a task, and the suite that compares them."""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, Problem, suggest
from ..evaluate.answer import Sides
from ..evaluate.break_even import Prices
from ..evaluate.check import kinds_of, load_suite
from ..evaluate.planning import MORE_DRAWS
from ..evaluate.prepare import Prepared, prepare
from ..evaluate.probe import PROMPTS, TRAINED
from ..evaluate.schema import DEFAULT_METRICS, ModelEntry
from ..plugins import available, needs_model, parse_spec
from ..protocols import LanguageModel
from ..values import Kind, Spec, embedded_text

if TYPE_CHECKING:
    from ..data import Task

MIN_ITEMS = 10
"""Fewest rows to learn from, and to judge on."""
LONG_WORDS = 150
"""Texts of more words than this are shown four at a time instead of eight: more would take minutes a prompt on a small machine."""
FEW_WORDS = 5
"""Answers of more words than this, at the median, are hardly ever met word for word: what they share with the right one decides."""
LIGHT: Mapping[Kind, tuple[str, ...]] = {
    "classify": ("majority", "knn_vote", "embedding_head"),
    "choose": ("majority",),
    "answer": ("majority", "nearest_answer"),
}
HEAVY = ("contrastive", "classifier", "finetune")
"""Trained methods that join where there is time for them."""
ENCODER = "minilm"
"""What they are trained from where the encoder is behind an address."""


@dataclass(frozen=True, slots=True)
class Request:
    """What `icl.decide` was asked."""

    template: str
    metric: str | None
    margin: float
    budgets: tuple[int | str, ...] | None
    methods: tuple[Any, ...] | None
    seeds: int | None
    minutes: float
    until_decided: bool = False
    encoder: str = "minilm"
    plugins: tuple[Path, ...] = ()
    hour_price: float | None = None
    """Of this machine: its rent, or the energy it draws."""
    encoder_price: float | None = None
    """Of an encoder behind an address, per million tokens."""


def checked(task: Task, request: Request) -> None:
    """Raises InputError with everything that makes a decision impossible, before any work."""
    problems = _task_problems(task)
    if not (math.isfinite(request.margin) and request.margin >= 0):
        problems.append(
            Problem(f"a margin of {request.margin} is none", "Give a difference that does not matter, such as 0.01.", field="margin")
        )
    if not (math.isfinite(request.minutes) and request.minutes > 0):
        problems.append(Problem(f"{request.minutes} minutes leave no time", "Give more than 0.", field="minutes"))
    for name in ("hour_price", "encoder_price"):
        price = getattr(request, name)
        if price is not None and not (math.isfinite(price) and price >= 0):
            problems.append(Problem(f"{price} is no price", "Give 0 or more.", field=name))
    if request.seeds is not None and not 1 <= request.seeds <= 1000:
        problems.append(Problem(f"{request.seeds} draws of the labels", "Give 1 to 1000.", field="seeds"))
    if request.until_decided and request.seeds == 1:
        problems.append(Problem("one draw of the labels leaves nothing to stop early", "Give at least 2 seeds, or none.", field="seeds"))
    problems += _budget_problems(request.budgets, len(task.train))
    problems += _metric_problems(request, task.kind)
    problems += _method_problems(request, task.kind)
    if problems:
        raise InputError(problems)


def _task_problems(task: Task) -> list[Problem]:
    problems = []
    targets = dict.fromkeys(e.target for e in task.train)
    is_few = len(task.train) < MIN_ITEMS or len(task.test) < MIN_ITEMS
    if is_few and task.kind == "classify" and task.holdout is not None and MIN_ITEMS <= len(task.train) < 2 * len(targets):
        message = f"{len(task.train)} rows have {len(targets)} labels, so that too few can be held out to judge on"
        fix = "Name the column with the label (--label), or, for answers in words, the one with the right answers (--references)."
        problems.append(Problem(message, fix, field="label"))
    elif is_few:
        message = f"{len(task.train)} rows to learn from and {len(task.test)} to judge on are too few to decide anything"
        fix = f"Give at least {MIN_ITEMS} of each; without a test file, some are held out, as far as their texts differ."
        problems.append(Problem(message, fix, field="train"))
    if task.kind == "classify" and len(targets) == 1:
        label = next(iter(targets))
        problems.append(
            Problem(
                f"all {len(task.train)} rows have the label '{label}', so there is nothing to tell apart",
                "Name another column.",
                field="label",
            )
        )
    return problems


def _budget_problems(budgets: Sequence[int | str] | None, n_train: int) -> list[Problem]:
    if budgets is None:
        return []
    if not budgets:
        return [Problem("no label budget is given", "Name at least one, such as 64, or leave it out.", field="budgets")]
    problems = []
    for budget in budgets:
        if budget == "all":
            continue
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
            problems.append(Problem(f"{budget!r} is no label budget", "Give numbers from 1, or 'all'.", field="budgets"))
        elif budget > n_train:
            message = f"a label budget of {budget} is more than the {n_train} rows there are to learn from"
            problems.append(Problem(message, "Use a smaller one, or 'all'.", field="budgets"))
    return problems


def _metric_problems(request: Request, kind: Kind) -> list[Problem]:
    if request.metric is None:
        return []
    known = [name for name in available("metric", request.plugins) if kind in kinds_of("metric", name, request.plugins)]
    name = parse_spec(request.metric, "metric", "metric").name
    return [] if name in known else [Problem(f"no metric '{name}' judges a task of kind '{kind}'", suggest(name, known), field="metric")]


def _method_problems(request: Request, kind: Kind) -> list[Problem]:
    problems = []
    known = _usual(kind, 8, request) | _usual(kind, 4, request)
    for value in request.methods or ():
        name = value if isinstance(value, str) else next((k for k in value if k not in ("name", "tasks")), "")
        if isinstance(value, str) and value in known:
            continue
        if name not in available("method", request.plugins):
            names = sorted({*known, *available("method", request.plugins)})
            problems.append(Problem(f"there is no method '{name}'", suggest(str(name), names), field="methods"))
        elif kind not in kinds_of("method", str(name), request.plugins):
            problems.append(Problem(f"the method '{name}' cannot do a task of kind '{kind}'", "Leave it out.", field="methods"))
    if request.methods is not None and not request.methods:
        problems.append(Problem("no method is named", "Name at least two, or leave it out for the usual ones.", field="methods"))
    return problems


def methods_of(task: Task, request: Request, *, has_model: bool, is_remote: bool) -> tuple[list[Any], list[str]]:
    """(entries of a suite's `methods`, names of those that join only where there is time)."""
    texts = task.train[:200]
    words = sum(len(embedded_text(e.fields).split()) for e in texts) / max(1, len(texts))
    usual = _usual(task.kind, 4 if words > LONG_WORDS else 8, request)
    if request.methods is not None:
        every = {**_usual(task.kind, 8, request), **_usual(task.kind, 4, request), **usual}
        entries = [every.get(m, m) if isinstance(m, str) else m for m in request.methods]
        return [_on_its_base(entry, is_remote) for entry in entries], []
    fitting = {name: entry for name, entry in usual.items() if has_model or not _needs_model(entry)}
    return [_on_its_base(entry, is_remote) for entry in fitting.values()], [name for name in fitting if name in HEAVY]


def _usual(kind: Kind, shots: int, request: Request) -> dict[str, Any]:
    """Name -> entry of the methods that are there and can do a task of this kind."""
    named: dict[str, Any] = {name: name for name in (*LIGHT[kind], "zero_shot")}
    for retriever in ("random", "knn"):
        named[f"{retriever}-{shots}"] = {"name": f"{retriever}-{shots}", "few_shot": {"retriever": retriever, "shots": shots}}
    settings: dict[str, Any] = {"classifier": {"base": request.encoder}, "finetune": {"kind": "lora"}}
    if "://" in request.encoder:  # it has no weights that could be trained here
        settings |= {"classifier": {"base": ENCODER}, "contrastive": {"encoder": ENCODER}}
    there = available("method")
    for name in HEAVY:
        if name in there and kind in kinds_of("method", name, ()):
            named[name] = {name: settings[name]} if name in settings else name
    return named


def method_of(entry: Any) -> str:
    """The name of the method behind an entry."""
    return entry if isinstance(entry, str) else next(key for key in entry if key not in ("name", "tasks"))


def name_of(entry: Any) -> str:
    """What results call it."""
    return entry if isinstance(entry, str) else str(entry.get("name") or method_of(entry))


def _needs_model(entry: Any) -> bool:
    settings = {} if isinstance(entry, str) else entry[method_of(entry)] or {}
    return needs_model(Spec(method_of(entry), dict(settings)))


def _on_its_base(entry: Any, is_remote: bool) -> Any:
    """A model behind an address cannot be fine-tuned here: its rival is trained from a base of its own."""
    if not is_remote or method_of(entry) != "finetune":
        return entry
    settings = {} if isinstance(entry, str) else dict(entry["finetune"] or {})
    more = {} if isinstance(entry, str) else {k: v for k, v in entry.items() if k != "finetune"}
    return {**more, "finetune": {"base": "smollm2", **settings}}


def _plain(name: str) -> str:
    """A name as suites take it: accents taken off, hyphens for all else."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return "-".join(re.findall(r"[A-Za-z0-9._]+", letters))[:80].strip(".") or "task"


def suite_of(
    task: Task, request: Request, lm: LanguageModel | None, methods: Sequence[Any], budgets: Sequence[int], seeds: int, n_items: int | None
) -> dict[str, Any]:
    """The suite that compares these methods on the task."""
    first = request.metric
    metrics = None if first is None else [first, *(name for name in DEFAULT_METRICS[task.kind] if name != parse_spec(first, "metric").name)]
    entry = {
        "name": _plain(task.name),
        "train": task,
        "kind": task.kind,
        "input": list(task.inputs),
        "template": request.template,
        **({"labels": list(task.labels)} if task.kind == "classify" else {}),
        **({"limit": n_items} if n_items is not None else {}),
    }
    return {
        "name": f"decide-{entry['name']}",
        "description": f"Prompt or train? {task.name}",
        "models": [] if lm is None else [model_entry(lm)],
        "tasks": [entry],
        "methods": list(methods),
        "budgets": sorted(set(budgets)),
        "seeds": seeds,
        "encoder": request.encoder,
        **({"encoder_price": request.encoder_price} if request.encoder_price is not None else {}),
        **({"metrics": metrics} if metrics else {}),
    }


def model_entry(lm: LanguageModel) -> dict[str, Any]:
    """A loaded model as an entry of a suite."""
    reference = dict(lm.reference)
    entry = {"model": str(reference.pop("name", lm.name))}
    for key, value in reference.items():
        if key in ModelEntry.model_fields:
            entry[key] = value if not isinstance(value, Path) and key != "memory" else str(value)
    return entry


def median_words(task: Task) -> float:
    """Words of an answer, at the median over the rows to learn from; of several right ones the shortest counts."""
    return statistics.median(min(len(text.split()) for text in e.references or (e.target or "",)) for e in task.train)


def with_metric(task: Task, request: Request) -> Request:
    """With the metric that long answers are judged by, where nobody names one; others have the usual metrics of their kind."""
    is_long = task.kind == "answer" and request.metric is None and median_words(task) > FEW_WORDS
    return dataclasses.replace(request, metric="token_f1") if is_long else request


def metric_of(task: Task, request: Request) -> str:
    """The metric that decides."""
    return parse_spec(request.metric, "metric").name if request.metric is not None else DEFAULT_METRICS[task.kind][0]


@dataclass(frozen=True)
class Contest:
    """What competes, on what."""

    task: Task
    """Without rows to learn from that equal an item to judge or choose on."""
    request: Request
    lm: LanguageModel | None
    methods: tuple[Any, ...]
    """As a suite names them."""
    optional: tuple[str, ...]
    templates: tuple[str | Path, ...]

    @classmethod
    def of(cls, task: Task, request: Request, lm: LanguageModel | None, templates: Sequence[str | Path]) -> Contest:
        """Raises InputError with everything that makes a decision impossible."""
        checked(task, request)
        request = with_metric(task, request)
        guarded = _guarded(task)
        checked(guarded, dataclasses.replace(request, budgets=None))
        methods, optional = methods_of(guarded, request, has_model=lm is not None, is_remote=lm is not None and "://" in lm.name)
        return cls(guarded, request, lm, tuple(methods), tuple(optional), tuple(templates))

    def suite(self, methods: Sequence[Any], budgets: Sequence[int], seeds: int, n_items: int | None) -> dict[str, Any]:
        return suite_of(self.task, self.request, self.lm, methods, budgets, seeds, n_items)

    def prepared(self, suite: Mapping[str, Any]) -> Prepared:
        loaded = load_suite(suite, templates=self.templates, plugins=self.request.plugins)
        return prepare(loaded, models=self.models(loaded.suite.model_entries))

    def models(self, entries: Sequence[Any]) -> dict[str, LanguageModel]:
        return {} if self.lm is None else {entry.key: self.lm for entry in entries}

    def most_draws(self, planned: int) -> int:
        """Draws of the labels that there can be at most: those beyond the plan only fill time that is left, and never cost money."""
        request = self.request
        is_paid = self.lm is not None and "://" in self.lm.name
        return planned if is_paid or request.seeds is not None or request.until_decided else max(planned, MORE_DRAWS)

    @property
    def sides(self) -> Sides:
        named = [(name_of(entry), method_of(entry)) for entry in self.methods]
        prompts, trained = (frozenset(name for name, method in named if method in which) for which in (PROMPTS, TRAINED))
        return Sides(prompts, trained)

    @property
    def prices(self) -> Prices | None:
        """Of a model and an encoder behind an address, and of this machine; None where none is given."""
        given = {} if self.lm is None else self.lm.reference.get("prices") or {}
        if not given and self.request.hour_price is None and self.request.encoder_price is None:
            return None
        second = (self.request.hour_price or 0.0) / 3600
        per_token = (given.get("input", 0.0), given.get("output", 0.0), given.get("cached"), given.get("cache_write"))
        return Prices(second, *per_token, embedding=self.request.encoder_price or 0.0)


def _guarded(task: Task) -> Task:
    """No row to learn from is an item to judge or to choose on, and no item to choose on is one to judge on."""
    from ..data import leak_guard

    clean, _ = leak_guard(task)
    if not clean.dev:
        return clean
    apart, _ = leak_guard(dataclasses.replace(clean, test=clean.dev, dev=()))
    return dataclasses.replace(clean, train=apart.train, unlabelled=apart.unlabelled)
