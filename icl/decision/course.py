"""The course of a decision: plan, compare, answer."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from ..errors import CostLimitError, IclError, InputError, Problem
from ..evaluate.answer import answer
from ..evaluate.before import check_cost
from ..evaluate.cells import Cell, cells
from ..evaluate.check import load_suite
from ..evaluate.compare import StoredRun
from ..evaluate.pace import SETTLED, TIME, Looks, Pace
from ..evaluate.planning import RESERVE, Offer, Plan, label_budgets, plan, smallest
from ..evaluate.prepare import limited
from ..evaluate.probe import measure, seconds_per_query
from ..evaluate.store import from_json, to_json
from ..evaluate.work import cost_of, measured, share_out
from ..files import read_text, write_text
from ..plugins import Context, build
from ..progress import note
from ..protocols import LanguageModel
from ..report.decision import plan_lines
from ..ship import load
from ..suite import Run, new_folder, run, write_page
from ..values import Example, Prediction
from .contest import Contest, Request, checked, median_words, metric_of, name_of
from .outcome import Decision, paths_of
from .state import State, facts_of

if TYPE_CHECKING:
    from ..data import Task

DEV = "dev.json"
"""What each method's stored predictor says of the items to choose on."""
DRAWS_UNTIL_DECIDED = 5
"""Draws that are planned where the run may end before them."""


class More(TypedDict, total=False):
    """What else can be said."""

    until_decided: bool
    """End after the draw of labels with which every method is told apart from the best one, or known to lie within the margin."""
    encoder: str
    """Of methods that embed texts; default: minilm."""
    max_cost: float | None
    """Most money that an endpoint may cost, what is asked for the plan included."""
    hour_price: float | None
    """Of an hour of this machine, its rent or `watts / 1000 · price of a kWh`: costs are then compared in money. It changes no run."""
    encoder_price: float | None
    """Of an encoder behind an address, per million tokens that it reads."""
    templates: Sequence[str | Path]
    """Folders with templates of your own."""
    plugins: Sequence[str | Path]
    """Folders with methods, metrics, … of your own; the Python in them is imported."""
    only_plan: bool
    """Plan, show the plan, and stop: the Decision has no answer."""
    started: float
    """When the time began to run, by `time.perf_counter`; default: now."""


def decide(
    task: Task,
    lm: LanguageModel | str | Path | None,
    template: str = "default",
    metric: str | None = None,
    margin: float = 0.01,
    budgets: Sequence[int | str] | None = None,
    methods: Sequence[Any] | None = None,
    seeds: int | None = None,
    minutes: float = 10.0,
    out: str | Path | None = None,
    **more: Unpack[More],
) -> Decision:
    """Compare prompts with trained methods on a task, in the time there is, and say which to use.

    lm: a language model, or its name; None: methods without one. metric: what decides; default: the task's first usual one, for
    answers in words of more than five words token_f1. margin: a difference that does not matter. budgets: numbers of labels owned, or "all"; methods: names, or entries as in a suite; seeds: draws of
    the labels; None: planned, with the number of test items, to fit `minutes`, loading and answering included. The plan is shown on stderr
    before the run. out: the run's folder; a decision that was interrupted goes on there, and one that was made is given again.
    more: see `More`.

    The method is chosen on `task.dev`, or without it on halves of the test items, by the rule of `evaluate.choice.choose`.
    Raises InputError with everything that makes a decision impossible, and KeyboardInterrupt, which says how to go on, when interrupted.
    """
    started = more.get("started") or time.perf_counter()
    request = Request(
        template,
        metric,
        margin,
        None if budgets is None else tuple(budgets),
        None if methods is None else tuple(methods),
        seeds,
        minutes,
        more.get("until_decided", False),
        more.get("encoder", "minilm"),
        tuple(Path(p) for p in more.get("plugins", ())),
        more.get("hour_price"),
        more.get("encoder_price"),
    )
    checked(task, request)
    contest = Contest.of(task, request, _loaded(lm), more.get("templates", ()))
    if (max_cost := more.get("max_cost")) is not None:  # before the plan has an endpoint answer a few rows
        asked = contest.suite(contest.methods, [1], 1, None)
        check_cost(load_suite(asked, templates=contest.templates, plugins=request.plugins), max_cost)
        share_out(max_cost, contest.lm, None, ())
    folder = Path(out) if out is not None else new_folder(f"decide-{contest.suite([], [1], 1, 1)['tasks'][0]['name']}")
    try:
        state = State.read(folder, contest) or _planned(contest, folder, started, max_cost)
    except CostLimitError as error:
        raise IclError(
            f"stopped before there is a plan: the cost limit is reached: {error}\n  Ask again with a higher max_cost (--max-cost)."
        ) from None
    if more.get("only_plan"):  # the answer is the plan
        return Decision(state.plan, contest)
    if contest.request.metric != request.metric:
        words = f"{median_words(task):g} words at the median"
        note(
            f"{contest.request.metric} decides: the answers have {words}, which exact_match hardly ever finds; metric (--metric) names another"
        )
    for line in plan_lines(state.plan, minutes, more=contest.most_draws(state.plan.seeds) > state.plan.seeds):
        note(line)
    return _decided(contest, state, started, max_cost)


def _loaded(lm: LanguageModel | str | Path | None) -> LanguageModel | None:
    from ..model import load_model

    return load_model(lm) if isinstance(lm, str | Path) else lm


def _planned(contest: Contest, folder: Path, started: float, max_cost: float | None) -> State:
    """The plan for the time there is, and what it rests on. Raises InputError if the time is too short for any, CostLimitError before what is
    asked for it could cost more than the limit."""
    request, task = contest.request, contest.task
    given = None if request.budgets is None else [len(task.train) if b == "all" else int(b) for b in request.budgets]
    budgets = label_budgets(len(task.train), len(task.labels), given)
    began = time.perf_counter()
    prepared = contest.prepared(contest.suite(contest.methods, [min(64, budgets[-1])], 1, None))
    again = time.perf_counter() - began  # the run prepares once more
    seconds = request.minutes * 60
    estimates, speeds = measure(prepared, budgets, contest.optional, seconds, max_cost)
    offer = Offer(
        tuple(estimates),
        budgets,
        n_test=len(task.test),
        n_train=len(task.train),
        n_dev=len(task.dev),
        fixed_budgets=given is not None,
        seeds=request.seeds or (DRAWS_UNTIL_DECIDED if request.until_decided else None),
        embed=speeds.embed,
        overhead=time.perf_counter() - started + again,
    )
    found = plan(offer, seconds * (1 - RESERVE))
    if found is None:
        least = smallest(offer).seconds / (1 - RESERVE)
        fix = f"Give at least {math.ceil(least / 6) / 10:g} minutes, fewer label budgets, seeds or methods, or a faster model."
        raise InputError(Problem(f"{request.minutes:g} min is too short: the smallest comparison takes longer", fix, field="minutes"))
    paid = cost_of(measured(prepared.paid_encoder)) if prepared.paid_encoder is not None else 0.0
    return State(folder, facts_of(contest), found, estimates, paid=paid)


def _decided(contest: Contest, state: State, started: float, max_cost: float | None) -> Decision:
    state.write()
    planned, request, task = state.plan, contest.request, contest.task
    entries = [entry for entry in contest.methods if name_of(entry) in planned.methods]
    suite = contest.suite(entries, planned.budgets, contest.most_draws(planned.seeds), planned.n_items)
    metric = metric_of(task, request)
    pace = Pace(
        _seconds(state),
        request.minutes * 60,
        started,
        reserve=RESERVE / 2,
        planned=planned.seeds,
        until=_looks(contest, planned, metric) if request.until_decided else None,
        left_out=None if state.ended is None else frozenset(state.ended["left_out"]),
    )
    loaded = load_suite(suite, templates=contest.templates, plugins=request.plugins)
    done = run(
        suite,
        state.folder,
        cache=False,
        max_cost=None if max_cost is None else max_cost - state.paid,
        models=contest.models(loaded.suite.model_entries),
        schedule=pace,
        templates=contest.templates,
        plugins=request.plugins,
    )
    again = f"ask again with out={str(state.folder)!r} (--out)"
    if done.interrupted:
        raise KeyboardInterrupt(f"interrupted; to go on, {again}")
    if done.stopped is not None:
        raise IclError(f"stopped: {done.stopped}\n  What was done is kept; to go on, {again}.")
    if state.ended is None:
        paths = paths_of(state.folder)
        light = [name for name in paths if name not in {c["method"] for c in done.document["cells"] if c["model"] is not None}]
        clocks = {name: seconds_per_query(load(state.folder / paths[name], plugins=request.plugins), task.test) for name in light}
        made = {_key(cell) for cell in done.document["cells"]}
        left_out = sorted({cell.key for cell in cells(loaded)} - made)
        missing = sum(not pace.is_beyond(cell) for cell in cells(loaded) if cell.key not in made)
        state = dataclasses.replace(state, ended={"left_out": left_out, "missing": missing, "why": pace.why, "query_s": clocks})
        state.write()
    return _answered(contest, state, done, metric)


def _seconds(state: State) -> dict[tuple[str, int | None], float]:
    """(method, label budget) -> seconds expected for a cell."""
    n = state.plan.n_items
    found: dict[tuple[str, int | None], float] = {}
    for e in state.estimates:
        found |= {(e.method, budget): seconds + n * e.item for budget, seconds in e.fit.items()}
        found.setdefault((e.method, None), n * e.item)
    return found


def _looks(contest: Contest, planned: Plan, metric: str) -> Looks:
    task = contest.task
    built = build("metric", contest.request.metric or metric, Context(labels=task.labels, seed=0), contest.request.plugins)
    return Looks(built, limited(task.test, planned.n_items), planned.budgets[-1], planned.seeds, contest.request.margin)


def _answered(contest: Contest, state: State, done: Run, metric: str) -> Decision:
    paths = paths_of(done.folder)
    stored = StoredRun.open(done.folder)
    timing = {_key(cell): cell for cell in done.timing["cells"]}
    order = [name_of(entry) for entry in contest.methods if name_of(entry) in paths]
    found = answer(
        stored,
        timing,
        metric,
        contest.sides,
        margin=contest.request.margin,
        dev=_on_dev(contest, state, paths),
        query_s=(state.ended or {}).get("query_s"),
        prices=contest.prices,
        order=order,
        plugins=contest.request.plugins,
    )
    decision = Decision(state.plan, contest, done, found, _notes(contest, state, done))
    state.write(**decision.as_dict())
    write_page(done)  # again, with the answer on top
    return decision


def _key(cell: Mapping[str, Any]) -> str:
    return Cell(cell["model"], cell["task"], cell["method"], cell["budget"], cell["seed"]).key


def _notes(contest: Contest, state: State, done: Run) -> tuple[str, ...]:
    ended, planned = state.ended or {}, state.plan
    notes = []
    n_draws = len({cell["seed"] for cell in done.document["cells"] if cell["seed"] is not None})
    if ended.get("why") == SETTLED:
        notes.append(f"The run ended after {n_draws} of {planned.seeds} draws of the labels, since the answer was settled.")
    elif ended.get("why") == TIME:
        n = ended.get("missing", len(ended["left_out"]))
        notes.append(f"The time was up before {n} of the planned {'cells' if n > 1 else 'cell'} of the comparison could be done.")
    if planned.n_items < len(contest.task.test):
        n_test = len(contest.task.test)
        notes.append(
            f"The time was enough for {planned.n_items:,} of the {n_test:,} test items; more minutes take more of them, and narrow every interval."
        )
    if planned.left_out:
        names = " and ".join(name for name, _ in planned.left_out)
        notes.append(
            f"For want of time {names} did not compete; more minutes would include {'them' if len(planned.left_out) > 1 else 'it'}."
        )
    return tuple(notes)


def _on_dev(
    contest: Contest, state: State, paths: Mapping[str, str]
) -> tuple[Sequence[Example], Mapping[str, Sequence[Prediction]]] | None:
    """The items to choose on, and what each method's stored predictor says of them; kept, so that it is asked once. None without any."""
    items = limited(contest.task.dev, state.plan.n_items)
    if not items:
        return None
    path = state.folder / DEV
    known: dict[str, list[str]] = json.loads(read_text(path)) if path.is_file() else {}
    for name, place in paths.items():
        if name not in known:
            predictor = load(state.folder / place, lm=contest.lm, plugins=contest.request.plugins)
            known[name] = [to_json(prediction) for prediction in predictor.predict(items)]
            write_text(path, json.dumps(known))
    return items, {name: [from_json(text) for text in known[name]] for name in paths}
