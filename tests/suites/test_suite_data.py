"""The data shipped with the suites: what the data card promises of it."""

import itertools
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from icl.values import normalised_text

DATA = Path(__file__).resolve().parent.parent.parent / "eval_suites" / "data"
SETS = sorted({path.name.rsplit("_", 1)[0] for path in DATA.glob("*_train.jsonl")})
WRITTEN = {"story", "poem", "article", "follow_ups"}
QUEUES = {"delivery", "product_question", "returns", "billing", "warranty", "order_change", "account", "complaint"}


def rows_of(name):
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def input_text(row):
    """What a row is asked about, without its answer."""
    hidden = {
        "id",
        "label",
        "queue",
        "answer",
        "reply",
        "summary",
        "translation",
        "solution",
        "choices",
        "rationale",
        "steps",
        "record",
    } | WRITTEN
    if "attributes" in row:
        hidden = hidden | {"text"}
    return normalised_text(" ".join(json.dumps(value, ensure_ascii=False) for key, value in row.items() if key not in hidden))


def runs(text, n):
    words = normalised_text(text).split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


@pytest.fixture(scope="module")
def support():
    return rows_of("support_train"), rows_of("support_test")


def test_support_has_the_stated_size_and_moderately_unbalanced_queues(support):
    train, test = support
    assert (len(train), len(test)) == (567, 161)
    for rows in support:
        counts = Counter(row["queue"] for row in rows)
        assert set(counts) == QUEUES
        assert 1.2 < max(counts.values()) / min(counts.values()) < 2
    assert all(set(row) == {"id", "text", "queue"} for row in train + test)
    assert len({row["id"] for row in train + test}) == len(train) + len(test)


def test_support_shares_no_run_of_8_words_between_queues(support):
    queues = defaultdict(set)
    for row in itertools.chain(*support):
        for run in runs(row["text"], 8):
            queues[run].add(row["queue"])
    assert queues
    assert {" ".join(run): found for run, found in queues.items() if len(found) > 1} == {}


def test_support_is_neither_trivial_nor_hopeless_for_a_bag_of_words(support):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    train, test = support
    for c in (1.0, 10.0):
        vectors = TfidfVectorizer(ngram_range=(1, 2))
        model = LogisticRegression(C=c, max_iter=2000).fit(vectors.fit_transform([r["text"] for r in train]), [r["queue"] for r in train])
        accuracy = model.score(vectors.transform([r["text"] for r in test]), [r["queue"] for r in test])
        assert 0.60 < accuracy < 0.90


def test_no_single_word_gives_a_queue_away(support):
    """A word that stands in many messages of a queue stands in messages of others too."""
    queues = defaultdict(Counter)
    for row in itertools.chain(*support):
        for word in set(normalised_text(row["text"]).split()):
            queues[word][row["queue"]] += 1
    sizes = Counter(row["queue"] for row in itertools.chain(*support))
    telling = {
        word: queue
        for word, counts in queues.items()
        for queue, n in counts.items()
        if n > 0.35 * sizes[queue] and n > 0.95 * sum(counts.values())
    }
    assert telling == {}


def test_about_one_support_row_in_twenty_is_listed_as_ambiguous(support):
    listed = rows_of("support_ambiguous")
    queue_of = {split: {row["id"]: row["queue"] for row in rows} for split, rows in zip(("train", "test"), support, strict=True)}
    for entry in listed:
        assert queue_of[entry["split"]][entry["id"]] == entry["queue"]
        assert entry["also"] in QUEUES - {entry["queue"]}
        assert len(entry["why"]) > 10
    assert len({entry["id"] for entry in listed}) == len(listed)
    shares = Counter(entry["split"] for entry in listed)
    assert 0.035 < shares["train"] / len(support[0]) < 0.065
    assert 0.035 < shares["test"] / len(support[1]) < 0.065


def test_support_messages_vary_in_length_and_opening(support):
    texts = [row["text"] for row in itertools.chain(*support)]
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) < 6
    assert max(lengths) > 30
    openings = Counter(" ".join(normalised_text(text).split()[:3]) for text in texts)
    assert openings.most_common(1)[0][1] < 0.02 * len(texts)


@pytest.mark.parametrize("name", SETS)
def test_no_text_twice_and_no_near_duplicate_across_the_splits(name):
    from sklearn.feature_extraction.text import TfidfVectorizer

    train, test = ([input_text(row) for row in rows_of(f"{name}_{split}")] for split in ("train", "test"))
    assert len(set(train) | set(test)) == len(train) + len(test)
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit(train + test)
    similar = (vectors.transform(test) @ vectors.transform(train).T).toarray()
    pairs = [(test[i], train[j]) for i, j in zip(*(similar > 0.75).nonzero(), strict=True)]
    assert pairs == []


@pytest.mark.parametrize(
    ("name", "sizes", "labels"),
    [
        ("sentiment", (120, 80), {"negative": (60, 40), "positive": (60, 40)}),
        ("topic", (120, 80), dict.fromkeys(("business", "culture", "politics", "science", "sport"), (24, 16))),
        ("multiple_choice", (60, 60), dict.fromkeys(range(4), (15, 15))),
    ],
)
def test_small_sets_are_balanced(name, sizes, labels):
    counts = [Counter(row["label"] for row in rows_of(f"{name}_{split}")) for split in ("train", "test")]
    assert tuple(counter.total() for counter in counts) == sizes
    assert {label: tuple(counter[label] for counter in counts) for label in counts[0] | counts[1]} == labels


def test_tickets_are_many_and_their_replies_state_the_fact_they_were_given():
    train, test = rows_of("tickets_train"), rows_of("tickets_test")
    assert len(train) >= 150
    assert len(test) >= 60
    for row in train + test:
        name, _, value = row["facts"].partition(": ")
        assert name
        assert value.casefold() in row["reply"].casefold()
    assert sum(isinstance(row["conversation"], list) for row in train + test) >= 8


@pytest.mark.parametrize("name", ["story", "poem", "article"])
def test_what_was_written_has_its_words_and_repeats_little(name):
    from icl.evaluate.metrics.word_coverage import Settings, build
    from icl.plugins import Context
    from icl.values import Example, Prediction

    train, test = rows_of(f"{name}_train"), rows_of(f"{name}_test")
    assert (len(train), len(test)) == (24, 12)
    assert len({row["title"] for row in train + test}) == 36
    rows = [Example(row["title"], {"words": row["words"]}, row[name]) for row in train + test]
    written = [Prediction(e.uid, e.target, None, (), (), None) for e in rows]
    values = build(Settings(field="words", inflected=True), Context())(written, rows)
    assert [e.uid for e, value in zip(rows, values, strict=True) if value < 1] == []
    if name == "poem":
        assert all(row["poem"].count("\n") == 3 for row in train + test)


def test_follow_ups_are_three_questions():
    for row in rows_of("follow_up_train") + rows_of("follow_up_test"):
        lines = row["follow_ups"].split("\n")
        assert len(set(lines)) == 3
        assert all(line.endswith("?") and row["question"] != line for line in lines)


def test_choices_are_four_different_ones():
    for row in rows_of("multiple_choice_train") + rows_of("multiple_choice_test"):
        assert len({normalised_text(choice) for choice in row["choices"]}) == 4


def test_answers_of_the_passages_stand_in_them_or_beside_one_that_does():
    """Extractive: at least one accepted answer is a piece of the passage; the others say the same otherwise."""
    rows = rows_of("qa_train") + rows_of("qa_test")
    assert (len(rows_of("qa_train")), len(rows_of("qa_test"))) == (60, 60)
    missing = [row["question"] for row in rows if not any(normalised_text(a) in normalised_text(row["context"]) for a in row["answer"])]
    assert missing == []
    assert sum(len(row["answer"]) > 1 for row in rows) >= 20


def test_questions_of_several_hops_are_answered_by_their_follow_ups():
    """Two or three follow-up questions, each above its answer; the last of them, or a comparison in the question, has the answer."""
    for row in rows_of("hops_train") + rows_of("hops_test"):
        lines = row["rationale"].split("\n")
        asked, answered = lines[::2], lines[1::2]
        assert 2 <= len(asked) == len(answered) <= 3
        assert all(line.startswith("Follow up: ") and line.endswith("?") for line in asked)
        assert all(line.startswith("Intermediate answer: ") and line.endswith(".") for line in answered)
        assert normalised_text(row["answer"][0]) in normalised_text(answered[-1] if " or " not in row["question"] else row["question"])


def test_solutions_of_the_code_rows_pass_their_tests():
    for row in rows_of("code_train") + rows_of("code_test"):
        exec(f"{row['solution']}\n{row['tests']}", {})


def test_the_data_card_names_every_set_and_its_counts():
    card = (DATA / "README.md").read_text(encoding="utf-8")
    for name in SETS:
        train, test = (len(rows_of(f"{name}_{split}")) for split in ("train", "test"))
        assert f"| `{name}` | {train} | {test} |" in card
