"""Draw by draw, in the time there is, or until the answer is settled."""

import time

import numpy as np
import pytest

from icl.evaluate.cells import Cell
from icl.evaluate.pace import SETTLED, TIME, Looks, Pace, UntilSettled, settled, worth_of_items
from icl.evaluate.store import RunStore
from icl.plugins import Context, build
from icl.values import Example, Prediction


def cell(method, budget, seed):
    return Cell(None, "t", method, budget, seed)


CELLS = [cell(m, b, s) for m in ("a", "b") for b in (16, 64) for s in range(3)] + [cell("zero", None, None)]
SECONDS = {("a", 16): 1.0, ("a", 64): 2.0, ("b", 16): 1.0, ("b", 64): 3.0, ("zero", None): 0.5}


@pytest.fixture
def store(tmp_path):
    with RunStore.open(tmp_path / "run") as opened:
        yield opened


class Clock:
    """Cells take as long as they are said to, by a clock that stands still otherwise."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def run(self, pace, store, takes, cells=CELLS, stop_after=None):
        done = []
        todo = [c for c in cells if c.key not in store.finished()]
        for each in pace(todo, store):
            self.now += takes(each)
            store.finish_cell(each.key, {}, {"fit_s": takes(each), "predict_s": 0.0})
            done.append(each)
            if len(done) == stop_after:
                break
        return done


def expected(each):
    return SECONDS[each.method, each.budget]


def test_a_draw_is_whole_before_the_next_and_the_largest_budget_comes_first(monkeypatch, store):
    done = Clock(monkeypatch).run(Pace(SECONDS, 1000, 100.0), store, expected)
    assert set(done) == set(CELLS)
    assert [(c.method, c.budget) for c in done[:5]] == [("zero", None), ("a", 64), ("b", 64), ("a", 16), ("b", 16)]
    assert [c.seed for c in done[5:]] == [1] * 4 + [2] * 4


def test_a_draw_that_would_not_fit_is_not_begun(monkeypatch, store):
    pace = Pace(SECONDS, 16.0, 100.0)
    done = Clock(monkeypatch).run(pace, store, expected)
    assert {c.seed for c in done} == {0, 1, None}  # 7.5 s and 7 s; a third draw would end at 21.5 s
    assert pace.why == TIME


def test_draws_beyond_the_plan_fill_the_time_that_is_left(monkeypatch, store):
    clock, pace = Clock(monkeypatch), Pace(SECONDS, 16.0, 100.0, planned=1, reserve=0.1)
    done = clock.run(pace, store, lambda c: 0.8 * expected(c))
    assert {c.seed for c in done} == {0, 1, None}  # 6 s and 5.6 s; a third draw would end at 17.2 s
    assert pace.why is None
    assert set(pace.counted) == set(done)


def test_slow_cells_count_as_slow_from_then_on(monkeypatch, store):
    clock, pace = Clock(monkeypatch), Pace(SECONDS, 16.0, 100.0)
    done = clock.run(pace, store, lambda c: 2 * expected(c))
    assert {c.seed for c in done} == {0, None}  # 15 s; a second draw would take 14 more
    assert pace.why == TIME
    assert clock.now - 100 <= 16 * 1.25


def test_in_the_first_draw_what_would_end_late_is_left_out(monkeypatch, store):
    pace = Pace({**SECONDS, ("b", 64): 50.0}, 10.0, 100.0)
    done = Clock(monkeypatch).run(pace, store, expected)
    assert cell("b", 64, 0) not in done
    assert {cell("a", 64, 0), cell("a", 16, 0), cell("b", 16, 0)} <= set(done)
    assert pace.why == TIME


def test_time_of_earlier_sessions_counts(monkeypatch, store):
    clock = Clock(monkeypatch)
    first = clock.run(Pace(SECONDS, 16.0, 100.0), store, expected, stop_after=7)
    clock.now = 5000.0  # another process, later
    rest = clock.run(Pace(SECONDS, 16.0, 5000.0), store, expected)
    assert {c.seed for c in (*first, *rest)} == {0, 1, None}


def test_a_run_that_came_to_its_end_adds_nothing(monkeypatch, store):
    left_out = frozenset(c.key for c in CELLS if c.seed == 2)
    done = Clock(monkeypatch).run(Pace(SECONDS, 1e6, 100.0, left_out=left_out), store, expected)
    assert {c.seed for c in done} == {0, 1, None}


def values(rng, share, n_runs=3, n=400):
    return (rng.random((n_runs, n)) < share).astype(float)


def test_settled_needs_all_pairs_with_the_best_and_two_draws():
    rng = np.random.default_rng(0)
    good, bad, close = values(rng, 0.9), values(rng, 0.4), values(rng, 0.88)
    assert settled({"good": good, "bad": bad}, 5, 0.0)
    assert not settled({"good": good[:1], "bad": bad[:1]}, 5, 0.0)
    assert not settled({"good": good, "bad": bad, "close": close}, 5, 0.0)
    assert settled({"good": good, "bad": bad, "zero": np.repeat(values(rng, 0.3, 1), len(good), axis=0)}, 5, 0.0)
    assert settled({"only": good}, 5, 0.0)


def test_a_method_that_missed_draws_is_judged_by_those_it_has():
    rng = np.random.default_rng(0)
    good, bad, close = values(rng, 0.9, 5), values(rng, 0.4, 5), values(rng, 0.88, 5)
    assert settled({"good": good, "bad": bad}, 8, 0.0)
    assert settled({"good": good, "bad": bad, "missed": bad[:4]}, 8, 0.0)
    assert not settled({"good": good, "bad": bad, "missed": close[:4]}, 8, 0.0)
    assert not settled({"good": good, "bad": bad, "missed": bad[:1]}, 8, 0.0)  # one draw of a method that learns says too little


def test_equals_within_the_margin_are_settled():
    one = values(np.random.default_rng(1), 0.7, 4, 2000)
    assert settled({"a": one, "b": one.copy()}, 5, 0.1)
    assert not settled({"a": one, "b": one.copy()}, 5, 0.0)


def test_the_run_ends_when_it_is_settled(monkeypatch, store):
    items = tuple(Example(f"{n}-0", {"text": str(n)}, "yes") for n in range(200))
    looks = Looks(lambda ps, es: np.array([float(p.answer == "yes") for p in ps]), items, 64, 3, 0.01)
    pace = Pace(SECONDS, 1000, time.perf_counter(), until=looks)
    done = []
    for each in pace([c for c in CELLS if c.method != "zero"], store):
        right = 190 if each.method == "a" else 40
        answers = [Prediction(e.uid, "yes" if n < right else "no") for n, e in enumerate(items)]
        store.add_unit(each.key, 0, 0, answers, 0.1)
        store.finish_cell(each.key, {}, {"fit_s": 0.0, "predict_s": 0.0})
        done.append(each)
    assert pace.why == SETTLED
    assert {c.seed for c in done} == {0, 1}


class Loss:
    """Lower is better."""

    higher_is_better = False

    def __call__(self, predictions, examples):
        return np.array([float(p.answer != "yes") for p in predictions])


def test_the_best_of_a_metric_of_which_less_is_better(store):
    """Two that are close to each other, and one far behind: the two must be told apart too."""
    items = tuple(Example(f"{n}-0", {"text": str(n)}, "yes") for n in range(200))
    for method, right in (("a", 150), ("b", 148), ("z", 10)):
        for seed in (0, 1):
            done = cell(method, 64, seed)
            store.add_unit(
                done.key, 0, 0, [Prediction(e.uid, "yes" if (n + seed) % 200 < right else "no") for n, e in enumerate(items)], 0.1
            )
            store.finish_cell(done.key, {}, {})
    assert not Looks(Loss(), items, 64, 5, 0.0).settled(store)
    assert Looks(Loss(), items, 64, 5, 0.0).n_draws(store) == 2


class Dear(Loss):
    """Finds out at a cost what an answer is worth, once."""

    def __init__(self):
        self.verdicts, self.n_asked = {}, 0

    def __call__(self, predictions, examples):
        for prediction in predictions:
            if prediction.uid not in self.verdicts:
                self.n_asked += 1
                self.verdicts[prediction.uid] = 1.0
        return np.array([self.verdicts[p.uid] for p in predictions])


def test_a_later_session_looks_without_asking_again(store):
    items = tuple(Example(f"{n}-0", {"text": str(n)}, "yes") for n in range(4))
    for method, seed in (("a", 0), ("a", 1), ("b", 0), ("b", 1)):
        done = cell(method, 64, seed)
        store.add_unit(done.key, 0, 0, [Prediction(e.uid, "yes") for e in items], 0.1)
        store.finish_cell(done.key, {}, {})
    first, second = Dear(), Dear()
    answers = [Looks(metric, items, 64, 5, 0.0).settled(store) for metric in (first, second)]
    assert answers == [False, False]
    assert (first.n_asked, second.n_asked) == (4, 0)


def test_methods_that_run_once_leave_nothing_out(store):
    once = Cell(None, "t", "zero", None, None)
    store.add_unit(once.key, 0, 0, [Prediction("0-0", "yes")], 0.1)
    store.finish_cell(once.key, {}, {})
    looks = Looks(Loss(), (Example("0-0", {"text": "0"}, "yes"),), "all", 5, 0.01, "t")
    assert UntilSettled({"t": looks}).ended(store) == []
    drawn = cell("a", "all", 0)
    store.add_unit(drawn.key, 0, 0, [Prediction("0-0", "yes")], 0.1)
    store.finish_cell(drawn.key, {}, {})
    assert [(e["draws"], e["planned"]) for e in UntilSettled({"t": looks}).ended(store)] == [(1, 5)]


def answers(rng, targets, share):
    """Predictions that are right with this share, else any of the labels."""
    return [Prediction(f"{n}-0", t if rng.random() < share else "abc"[rng.integers(3)]) for n, t in enumerate(targets)]


def labelled(rng, n):
    targets = rng.choice(["a", "b", "c"], n, p=[0.7, 0.2, 0.1]).tolist()
    return targets, [Example(f"{k}-0", {"text": str(k)}, t) for k, t in enumerate(targets)]


def test_what_an_item_is_worth_in_a_metric_that_is_no_mean():
    rng = np.random.default_rng(0)
    metric = build("metric", "macro_f1", Context(labels=("a", "b", "c")))
    targets, examples = labelled(rng, 60)
    found = answers(rng, targets, 0.6)
    found[3] = Prediction("3-0", None, why="too long")
    scored = np.array([n for n in range(60) if n != 3])
    whole = metric.aggregate(found, examples, scored[None])[0]
    without = [metric.aggregate(found, examples, np.delete(scored, k)[None])[0] for k in range(59)]
    worth = worth_of_items(metric, found, examples)
    assert np.isnan(worth[3])
    assert worth[scored] == pytest.approx(59 * whole - 58 * np.array(without))
    assert np.nanmean(worth) == pytest.approx(whole, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("n", [60, 200])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_equals_by_macro_f1_are_told_apart_at_most_six_times_in_a_hundred(n, share):
    """Five draws, a look after each from the second on; both methods are equally good."""
    rng, named = np.random.default_rng(n), 0
    metric = build("metric", "macro_f1", Context(labels=("a", "b", "c")))
    for _ in range(1000):
        targets, examples = labelled(rng, n)
        runs = [np.stack([worth_of_items(metric, answers(rng, targets, share), examples) for _ in range(5)]) for _ in range(2)]
        named += any(settled({"one": runs[0][:k], "other": runs[1][:k]}, 5, 0.0) for k in range(2, 6))
    assert named / 1000 <= 0.06
