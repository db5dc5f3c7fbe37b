"""From minutes to a plan: never more than there is time for, by the estimate, and with more time nothing becomes less."""

import itertools

import pytest

from icl.evaluate.planning import STEPS, Estimate, Offer, label_budgets, ladder, plan, smallest

BUDGETS = (16, 64, 256, 1024)


def estimate(name, item, fit=0.0, optional=False, labels=True, money=0.0):
    return Estimate(name, item, {b: fit * b for b in BUDGETS} if labels else {}, money, optional)


CHEAP = (estimate("majority", 0.001), estimate("zero_shot", 0.05, labels=False), estimate("knn-8", 0.3))
DEAR = estimate("finetune", 0.1, fit=0.3, optional=True)


def offer(*estimates, **more):
    return Offer(estimates or (*CHEAP, DEAR), BUDGETS, **{"n_test": 500, "n_train": 5000, "embed": 0.01, "overhead": 5.0, **more})


@pytest.mark.parametrize(
    "given", [offer(), offer(*CHEAP), offer(n_test=60), offer(seeds=3), offer(fixed_budgets=True), offer(n_dev=100)], ids=range(6)
)
def test_more_minutes_are_never_less_and_the_estimate_is_kept(given):
    plans = [(seconds, plan(given, seconds)) for seconds in (1, 5, 10, 20, 40, 60, 90, 150, 300, 600, 1200, 3600, 20_000, 10**6)]
    found = [(seconds, p) for seconds, p in plans if p is not None]
    assert plans[0][1] is None  # the overhead alone takes longer
    assert len({p.n_items * len(p.methods) * len(p.budgets) * p.seeds for _, p in found}) > 3
    for seconds, p in found:
        assert p.seconds <= seconds
    for (_, a), (_, b) in itertools.pairwise(found):
        assert a.n_items <= b.n_items
        assert set(a.budgets) <= set(b.budgets)
        assert a.seeds <= b.seeds
        assert set(a.methods) <= set(b.methods)
    assert found[-1][1].methods == tuple(e.method for e in given.estimates)


def test_a_plan_costs_what_its_parts_cost():
    given = offer(*CHEAP, n_dev=30)
    found = next(p for p in ladder(given) if p.n_items == 50 and len(p.budgets) == 2)
    assert (found.budgets, found.seeds) == ((64, 256), 1)
    runs = 2 * 50 + 30  # two budgets, and the items to choose on
    zero_shot = 50 + 30
    assert found.seconds == pytest.approx(5 + 0.01 * (50 + 30 + 256) + runs * 0.301 + zero_shot * 0.05)


def test_where_prompts_are_cheap_all_methods_join_before_there_are_many_draws():
    """On a fast machine everything but training is quick: ten draws of prompts alone would say nothing of training."""
    fast = (estimate("majority", 0.001), estimate("zero_shot", 0.001, labels=False), estimate("knn-8", 0.002))
    steps = list(
        ladder(
            offer(
                *fast,
                estimate("finetune", 0.02, fit=0.05, optional=True),
                estimate("classifier", 0.001, fit=0.02, optional=True),
                overhead=1.0,
            )
        )
    )
    first = {len(step.methods): step for step in reversed(steps)}
    assert [(first[n].n_items, first[n].seeds) for n in (4, 5)] == [(150, 3), (150, 3)]
    assert max(step.seeds for step in steps if len(step.methods) == 3) == 3
    assert steps[-1].seeds == 10


def test_an_expensive_method_waits_until_it_takes_no_more_than_the_others_together():
    without, with_it = offer(*CHEAP), offer()
    short = plan(with_it, 100)
    assert "finetune" not in short.methods
    assert short.left_out[0][0] == "finetune"
    # What it would take beside this plan: its fits and its items.
    fits = 0.3 * sum(short.budgets) * short.seeds
    assert short.left_out[0][1] == pytest.approx(
        fits + 0.1 * short.n_items * len(short.budgets) * short.seeds + 0.01 * (short.n_items + short.seeds * short.budgets[-1])
    )
    for step in ladder(with_it):
        if "finetune" in step.methods:
            alone = next(p for p in ladder(without) if (p.n_items, p.budgets, p.seeds) == (step.n_items, step.budgets, step.seeds))
            assert step.seconds <= (5 if (step.n_items, step.seeds) >= (150, 3) else 2) * alone.seconds
            break
    else:
        raise AssertionError("it never joins")


def test_a_method_that_is_too_dear_for_every_step_comes_last():
    found = list(ladder(offer(*CHEAP, estimate("finetune", 0.1, fit=1e4, optional=True))))
    assert "finetune" not in found[-2].methods
    assert found[-2].n_items == 500
    assert found[-1].methods[-1] == "finetune"


def test_what_the_user_fixed_stays():
    fixed = offer(fixed_budgets=True, seeds=2)
    assert {(p.budgets, p.seeds) for p in ladder(fixed)} == {(BUDGETS, 2)}
    assert smallest(fixed).n_items == STEPS[0][0]
    assert smallest(offer(n_test=12)).n_items == 12


def test_money_is_counted():
    found = next(iter(ladder(offer(estimate("knn-8", 0.3, money=0.5), estimate("zero_shot", 0.1, labels=False, money=0.1)))))
    assert found.money == pytest.approx(20 * 0.5 + 20 * 0.1)


@pytest.mark.parametrize(
    ("n_train", "n_labels", "budgets"),
    [
        (5452, 6, (16, 64, 256, 1024)),
        (10003, 77, (256, 1024)),
        (70, 2, (16, 64)),
        (100, 2, (16, 64, 100)),
        (12, 2, (12,)),
        (900, 3, (16, 64, 256, 900)),
        (3000, 2000, (3000,)),
    ],
)
def test_label_budgets_have_an_example_of_each_label(n_train, n_labels, budgets):
    assert label_budgets(n_train, n_labels) == budgets


def test_label_budgets_that_are_given_are_taken():
    assert label_budgets(100, 2, [64, 8, 64]) == (8, 64)
