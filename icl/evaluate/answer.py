"""From a run's store to the answer: which method, how sure, from how many labels on training wins, what it costs, what would change it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..endpoint.meter import estimated_tokens
from ..errors import InputError
from ..seeds import numpy_rng_for
from ..values import Example, Prediction, embedded_text
from .break_even import BreakEven, Prices, Prompted, Trained, break_even
from .cells import Cell
from .choice import Choice, choose
from .compare import StoredRun
from .crossover import Crossover, crossover
from .gain import Gain, expected_gain
from .paired import Side, side
from .scoring import item_values, judge_runs

SAME_SECONDS = 1.25
"""Seconds per query that differ by no more than this factor are not told apart."""
Timing = Mapping[str, Mapping[str, Any]]
"""Cell key -> what timing.json says of it."""


@dataclass(frozen=True, slots=True)
class Point:
    """A method's figure at one label budget: the mean over runs."""

    method: str
    budget: int | None
    n_runs: int
    value: float | None
    low: float | None
    high: float | None
    n_unscored: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a method at the largest label budget, as measured; means over runs."""

    fit_s: float
    item_s: float
    """Seconds per query."""
    item_money: float | None
    """Per query: what an endpoint was paid, else the seconds at the machine's price; None without prices."""
    tokens: float | None
    """Of a whole prompt and its candidates; None without a language model here."""
    tokens_computed: float | None
    """Those that were computed, since prompts begin alike."""
    paid: Mapping[str, float] | None = None
    """Tokens per query that an endpoint counted: `input_tokens`, `cached_tokens` (of these), `output_tokens`."""
    embedding: float = 0.0
    """Part of item_money: for the vector of the query, whichever method asked for it first."""


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a decision says, as numbers."""

    metric: str
    higher_is_better: bool
    is_share: bool
    """Whether the metric lies between 0 and 1."""
    budget: int | None
    """The largest label budget."""
    n_items: int
    n_runs: int
    margin: float
    choice: Choice
    points: tuple[Point, ...]
    """In the order of the methods, then budgets."""
    costs: Mapping[str, Cost]
    in_money: bool
    """Whether the methods' costs are compared in money, else in seconds."""
    prompt: str | None
    """The best prompt at the largest budget, and the best trained method, whose costs are set against each other; the method that was chosen
    stands for its side. None where none competed."""
    trained: str | None
    crossover: Crossover | None
    break_even: BreakEven | None
    gains: tuple[Gain, ...]
    """Of doubling the labels, for prompts and for trained methods, where there are two label budgets at least."""


@dataclass(frozen=True)
class Sides:
    """Names of the methods on either side of a crossover."""

    prompts: frozenset[str]
    trained: frozenset[str]


@dataclass(frozen=True)
class _Judged:
    """Complete cells of one task and what the metric says of them."""

    run: StoredRun
    task: str
    metric: Any
    cells: dict[str, dict[int | None, list[Cell]]]
    """Method -> label budget -> its cells, in order of seeds."""

    def runs(self, method: str, budget: int | None) -> list[list[Prediction]]:
        return [self.run.predictions(cell) for cell in self.cells[method][budget]]

    @property
    def examples(self) -> Sequence[Example]:
        return self.run.tests[self.task]


def answer(
    run: StoredRun,
    timing: Timing,
    metric: str,
    sides: Sides,
    *,
    margin: float,
    dev: tuple[Sequence[Example], Mapping[str, Sequence[Prediction]]] | None = None,
    query_s: Mapping[str, float] | None = None,
    prices: Prices | None = None,
    order: Sequence[str] = (),
    plugins: Sequence[Any] = (),
) -> Findings:
    """What a finished run of one task says.

    timing: seconds and money of each cell. metric: the one that decides. sides: which methods prompt, which are trained; others compete
    but take no part in the crossover. dev: items to choose on, and each method's predictions of them. query_s: seconds per query of methods
    whose own clock in the run does not tell them. prices: of a model behind an address, and of this machine;
    costs are then compared in money. order: the methods to choose from, by default all; those without a run at the largest label budget
    take no part.
    Raises InputError if the methods cannot be compared at all.
    """
    (task,) = run.tests
    judged = _Judged(run, task, run.metrics(task, plugins)[metric], _complete(run, order))
    top = max((b for budgets in judged.cells.values() for b in budgets if b is not None), default=None)
    rivals = _rivals(judged, top, order)
    costs = {name: _cost(judged, cells, timing, (query_s or {}).get(name), prices) for name, cells in rivals.items()}
    in_money = prices is not None
    tests = {name: side(judged.metric, [run.predictions(c) for c in cells], judged.examples) for name, cells in rivals.items()}
    higher = bool(getattr(judged.metric, "higher_is_better", True))
    found = choose(
        tests,
        [example.uid for example in judged.examples],
        {name: (cost.item_money or 0.0) if in_money else cost.item_s for name, cost in costs.items()},
        numpy_rng_for(0, "decide", task),
        dev=_dev_sides(judged.metric, dev, rivals),
        margin=margin,
        same_cost=1.0 if in_money else SAME_SECONDS,
        higher_is_better=higher,
    )
    means = {rival.name: rival.mean for rival in found.rivals}
    prompt, trained = (found.winner if found.winner in names else _best(names, means, higher) for names in (sides.prompts, sides.trained))
    rows, items = _curve_rows(judged)
    return Findings(
        metric=metric,
        higher_is_better=higher,
        is_share=getattr(judged.metric, "bounds", None) == (0.0, 1.0),
        budget=top,
        n_items=len(judged.examples),
        n_runs=max(len(cells) for cells in rivals.values()),
        margin=margin,
        choice=found,
        points=_points(judged),
        costs=costs,
        in_money=in_money,
        prompt=prompt,
        trained=trained,
        crossover=_crossover(rows, items, sides, judged, higher),
        break_even=_break_even(costs, prompt, trained, prices),
        gains=tuple(g for names in (sides.prompts, sides.trained) if (g := _gain(rows, items, names, judged, higher))),
    )


def _complete(run: StoredRun, order: Sequence[str]) -> dict[str, dict[int | None, list[Cell]]]:
    cells: dict[str, dict[int | None, list[Cell]]] = {}
    for name in dict.fromkeys([*order, *run.methods]):
        mine = sorted((c for c in run.cells if c.method == name), key=lambda c: (c.budget or 0, c.seed or 0))
        for cell in mine:
            assert cell.budget != "all", "label budgets are numbers here"
            cells.setdefault(name, {}).setdefault(cell.budget, []).append(cell)
    return cells


def _rivals(judged: _Judged, top: int | None, order: Sequence[str]) -> dict[str, list[Cell]]:
    """Method -> its cells at the largest label budget, of the draws that all methods have there; only methods of `order`, if it is given."""
    found = {name: budgets.get(top) or budgets.get(None) or [] for name, budgets in judged.cells.items() if not order or name in order}
    found = {name: cells for name, cells in found.items() if cells}
    draws = [{cell.seed for cell in cells} for cells in found.values() if cells[0].budget is not None]
    common = set.intersection(*draws) if draws else set()
    return {name: [c for c in cells if c.budget is None or c.seed in common] for name, cells in found.items()}


def _points(judged: _Judged) -> tuple[Point, ...]:
    points = []
    for method, budgets in judged.cells.items():
        for budget in budgets:
            rng = numpy_rng_for(0, "decide", method, str(budget))
            found = judge_runs(judged.metric, judged.runs(method, budget), judged.examples, rng)
            n_runs = len(budgets[budget])
            points.append(Point(method, budget, n_runs, found.value, found.low, found.high, found.n_failed + found.n_abstained))
    return tuple(points)


def _dev_sides(
    metric: Any, dev: tuple[Sequence[Example], Mapping[str, Sequence[Prediction]]] | None, rivals: Mapping[str, Any]
) -> dict[str, Side] | None:
    return None if dev is None else {name: side(metric, [dev[1][name]], dev[0]) for name in rivals}


def _best(names: frozenset[str], means: Mapping[str, float], higher: bool) -> str | None:
    known = [name for name in means if name in names]
    return max(known, key=lambda name: means[name] if higher else -means[name], default=None)


def _curve_rows(judged: _Judged) -> tuple[list[Any], list[Any] | None]:
    """(method, labels, run, value) and, for a metric that is a mean over items, (method, labels, run, item, value)."""
    rows, items = [], []
    for method, budgets in judged.cells.items():
        for budget, cells in budgets.items():
            for cell, predictions in zip(cells, judged.runs(method, budget), strict=True):
                figure = judge_runs(judged.metric, [predictions], judged.examples, numpy_rng_for(0, "curve"))
                if figure.value is None:
                    continue
                rows.append((method, budget, cell.seed or 0, figure.value))
                if not hasattr(judged.metric, "aggregate"):
                    values = item_values(judged.metric, predictions, judged.examples)
                    items += [(method, budget, cell.seed or 0, n, v) for n, v in enumerate(values.tolist())]
    return rows, items or None


def _crossover(rows: list[Any], items: list[Any] | None, sides: Sides, judged: _Judged, higher: bool) -> Crossover | None:
    """None without methods on both sides, or with one number of labels: then there is no curve."""
    prompts, trained = (names & {row[0] for row in rows} for names in (sides.prompts, sides.trained))
    if not prompts or not trained or len({row[1] for row in rows if row[0] in trained}) < 2:
        return None
    rng = numpy_rng_for(0, "crossover", judged.task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without items: the answer says what the interval is made of
        try:
            return crossover(rows, prompts, trained, items, rng=rng, higher_is_better=higher)
        except InputError:  # one run, and a metric that is no mean over items
            return None


def _gain(rows: list[Any], items: list[Any] | None, names: frozenset[str], judged: _Judged, higher: bool) -> Gain | None:
    known = names & {row[0] for row in rows if row[1]}
    if not known:
        return None
    top = max(row[1] for row in rows if row[0] in known and row[1])
    try:
        rng = numpy_rng_for(0, "gain", judged.task)
        return expected_gain(rows, sorted(known), top, items, rng=rng, higher_is_better=higher)
    except InputError:  # one label budget
        return None


def _cost(judged: _Judged, cells: Sequence[Cell], timing: Timing, query_s: float | None, prices: Prices | None) -> Cost:
    clocks = [timing[cell.key] for cell in cells if cell.key in timing]
    n = len(judged.examples)
    predictions = [p for cell in cells for p in judged.run.predictions(cell)]
    work = judged.run.tokens(cells)
    sizes = [p.n_tokens + sum(p.scores.n_tokens if p.scores is not None else ()) for p in predictions if p.n_tokens is not None]
    usage = [clock["usage"] for clock in clocks if clock.get("usage")]
    money = [one["cost"] for one in usage if one.get("cost") is not None]
    counted = ("input_tokens", "cached_tokens", "output_tokens")
    item_s = query_s if query_s is not None else float(np.mean([clock["predict_s"] for clock in clocks])) / n if clocks else 0.0
    ours = item_s * prices.second if prices is not None and prices.second else None  # to wait for an endpoint takes no machine
    vector = _vector_money(clocks, judged.examples, prices)
    item_money = float(np.mean(money)) / n if money else ours
    return Cost(
        float(np.mean([clock["fit_s"] for clock in clocks])) if clocks else 0.0,
        item_s,
        (item_money or 0.0) + vector if vector else item_money,
        float(np.mean(sizes)) if sizes else None,
        work / n / len(cells) if work else None,
        {name: float(np.mean([one.get(name) or 0 for one in usage])) / n for name in counted} if usage else None,
        vector,
    )


def _vector_money(clocks: Sequence[Mapping[str, Any]], examples: Sequence[Example], prices: Prices | None) -> float:
    """What an encoder behind an address takes for the vector of a query: vectors are kept, so what a method paid in the run says how
    early it came."""
    if prices is None or not prices.embedding or not any((clock.get("embedding") or {}).get("wanted_tokens") for clock in clocks):
        return 0.0
    return prices.embedding * float(np.mean([estimated_tokens(embedded_text(example.fields)) for example in examples])) / 1e6


def _break_even(costs: Mapping[str, Cost], prompt: str | None, trained: str | None, prices: Prices | None) -> BreakEven | None:
    """Of a prompt and a trained method, both at the largest label budget.

    Seconds are measured with what prompts share computed once; whole prompts would take as much longer as they have more tokens.
    """
    if prompt is None or trained is None:
        return None
    theirs = costs[trained]
    return break_even(_prompted(costs[prompt], prices), Trained(theirs.fit_s, theirs.item_s, money=theirs.embedding), prices)


def _prompted(cost: Cost, prices: Prices | None) -> Prompted:
    """An endpoint that is paid for by the token takes no time of ours; one without prices takes nothing but time."""
    if cost.paid is not None and prices is not None and (prices.input or prices.output):
        read = cost.paid.get("input_tokens", 0.0)
        return Prompted(read, min(read, cost.paid.get("cached_tokens", 0.0)), cost.paid.get("output_tokens", 0.0), money=cost.embedding)
    if cost.paid is not None or not cost.tokens or not cost.tokens_computed or cost.tokens <= cost.tokens_computed:
        return Prompted(cost.tokens or 0.0, seconds=cost.item_s, money=cost.embedding)
    whole = cost.item_s * cost.tokens / cost.tokens_computed
    return Prompted(cost.tokens, cost.tokens - cost.tokens_computed, seconds=whole, seconds_reused=cost.item_s, money=cost.embedding)


def as_json(value: Any) -> Any:
    """Findings as JSON values; infinity is the string "beyond"."""
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    if isinstance(value, float) and math.isinf(value):
        return "beyond"
    return value
