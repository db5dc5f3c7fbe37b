"""What is kept of a run for its readers: prompts, packed, and the rows shown in them."""

import random

import pytest

import icl
from icl.errors import InputError, Problem
from icl.evaluate.seen import packed, prompts_of, shown_rows, unpacked
from icl.evaluate.store import RunStore
from icl.values import Example, Prediction

ROWS = [{"text": f"film {n}", "label": "ab"[n % 2]} for n in range(8)]


def test_prompts_come_back_to_the_character():
    rng = random.Random(0)
    for _ in range(300):
        texts = {rng.randrange(99): "".join(rng.choices("ab\n\r\u2028\ud800\x00 é", k=rng.randrange(20))) for _ in range(rng.randrange(6))}
        texts |= {rng.randrange(99): None for _ in range(rng.randrange(3))}
        data = packed(texts)
        known = {at: text for at, text in texts.items() if text is not None}
        assert (unpacked(data) if data is not None else {}) == known
        assert (data is None) == (not known)


def test_lines_that_prompts_share_take_their_room_once():
    head = "\n".join(f"a long demonstration number {n} {n * 7919}" for n in range(300))
    assert len(packed({at: f"{head}\nquery {at}" for at in range(32)})) < 2.2 * len(packed({0: head}))


def predictor():
    task = icl.Task.load(ROWS, name="made up")
    return icl.FewShot(None, retriever="random", shots=2, tokenizer=str.split, max_tokens=40).fit(task.train, labels=task.labels), task


def test_the_rows_are_those_of_the_prompts():
    made, task = predictor()
    prompts = prompts_of(made, task.test, [Prediction(e.uid, "a", None, ()) for e in task.test])
    assert [p.text for p in prompts] == [p.text for p in made.prompts(task.test)]
    rows = shown_rows(iter(()), prompts, [])
    assert rows == {d.example.uid: d.example for p in prompts for d in p.demonstrations} != {}


def test_rows_of_a_method_without_prompts_come_from_the_pool():
    pool = [Example(f"u{n}", {"text": "x"}, "a") for n in range(3)]
    found = shown_rows(pool, [None], [Prediction("q", "a", None, (), ("u2", "gone"))])
    assert found == {"u2": pool[2]}

    def never():
        pytest.fail("the pool was read for nothing")
        yield

    assert shown_rows(never(), [None], [Prediction("q", "a", None, ())]) == {}


def test_an_item_that_fits_no_window_has_no_prompt():
    made, task = predictor()
    long = Example("long", {"text": "word " * 200}, "a")
    predictions = [Prediction(task.test[0].uid, "a", None, ()), Prediction("long", None, None, (), why="too long")]
    found = prompts_of(made, [task.test[0], long], predictions)
    assert [p is None for p in found] == [False, True]


class Broken:
    def prompts(self, queries):
        raise InputError(Problem("no", "never"))


def test_nothing_was_asked():
    assert prompts_of(Broken(), [Example("u", {"text": "x"}, "a")], [Prediction("u", None, None, ())]) == [None]
    assert prompts_of(object(), [Example("u", {"text": "x"}, "a")], [Prediction("u", "a", None, ())]) == [None]


def test_the_store_keeps_them_by_unit(tmp_path):
    odd = Example("id \ud800", {"text": "half a pair: \udc00"}, "a")
    with RunStore.open(tmp_path / "run") as store:
        store.add_seen("cell", 0, "t", {odd.uid: odd}, {0: "one\ntwo", 1: None})
        store.add_seen("cell", 1, "t", {odd.uid: odd}, {32: "three"})
        store.add_seen("cell", 0, "t", {}, {0: "again", 1: None})  # a unit that was cut short is done once more
        store.add_seen("other", 0, "t", {}, {})
    with RunStore.read_only(tmp_path / "run") as store:
        assert store.prompts("cell") == {0: "again", 32: "three"}
        assert store.prompts("other") == {}
        assert store.shown("t") == {odd.uid: odd}
        assert store.shown("another") == {}
