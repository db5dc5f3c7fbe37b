"""The rule of the decision: what it chooses, what it reports, and that the report is not optimistic."""

import numpy as np
import pytest

from icl.errors import InputError
from icl.evaluate.choice import choose
from icl.evaluate.metrics.macro_f1 import MacroF1
from icl.evaluate.paired import Side, side
from icl.seeds import seed_for
from icl.values import Example, Prediction

UIDS = [f"item-{n}" for n in range(400)]


def rng(seed=0):
    return np.random.default_rng(seed)


def table(generator, abilities, n=400, n_runs=3):
    """Methods right with these probabilities, over items of shared difficulty."""
    difficulty = generator.random(n)
    return {
        name: Side((difficulty + generator.normal(0, 0.15, (n_runs, n)) < ability).astype(float)) for name, ability in abilities.items()
    }


def test_a_clear_winner():
    found = choose(table(rng(1), {"a": 0.9, "b": 0.6, "c": 0.3}), UIDS, {"a": 3.0, "b": 1.0, "c": 0.1}, rng())
    assert (found.winner, found.leader, found.settled, found.chosen_on) == ("a", "a", True, "halves")
    assert found.halves == ("a", "a")
    assert found.to_settle == ""
    assert [rival.name for rival in found.rivals] == ["a", "b", "c"]
    assert [rival.level for rival in found.rivals] == [True, False, False]
    assert found.low < found.value < found.high
    assert found.between is None
    assert found.optimistic == found.rivals[0].mean


def test_of_equals_the_cheapest():
    tables = table(rng(2), {"a": 0.55, "b": 0.55, "c": 0.2})
    flipped = rng(3).random((3, 400)) < 0.06
    tables["b"] = Side(np.where(flipped, 1 - tables["a"].values, tables["a"].values))
    for costs, winner in (({"a": 3.0, "b": 1.0, "c": 0.1}, "b"), ({"a": 1.0, "b": 3.0, "c": 0.1}, "a"), ({"b": 3.0}, "b")):
        found = choose(tables, UIDS, costs, rng())
        assert found.winner == winner
        assert found.settled
    assert choose(tables, UIDS, {}, rng()).winner == found.leader


def test_a_difference_within_the_margin_does_not_matter():
    """A tiny difference that is certain: 1 % less at a tenth of the price."""
    generator = rng(3)
    best = generator.random((3, 400))
    tables = {"dear": Side(best), "cheap": Side(best - 0.01)}
    costs = {"dear": 10.0, "cheap": 1.0}
    assert choose(tables, UIDS, costs, rng()).winner == "dear"
    assert choose(tables, UIDS, costs, rng(), margin=0.02).winner == "cheap"
    assert choose(tables, UIDS, costs, rng(), margin=0.005).winner == "dear"


def test_costs_that_are_nearly_the_same_do_not_decide():
    tables = table(rng(2), {"a": 0.55, "b": 0.55})
    flipped = rng(3).random((3, 400)) < 0.06
    tables["b"] = Side(np.where(flipped, 1 - tables["a"].values, tables["a"].values))
    costs = {"a": 1.1, "b": 1.0}
    assert choose(tables, UIDS, costs, rng()).leader == "a"
    assert choose(tables, UIDS, costs, rng()).winner == "b"
    assert choose(tables, UIDS, costs, rng(), same_cost=1.25).winner == "a"
    assert choose(tables, UIDS, {"a": 1.3, "b": 1.0}, rng(), same_cost=1.25).winner == "b"


def test_unscored_counts_as_wrong_for_the_choice_alone():
    generator = rng(4)
    right = (generator.random((1, 400)) < 0.9).astype(float)
    gone = right.copy()
    gone[:, generator.random(400) < 0.3] = np.nan
    plain = (generator.random((1, 400)) < 0.8).astype(float)
    found = choose({"silent": Side(gone), "plain": Side(plain)}, UIDS, {}, rng())
    assert found.winner == found.leader == "plain"
    assert found.n_unscored == np.isnan(gone).sum()
    only = choose({"silent": Side(gone)}, UIDS, {}, rng())
    assert only.optimistic == pytest.approx(np.nansum(gone) / 400)
    assert only.value == pytest.approx(np.nanmean(gone), abs=0.01)


def test_halves_that_disagree_are_not_settled():
    fold = np.array([seed_for(0, "half", uid) % 2 for uid in UIDS])
    good, bad = np.ones((2, 400)), np.zeros((2, 400))
    tables = {"a": Side(np.where(fold == 0, good, bad)), "b": Side(np.where(fold == 1, good, bad))}
    found = choose(tables, UIDS, {"a": 1.0, "b": 2.0}, rng())
    assert found.halves == ("a", "b")
    assert not found.settled
    assert found.value == 0  # each chosen where it is right, reported where it is wrong
    assert found.optimistic >= 0.49
    assert found.between.value == pytest.approx((fold == 0).mean() - (fold == 1).mean())
    assert found.to_settle.startswith("a or b: ")
    assert "a margin of" in found.to_settle


def test_halves_too_small_to_tell_are_not_settled_if_all_items_can_tell():
    """Each half chooses the cheap method, since so few items do not show what all of them do."""
    for seed in range(300):
        found = choose(table(rng(seed), {"dear": 0.75, "cheap": 0.6}, 60, 2), UIDS[:60], {"dear": 9.0, "cheap": 1.0}, rng())
        if found.halves == ("cheap", "cheap") and not found.rivals[1].level:
            break
    else:
        raise AssertionError("no such case was drawn")
    assert (found.winner, found.settled) == ("dear", False)
    assert found.between.value > 0
    # All 60 tell them apart, and each half must: no more would say nothing.
    assert (found.between.more_items, found.between.more_runs) == (0, 0)
    assert found.to_settle.startswith("dear or cheap: about 60 more test items, or 60 items of their own to choose on, or a margin of 0.3")


def test_a_figure_without_any_spread_has_an_interval():
    found = choose({"a": Side(np.ones((3, 40)))}, UIDS[:40], {}, rng())
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.85 < found.low < 0.95


def test_on_dev_items():
    tables = table(rng(5), {"a": 0.7, "b": 0.6}, 300)
    dev = table(rng(6), {"a": 0.5, "b": 0.9}, 100)
    found = choose(tables, UIDS[:300], {}, rng(), dev=dev)
    assert (found.winner, found.chosen_on, found.settled, found.halves) == ("b", "dev", True, None)
    assert found.value == pytest.approx(tables["b"].values.mean())
    assert found.optimistic == pytest.approx(dev["b"].values.mean())


def test_less_is_better():
    generator = rng(7)
    tables = {name: Side(generator.normal(mean, 0.5, (3, 400)), bounds=None) for name, mean in (("low", 1.0), ("high", 2.0))}
    found = choose(tables, UIDS, {}, rng(), higher_is_better=False)
    assert found.winner == "low"
    tables["low"].values[:, :300] = np.nan
    assert choose(tables, UIDS, {}, rng(), higher_is_better=False).winner == "high"


def test_any_metric():
    generator, labels = rng(8), ("x", "y")
    examples = [Example(uid, {}, labels[n % 2]) for n, uid in enumerate(UIDS)]

    def run(right):
        return [Prediction(e.uid, e.target if generator.random() < right else labels[int(generator.integers(2))]) for e in examples]

    tables = {name: side(MacroF1(), [run(right) for _ in range(2)], examples) for name, right in (("a", 0.9), ("b", 0.5))}
    found = choose(tables, UIDS, {}, rng())
    assert found.winner == "a"
    everything = np.arange(400)[None]
    assert found.optimistic == pytest.approx(np.mean([f(everything)[0] for f in tables["a"].functions]))
    assert found.value == pytest.approx(found.optimistic, abs=0.02)


def test_the_report_is_honest_and_the_maximum_is_not():
    """Twelve methods that are all equally good: the best of them looks better than it is, the reported figure does not."""
    generator, honest, optimistic = rng(9), [], []
    for _ in range(25):
        # Without a cost the leader is chosen.
        tables = {str(n): Side((generator.random((1, 60)) < 0.7).astype(float)) for n in range(12)}
        found = choose(tables, UIDS[:60], {}, generator)
        honest.append(found.value)
        optimistic.append(found.optimistic)
    assert np.mean(honest) == pytest.approx(0.7, abs=0.03)
    assert np.mean(optimistic) > 0.76


def test_the_same_generator_gives_the_same_choice():
    tables = table(rng(1), {"a": 0.7, "b": 0.69})
    assert choose(tables, UIDS, {}, rng(3)) == choose(tables, UIDS, {}, rng(3))


def test_what_does_not_fit_is_said_at_once():
    tables = table(rng(1), {"a": 0.7, "b": 0.69}, 10)
    with pytest.raises(InputError, match="a has 10 items, there are 9 uids") as wrong:
        choose(tables, UIDS[:9], {"c": 1.0}, rng(), dev={"a": tables["a"]})
    assert len(wrong.value.problems) == 4
    with pytest.raises(InputError, match="cannot be halved"):
        choose({"a": Side(np.ones((1, 1)))}, UIDS[:1], {}, rng())
