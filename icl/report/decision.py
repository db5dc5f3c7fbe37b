"""A decision in words, as a table, and for a notebook."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..evaluate.answer import Cost, Findings
from ..evaluate.choice import Rival
from ..evaluate.planning import Plan
from .console import aligned
from .notebook import decision_html
from .page_answer import Answer
from .plots import Crossing

_NOTE = "value [95 % interval]; * highest at the largest label budget, < to use: the cheapest per query of those that may be as good"


def paragraph(found: Findings, notes: Sequence[str] = ()) -> str:
    """The answer in one paragraph of plain words. notes: sentences about the run itself, such as why it ended early."""
    return " ".join(_said(found, notes))


def page_answer(found: Findings, notes: Sequence[str] = ()) -> Answer:
    """The answer for the top of a page: the same words in short paragraphs, with key figures."""
    choice, crossing_at, even = found.choice, found.crossover, found.break_even
    cost = found.costs[choice.winner]
    figures = []
    if choice.value is not None:
        whose = choice.winner if choice.settled or choice.halves is None else "what the halves chose"
        figures.append(
            (f"{found.metric} of {whose}", f"{_value(found, choice.value)}{_interval(found, choice.low, choice.high, words=False)}")
        )
    if crossing_at is not None:
        first, last = crossing_at.first, crossing_at.last
        ends = " to ".join(dict.fromkeys(_labels(end, first, last) for end in crossing_at.interval))
        if crossing_at.estimate is None:
            at = f"beyond {last:,} labels"
        else:
            at = f"at {first:,} or fewer labels" if crossing_at.estimate <= first else f"from {crossing_at.estimate:,.0f} labels on"
        figures.append(("training wins over the best prompt", at if ends in at else f"{at} [{ends}]"))
    figures.append(("a query takes", _seconds(cost.item_s) + (f", {_money(cost.item_money)} to pay" if cost.item_money else "")))
    if even is not None and not math.isinf(even.with_reuse):
        whole = f" ({_queries(even.without_reuse)} if every prompt is computed whole)" if even.without_reuse != even.with_reuse else ""
        figures.append(("training has paid for itself after", f"{even.with_reuse:,.0f} queries{whole}"))
    if found.budget and cost.fit_s >= 0.05:
        figures.append(("learning from the labels takes", _seconds(cost.fit_s)))
    title = f"Use {choice.winner}" if choice.settled or choice.halves is None else "Not settled"
    crossing = None
    if crossing_at is not None:
        crossing = Crossing(crossing_at.estimate, *crossing_at.interval, _crossover(found))
    return Answer(title, _said(found, notes), figures, _rows(found), _NOTE, found.metric, crossing)


def _said(found: Findings, notes: Sequence[str]) -> list[str]:
    """The sentences of the answer, grouped by what they are about."""
    parts = [
        _winner(found),
        _same_for_all(found),
        _against(found),
        _optimism(found),
        _crossover(found),
        _cost(found),
        _change(found),
        _unscored(found),
        *notes,
    ]
    return [part for part in parts if part]


def _winner(found: Findings) -> str:
    choice = found.choice
    labels = f"with {found.budget:,} labels" if found.budget is not None else "without labels"
    runs = f", {found.n_runs} draws of the labels" if found.n_runs > 1 else ", one draw of the labels" if found.budget else ""
    size = f"({found.n_items:,} test items{runs})"
    if choice.value is None:
        figure = "no test item could be scored"
    else:
        figure = f"{_value(found, choice.value)}{_interval(found, choice.low, choice.high)}"
    where = "the test items" if choice.chosen_on == "dev" else "test items that it was not chosen on"
    if choice.settled or choice.halves is None:
        return f"Use {choice.winner}: {labels} its {found.metric} on {where} is {figure} {size}."
    one, other = choice.halves
    if one == other:
        why = f"each half of the test items alone chooses {one}, which is cheaper and which so few cannot tell from the best"
    else:
        why = f"half of the test items chooses {one}, the other half {other}"
    return f"Not settled: {why}; all of them choose {choice.winner}. The method that one half chooses has, {labels}, the {found.metric} {figure} on the other half {size}."


def _same_for_all(found: Findings) -> str:
    if found.choice.winner != "majority":
        return ""
    return "It gives every query the same answer: nothing that was compared is known to do better."


def _against(found: Findings) -> str:
    choice = found.choice
    rivals = {rival.name: rival for rival in choice.rivals}
    if len(rivals) == 1:
        return "Nothing else was compared."
    winner, leader = rivals[choice.winner], rivals[choice.leader]
    if choice.winner != choice.leader:
        gap = _gap(found, winner)
        why = "could be nothing" if not winner.against.differs else f"lies within the margin of {_points(found, found.margin)}"
        cheaper = _times_cheaper(found, choice.winner, choice.leader)
        if _is_nothing(found, winner):
            return f"{leader.name} has the same figure ({gap}), and {winner.name} {cheaper}."
        return f"{leader.name} has the highest figure, {gap} higher: a difference that {why}, and {winner.name} {cheaper}."
    second = next(rival for rival in choice.rivals if rival.name != winner.name)
    gap = _gap(found, second)
    if _is_nothing(found, second):
        return f"{second.name} has the same figure ({gap}), and is not cheaper."
    if second.level:
        return f"The next best, {second.name}, is {gap} behind, which could be nothing, and is not cheaper."
    return f"The next best, {second.name}, is {gap} behind."


def _is_nothing(found: Findings, rival: Rival) -> bool:
    """Whether a difference is 0 as it is written."""
    return rival.against.value is not None and abs(rival.against.value) < 5e-4


def _gap(found: Findings, rival: Rival) -> str:
    """How far a method is behind the leader, with its interval."""
    against = rival.against
    sign = -1 if found.higher_is_better else 1
    if against.value is None or against.low is None or against.high is None:
        return "an unknown difference"
    low, high = sorted((sign * against.low, sign * against.high))
    return f"{_points(found, sign * against.value)} [{_points(found, low, unit=False)}, {_points(found, high, unit=False)}]"


def _times_cheaper(found: Findings, name: str, other: str) -> str:
    costs = [_unit_cost(found, found.costs[n]) for n in (name, other)]
    if costs[0] <= 0 or costs[1] <= 0:
        return f"costs less per query ({_price(found, costs[0])} instead of {_price(found, costs[1])})"
    times = costs[1] / costs[0]
    if times < 1:
        return "costs no more"
    factor = f"{times:,.0f}" if times >= 10 else f"{times:.1f}"
    return f"costs {factor} times less per query ({_price(found, costs[0])} instead of {_price(found, costs[1])})"


def _optimism(found: Findings) -> str:
    choice = found.choice
    if choice.value is None:
        return ""
    better = (choice.optimistic - choice.value) * (1 if found.higher_is_better else -1)
    if better < 5e-4:  # halves of other sizes may say more than all items together
        return ""
    return f"(The plain maximum over all methods, {_value(found, choice.optimistic)}, is optimistic.)"


def _crossover(found: Findings) -> str:
    crossing = found.crossover
    if found.prompt is None or found.trained is None:
        return ""
    if crossing is None:
        return "From how many labels on training wins cannot be told from one label budget."
    low, high = crossing.interval
    low_s, high_s = (_labels(end, crossing.first, crossing.last) for end in (low, high))
    ends = f"95 % interval {low_s}" + (f" to {high_s}" if high_s != low_s else "")
    if crossing.estimate is None:
        return f"Up to {crossing.last:,} labels no trained method is above the best prompt ({ends})."
    if crossing.estimate <= crossing.first:
        return f"Training is above the best prompt at every label budget measured, from {crossing.first:,} labels on ({ends})."
    return f"Training wins over the best prompt from about {crossing.estimate:,.0f} labels on ({ends})."


def _labels(n: float, first: int, last: int) -> str:
    if math.isinf(n):
        return f"beyond {last:,}"
    return f"{first:,} or fewer" if n <= first else f"{n:,.0f}"


def _cost(found: Findings) -> str:
    choice = found.choice
    cost = found.costs[choice.winner]
    said = f"A query of {choice.winner} takes {_seconds(cost.item_s)}"
    if cost.item_money:
        said += f" and costs {_money(cost.item_money)}"
    said += f", learning from the labels {_seconds(cost.fit_s)}" if found.budget and cost.fit_s >= 0.05 else ""
    even = found.break_even
    if even is None or found.trained is None or found.prompt is None:
        return said + "."
    after = even.with_reuse
    if math.isinf(after):
        even_s = f"training {found.trained} never pays against {found.prompt}"
    elif after == 0:
        even_s = f"{found.trained} is cheaper than {found.prompt} from the first query"
    else:
        even_s = (
            f"training {found.trained} has paid for itself against {found.prompt} after {after:,.0f} quer{'y' if after == 1 else 'ies'}"
        )
    others = {"with every prompt computed whole": even.without_reuse, "at the provider's cache prices": even.with_cache}
    said_too = [f"{_queries(n)} {how}" for how, n in others.items() if n is not None and n != after]
    even_s += f" ({', '.join(said_too)})" if said_too else ""
    return f"{said}; in {'money' if even.unit == 'money' else 'time on this machine'}, {even_s}."


def _queries(n: float) -> str:
    """After how many: `math.inf` is never."""
    return "never" if math.isinf(n) else f"{n:,.0f}"


def _change(found: Findings) -> str:
    choice = found.choice
    parts = []
    if choice.to_settle:
        one_or_other, _, ways_to = choice.to_settle.rstrip(".").partition(": ")
        parts.append(f"{one_or_other} would be settled by {ways_to}" if ways_to else choice.to_settle.rstrip("."))
    elif (rival := _closest(found)) is not None:
        ways = [f"{rival.against.more_items:,} more test items"] if rival.against.more_items else []
        ways += [f"{rival.against.more_runs} more draws"] if rival.against.more_runs else []
        if ways:
            other = choice.leader if rival.name == choice.winner else choice.winner
            parts.append(f"{' or '.join(ways)} would tell {rival.name} from {other}, if the difference is what was seen")
    gains = []
    for gain in found.gains:
        up = gain.value if found.higher_is_better else -gain.value
        low, high = sorted((gain.low, gain.high) if found.higher_is_better else (-gain.low, -gain.high))
        interval = f"[{_points(found, low, unit=False)}, {_points(found, high, unit=False)}]"
        gains.append(f"{gain.method} {_points(found, up)} {interval}")
    if gains:
        parts.append(f"{found.gains[0].more:,} more labels may bring {' and '.join(gains)}")
    return f"What could change the answer: {'; '.join(parts)}." if parts else ""


def _closest(found: Findings) -> Rival | None:
    """The method that is hardest to tell from the leader, of those that are not told apart."""
    open_ = [r for r in found.choice.rivals if r.name != found.choice.leader and r.against.value is not None and not r.against.differs]
    if found.choice.winner != found.choice.leader:
        open_ = [r for r in open_ if r.name == found.choice.winner] or open_
    return next(iter(open_), None)


def _unscored(found: Findings) -> str:
    n = found.choice.n_unscored
    if not n:
        return ""
    which, they = ("predictions", "they were") if n > 1 else ("prediction", "it was")
    return f"{n:,} {which} could not be scored; for the choice alone {they} taken as wrong, from the figures {they} left out."


def decision_table(found: Findings) -> str:
    """A row per method: its figure at every label budget, the difference to the leader at the largest, and what it costs."""
    return "\n".join([*aligned(_rows(found)), _NOTE])


def _rows(found: Findings) -> list[list[str]]:
    """The table, its head first."""
    budgets: list[int | None] = [*sorted({p.budget for p in found.points if p.budget is not None})] or [None]
    unit = " in %" if found.is_share else ""
    heads = [f"{found.metric}{unit}", *(f"{b:,} labels" if b is not None else "no labels" for b in budgets)]
    heads += ["against the leader", "s per query", "s to learn"] + (["paid per query"] if found.in_money else [])
    rows = [heads]
    ranked = [rival.name for rival in found.choice.rivals]
    rivals = {rival.name: rival for rival in found.choice.rivals}
    for name in [*ranked, *dict.fromkeys(p.method for p in found.points if p.method not in ranked)]:
        mine = {p.budget: p for p in found.points if p.method == name}
        marks = (" *" if name == found.choice.leader else "") + (" <" if name == found.choice.winner else "")
        row = [f"{name}{marks}"]
        for budget in budgets:
            point = mine.get(budget, mine.get(None))
            if point is None:
                row.append("")
            elif point.value is None:
                row.append("none scored")
            else:
                row.append(f"{_number(found, point.value)}{_interval(found, point.low, point.high, words=False)}")
        cost = found.costs.get(name)
        against = rivals[name].against if name in rivals else None
        row.append("" if against is None or name == found.choice.leader or against.value is None else _signed(found, against))
        row += ["", ""] if cost is None else [f"{cost.item_s:.4f}", f"{cost.fit_s:.1f}"]
        if found.in_money:
            row.append("" if cost is None or cost.item_money is None else _money(cost.item_money))
        rows.append(row)
    return rows


def _signed(found: Findings, against: object) -> str:
    value, low, high = (getattr(against, name) for name in ("value", "low", "high"))
    return f"{_points(found, value, unit=False)} [{_points(found, low, unit=False)}, {_points(found, high, unit=False)}]"


def plan_lines(plan: Plan, minutes: float, *, more: bool = False) -> list[str]:
    """What will be compared, and how long it will take. more: draws of the labels are added while there is time."""
    budgets = ", ".join(f"{b:,}" for b in plan.budgets)
    draws = f"{plan.seeds} draw{'s' if plan.seeds > 1 else ''} of the labels{', more if time is left' if more else ''}"
    money = f"; about {plan.money:,.4f} to pay" if plan.money else ""
    lines = [
        f"plan: {', '.join(plan.methods)}",
        f"      {plan.n_items:,} test items, label budgets {budgets}, {draws}: about {_minutes(plan.seconds)} of {minutes:g} min{money}",
    ]
    lines += [f"      left out: {name}, which would take {_minutes(seconds)} more" for name, seconds in plan.left_out]
    return lines


def as_html(found: Findings, text: str) -> str:
    """For a notebook: the answer and the table. Everything is escaped."""
    return decision_html(page_answer(found)._replace(paragraphs=[text]), _rows(found), _NOTE)


def _unit_cost(found: Findings, cost: Cost) -> float:
    return (cost.item_money or 0.0) if found.in_money else cost.item_s


def _price(found: Findings, cost: float) -> str:
    return _money(cost) if found.in_money else _seconds(cost)


def _money(cost: float) -> str:
    """Per query, with two digits at least that say something."""
    return f"{cost:.6f}" if cost >= 1e-4 or cost == 0 else f"{cost:.2g}"


def _number(found: Findings, value: float) -> str:
    return f"{value * 100:.1f}" if found.is_share else f"{value:.3f}"


def _value(found: Findings, value: float) -> str:
    return f"{value * 100:.1f} %" if found.is_share else f"{value:.3f}"


def _points(found: Findings, value: float, *, unit: bool = True) -> str:
    if not found.is_share:
        return f"{value + 0.0:.3f}"
    shown = round(value * 100, 1) + 0.0  # never -0.0
    return f"{shown:.1f}{' points' if unit else ''}"


def _interval(found: Findings, low: float | None, high: float | None, *, words: bool = True) -> str:
    if low is None or high is None:
        return ""
    if words:
        return f", 95 % interval {_number(found, low)} to {_value(found, high)}"
    return f" [{_number(found, low)}, {_number(found, high)}]"


def _seconds(seconds: float) -> str:
    if seconds >= 90:
        return _minutes(seconds)
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
