"""The leak guard: what is planted is found, what is merely alike stays, test rows are never touched."""

import itertools
import random
import re
import string
import time

import pytest

from icl.data import Task, draw, duplicate_groups, leak_guard, read_rows
from icl.data.near import near_pairs
from icl.values import Example

WORDS = [
    "the",
    "of",
    "report",
    "yesterday",
    "large",
    "green",
    "never",
    "people",
    "work",
    "market",
    "before",
    "city",
    "small",
    "open",
    "round",
    "price",
    "letter",
    "moved",
    "found",
    "again",
]


def lightly_edited(text, rng):
    """About one word in twelve replaced, left out, put in, swapped or misspelt."""
    words = text.split()
    for _ in range(max(1, round(len(words) / 12))):
        at = rng.randrange(len(words) - 1)
        action = rng.randrange(5)
        if action == 0:
            words[at] = rng.choice(WORDS)
        elif action == 1:
            del words[at]
        elif action == 2:
            words.insert(at, rng.choice(WORDS))
        elif action == 3:
            words[at], words[at + 1] = words[at + 1], words[at]
        else:
            words[at] = words[at][:-1] + rng.choice(string.ascii_lowercase)
    return " ".join(words)


def respelled(text, rng):
    """Case, spaces and punctuation changed."""
    text = rng.choice([str.upper, str.lower, str.title])(text)
    text = text.translate(str.maketrans("", "", string.punctuation)) if rng.random() < 0.5 else re.sub(r"[^\w\s]", " ", text) + " !?"
    return f" {text}\n"


def test_planted_leaks_in_a_news_pool(shared):
    rng = random.Random(0)
    test = shared / "data/agnews_desc/test.jsonl"
    pool = [row for _, row in itertools.islice(read_rows(shared / "data/agnews_desc/train.jsonl"), 3000)]
    task = Task.load(pool, test=test)
    clean, before = leak_guard(task)
    assert before.n <= 0.01 * len(task.train)
    hundredth = len(clean.train) // 100
    long = [e for e in task.test if len(e.fields["text"].split()) >= 15]
    texts = [e.fields["text"] for e in rng.sample(long, 3 * hundredth)]
    exact, spelled, edited = texts[:hundredth], texts[hundredth : 2 * hundredth], texts[2 * hundredth :]
    planted = [*exact, *(respelled(t, rng) for t in spelled), *(lightly_edited(t, rng) for t in edited)]
    rows = [{"text": e.fields["text"], "label": e.target} for e in clean.train] + [{"text": t, "label": "World"} for t in planted]
    rng.shuffle(rows)
    dirty = Task.load(rows, test=test)
    guarded, leaks = leak_guard(dirty)
    left = {e.fields["text"] for e in guarded.train}
    assert not left & set(planted[: 2 * hundredth])
    assert leaks.n_text >= 2 * hundredth
    missed = sum(t in left for t in planted[2 * hundredth :])
    assert missed <= 0.05 * hundredth
    assert left >= {e.fields["text"] for e in clean.train}
    assert guarded.test == dirty.test
    assert leaks.n == len(leaks.removed) == len(dirty.train) - len(guarded.train)
    assert leak_guard(dirty) == (guarded, leaks)


def test_permuted_choices_are_the_same_item(shared):
    rng = random.Random(1)
    task = Task.load(
        shared / "data/openbookqa/train.jsonl", test=shared / "data/openbookqa/test.jsonl", input="question", choices="choices"
    )
    clean, _ = leak_guard(task)
    rows = []
    for example in rng.sample(task.test, 50):
        choices = rng.sample(example.choices, len(example.choices))
        rows.append({"question": example.fields["question"].upper(), "choices": choices, "label": choices.index(example.target)})
    rows += [{"question": e.fields["question"], "choices": list(e.choices), "label": e.choices.index(e.target)} for e in clean.train]
    dirty = Task.load(rows, test=shared / "data/openbookqa/test.jsonl", input="question", choices="choices")
    guarded, leaks = leak_guard(dirty)
    assert (leaks.n_text, leaks.n) == (50, 50)
    assert len(guarded.train) == len(clean.train)


@pytest.mark.parametrize(
    ("name", "text", "near"), [("banking77", 40, 100), ("trec", 12, 5), ("mpqa", 1100, 0), ("agnews_desc", 5, 40), ("coin_flip", 0, 0)]
)
def test_few_rows_of_public_sets_are_removed(shared, name, text, near):
    folder = shared / "data" / name
    test = folder / "test.jsonl"
    task = Task.load(folder / "train.jsonl", test=test) if (folder / "train.jsonl").exists() else Task.load(test)
    start = time.monotonic()
    _, leaks = leak_guard(task)
    assert time.monotonic() - start < 10
    assert leaks.n_text <= text
    assert leaks.n_near <= near


def test_known_overlaps_are_found(shared):
    """10 questions of trec's test set stand in its train set, as published."""
    task = Task.load(shared / "data/trec/train.jsonl", test=shared / "data/trec/test.jsonl")
    guarded, leaks = leak_guard(task)
    train = {e.fields["text"] for e in guarded.train}
    assert not any(e.fields["text"] in train for e in task.test)
    assert leaks.n_text >= 10


def test_ids_leak_whatever_the_text():
    train = [{"text": "one text", "label": "a", "key": 7}, {"text": "another", "label": "b", "key": 8}]
    task = Task.load(train, test=[{"text": "third", "label": "a", "key": "7"}], dev=[{"text": "x", "label": "a", "key": 7}], id="key")
    guarded, leaks = leak_guard(task)
    assert (leaks.n_id, leaks.n_text, leaks.n_near) == (2, 0, 0)
    assert [e.fields["text"] for e in guarded.train] == ["another"]
    assert guarded.dev == ()
    assert leaks.removed == (f"train/{task.train[0].uid}", f"dev/{task.dev[0].uid}")


def test_dev_and_unlabelled_rows_are_guarded_too():
    rows = [{"text": "Don't e-mail me.", "label": "a"}]
    task = Task.load(
        [{"text": "other", "label": "a"}],
        test=rows,
        dev=[{"text": "dont email ME", "label": "b"}],
        unlabelled=[{"text": "don't  e-mail me"}],
    )
    guarded, leaks = leak_guard(task)
    assert (guarded.dev, guarded.unlabelled, leaks.n_text) == ((), (), 2)


def test_sums_of_other_digits_are_not_the_same_text():
    task = Task.load([{"text": "1 + 23 =", "label": "a"}, {"text": "12 + 3", "label": "a"}], test=[{"text": "12 + 3 =", "label": "a"}])
    assert [e.fields["text"] for e in leak_guard(task)[0].train] == ["1 + 23 ="]


def test_texts_without_letters_are_compared_as_they_are():
    task = Task.load([{"text": ":-)", "label": "a"}, {"text": "?!", "label": "b"}], test=[{"text": "?!", "label": "b"}])
    assert [e.fields["text"] for e in leak_guard(task)[0].train] == [":-)"]


def example(i, **fields):
    return Example(f"u{i}", fields, None)


PASSAGE = (
    "The river rises in the hills above the old town and runs for ninety miles through farms before it meets the sea near a small harbour."
)


def test_two_questions_about_one_passage_are_two_items():
    left = [example(0, context=PASSAGE, question="Where does the river rise?")]
    same = [example(1, context=PASSAGE, question="Where does the river rise ?!")]
    other = [example(2, context=PASSAGE, question="How long is the river?")]
    edited = [example(3, context=PASSAGE.replace("old", "ancient"), question="Where does the river rise?")]
    assert near_pairs(left, other) == []
    assert near_pairs(left, edited) == [(0, 0)]
    assert near_pairs(left, same) == []  # equal after normalisation: not near, but the same


def test_rows_of_one_template_are_different_items():
    names = [a + b for a in ("Al", "Be", "Cor", "Da", "El", "Fa", "Gus", "Hen") for b in ("bert", "nice", "inna", "vid", "mund", "ril")]
    rng = random.Random(0)
    template = "A coin is heads up. {} flips the coin. {} does not flip the coin. {} flips the coin. Is the coin still heads up?"
    rows = [example(i, text=template.format(*rng.sample(names, 3))) for i in range(300)]
    assert len(near_pairs(rows[:200], rows[200:])) <= 2


def test_scripts_without_spaces_are_compared_too():
    text = "上海浦东机场今天宣布因大雾天气取消了超过一百二十个航班预计明天上午恢复正常运行旅客可以免费改签或者退票机场方面表示将安排更多工作人员为滞留旅客提供帮助和热餐"
    rows = [example(0, text=text)]
    assert near_pairs(rows, [example(1, text=text.replace("大雾", "暴雨"))]) == [(0, 0)]
    assert near_pairs(rows, [example(2, text=text[::-1])]) == []


def test_duplicate_groups_are_by_normalised_text():
    task = Task.load([{"text": t, "label": "a"} for t in ("One, two", "one two!", "three", "One, two")], holdout=0)
    groups = duplicate_groups(task.train)
    uids = [e.uid for e in task.train]
    assert groups[uids[0]] == {uids[0], uids[1], uids[3]}
    assert groups[uids[2]] == {uids[2]}
    assert draw(task.train, 4, labels=task.labels)  # equal texts do not stop a draw
