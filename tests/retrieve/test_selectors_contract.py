"""The contract of every selector and every order: a new file is tested by these before its author writes a test."""

import itertools
import random

import pytest
from retrieve_samples import HashEncoder, example, pool_of

from icl import DemoIndex
from icl.errors import InputError
from icl.plugins import Context, available, build
from icl.retrieve import build_order
from icl.values import Hit, as_query

SELECTORS = [name for name in available("selector") if not getattr(available("selector")[name].load(), "NEEDS_MODEL", False)]
ORDERS = [name for name in available("order") if not getattr(available("order")[name].load(), "NEEDS_MODEL", False)]
REQUIRED = {"field": {"name": "text"}}
"""Settings of those that cannot do without."""
VARIANTS = [
    *({name: REQUIRED[name]} if name in REQUIRED else name for name in SELECTORS),
    {"random": {"per_query": True}},
    {"balanced": {"per_query": True}},
]
LABELS = ("card", "refund", "login")


def selector(value, pool, seed=0):
    index = DemoIndex.build(pool, encoder=HashEncoder())
    return build("selector", value, Context(pool=pool, index=index, labels=LABELS, seed=seed))


def uids(found):
    return [[hit.uid for hit in hits] for hits in found]


@pytest.fixture(scope="module")
def pool():
    return pool_of(30)


def test_the_selectors_of_this_version_are_there():
    assert {"random", "balanced", "knn", "bm25", "hybrid", "all", "mmr", "dpp", "coverage", "kmeans", "votek"} <= set(SELECTORS)
    assert {"similar_last", "similar_first", "shuffled", "interleaved"} <= set(ORDERS)


@pytest.mark.parametrize("value", VARIANTS, ids=str)
@pytest.mark.parametrize("k", [1, 4, 29])
def test_k_distinct_rows_never_the_query(value, pool, k):
    found = selector(value, pool)(pool, k, None)
    for query, hits in zip(pool, found, strict=True):
        assert len({hit.uid for hit in hits}) == len(hits) == k
        assert query.uid not in {hit.uid for hit in hits}
        assert all(hit.example in pool and hit.example.uid == hit.uid for hit in hits)


@pytest.mark.parametrize("value", VARIANTS, ids=str)
def test_the_same_for_the_same_seed_in_any_batch_and_order(value, pool):
    queries = [*pool[:9], as_query("where is the money", ["text"]), as_query("", ["text"]), as_query("qqq", ["text"])]
    together = uids(selector(value, pool)(queries, 5, None))
    again = selector(value, pool)
    assert uids(again(queries[::-1], 5, None))[::-1] == together
    assert [uids(again([query], 5, None))[0] for query in queries] == together


@pytest.mark.parametrize("value", VARIANTS, ids=str)
def test_small_pools(value, pool):
    typed = as_query("where is the card", ["text"])
    assert sorted(uids(selector(value, pool)([typed], 99, None))[0]) == sorted(e.uid for e in pool), "fewer rows than k: all of them"
    assert uids(selector(value, pool[:1])([typed, pool[0]], 4, None)) == [[pool[0].uid], []]
    assert selector(value, [])([typed], 4, None) == [[]]
    assert selector(value, pool)([], 4, None) == []


@pytest.mark.parametrize("value", VARIANTS, ids=str)
def test_only_among_the_candidates(value, pool):
    rng = random.Random(1)
    queries = [*pool[:6], as_query("the card", ["text"])]
    candidates = [[Hit(e.uid, 0.5, e) for e in rng.sample(pool, 8)] for _ in queries]
    candidates[2] = []
    candidates[0][0] = Hit(pool[0].uid, 0.9, pool[0])
    found = selector(value, pool)(queries, 3, candidates)
    for query, hits, allowed in zip(queries, found, candidates, strict=True):
        assert len({hit.uid for hit in hits}) == len(hits) == min(3, len([h for h in allowed if h.uid != query.uid]))
        assert {hit.uid for hit in hits} <= {hit.uid for hit in allowed} - {query.uid}
    assert uids([selector(value, pool)([q], 3, [c])[0] for q, c in zip(queries, candidates, strict=True)]) == uids(found)


@pytest.mark.parametrize("value", VARIANTS, ids=str)
def test_equal_rows(value):
    """Copies of one text under ids of their own, as many as there are: distinct rows, and the same whatever the batch."""
    rows = [*(example("where is the card", occurrence=i) for i in range(7)), *pool_of(6)]
    typed = [as_query("where is the card", ["text"]), as_query("money back", ["text"])]
    found = uids(selector(value, rows)(typed, 9, None))
    assert all(len(set(row)) == len(row) == 9 for row in found)
    assert [uids(selector(value, rows)([query], 9, None))[0] for query in typed] == found


@pytest.mark.parametrize("value", VARIANTS, ids=str)
def test_texts_without_a_word(value):
    rows = [example(text, "card") for text in ("", "!!!", "🙂", "  ")]
    assert len(selector(value, rows)([as_query("?!", ["text"]), rows[0]], 3, None)[0]) == 3


@pytest.mark.parametrize("name", SELECTORS)
def test_settings_are_strict(name, pool):
    with pytest.raises(InputError, match=rf"the selector '{name}' has no option 'nn'(.|\n)*Did you mean 'n'"):
        selector({name: {"nn": 3, **REQUIRED.get(name, {})}}, pool)
    with pytest.raises(InputError):
        selector({name: {"n": 0, **REQUIRED.get(name, {})}}, pool)


@pytest.mark.parametrize("name", ["random", "balanced"])
def test_one_draw_is_shared_by_all_queries(name, pool):
    queries = [as_query(f"query {i}", ["text"]) for i in range(20)]
    drawn = uids(selector(name, pool)(queries, 6, None))
    assert all(row == drawn[0] for row in drawn), "the prompts begin alike, so they are computed once"
    with_own = uids(selector(name, pool)(pool, 6, None))
    assert sum(row == drawn[0] for row in with_own) == 24, "only the six drawn ones get another row in their place"
    assert all(len(set(row) & set(drawn[0])) == 5 for row in with_own if row != drawn[0])
    assert uids(selector(name, pool, seed=1)(queries[:1], 6, None))[0] != drawn[0]
    own = uids(selector({name: {"per_query": True}}, pool)(queries, 6, None))
    assert len({tuple(row) for row in own}) > 10


def test_random_draws_every_row_equally_often(pool):
    found = selector({"random": {"per_query": True}}, pool)([as_query(f"q {i}", ["text"]) for i in range(3000)], 5, None)
    counts = {e.uid: 0 for e in pool}
    for hits in found:
        for hit in hits:
            counts[hit.uid] += 1
    assert 400 < min(counts.values()) <= max(counts.values()) < 600, "500 each, give or take five standard deviations"


@pytest.mark.parametrize("k", [3, 6, 7, 12])
def test_balanced_is_balanced_and_mixed(pool, k):
    found = selector("balanced", pool)([as_query("q", ["text"]), *pool], k, None)
    for hits in found:
        targets = [hit.example.target for hit in hits]
        counts = [targets.count(label) for label in LABELS]
        assert max(counts) - min(counts) <= 1
    orders = {
        tuple(h.example.target for h in selector("balanced", pool, seed)([as_query("q", ["text"])], 6, None)[0]) for seed in range(20)
    }
    changes = [sum(a != b for a, b in itertools.pairwise(order)) for order in orders]
    assert len(orders) > 10
    assert sum(changes) / len(changes) > 3, "grouped by label there would be 2 changes"
    assert any(order[:3] != order[3:] for order in orders), "not the labels in a cycle either"


def test_balanced_fills_up_where_a_label_runs_out():
    rows = [*pool_of(12, ("card", "refund")), example("the only login", "login")]
    (hits,) = selector("balanced", rows)([as_query("q", ["text"])], 9, None)
    targets = [hit.example.target for hit in hits]
    assert [targets.count(label) for label in LABELS] == [4, 4, 1]
    (few,) = selector("balanced", rows)([as_query("q", ["text"])], 2, None)
    assert len({hit.example.target for hit in few}) == 2


def test_balanced_among_candidates_takes_the_best_of_each_label(pool):
    candidates = [
        Hit(e.uid, 1 - i / 100, e) for i, e in enumerate([*pool[0:15:3], *pool[1:4:3], *pool[2:6:3]])
    ]  # 5 card, 1 refund, 2 login
    (hits,) = selector("balanced", pool)([as_query("q", ["text"])], 5, [candidates])
    assert [h.example.target for h in hits] == ["card", "card", "refund", "login", "login"]
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)


def test_knn_is_the_index(pool):
    index = DemoIndex.build(pool, encoder=HashEncoder())
    query = as_query("where is the card", ["text"])
    assert selector("knn", pool)([query], 5, None) == index.search([query], 5)
    shuffled = random.Random(0).sample(index.search([query], 12)[0], 12)
    again = selector("knn", pool)([query], 5, [[Hit(h.uid, 0.0, h.example) for h in shuffled]])
    assert uids(again) == uids(index.search([query], 5)), "candidates are ranked anew"
    assert again[0][0].score == pytest.approx(index.search([query], 1)[0][0].score, abs=1e-6)


def test_knn_with_an_encoder_of_its_own(pool, tiny_encoder):
    mine = selector({"knn": {"encoder": str(tiny_encoder)}}, pool)([pool[0]], 4, None)
    expected = DemoIndex.build(pool, encoder=str(tiny_encoder)).search([pool[0]], 5)[0][1:]
    assert mine == [expected]


def test_bm25_against_its_formula(pool):
    """Okapi with Lucene's idf, ln(1 + (N - n + 0.5) / (n + 0.5)); k1 1.5, b 0.75."""
    import math

    from icl.retrieve.terms import words

    documents = [words(e.fields["text"]) for e in pool]
    mean = sum(map(len, documents)) / len(documents)
    query = "the BROKEN kettle, the money no 7"
    scores = []
    for document in documents:
        score = 0.0
        for word in words(query):
            n = sum(word in d for d in documents)
            tf = document.count(word)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            score += idf * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * len(document) / mean))
        scores.append(score)
    expected = sorted(range(len(pool)), key=lambda i: (-round(scores[i], 5), i))[:8]
    (hits,) = selector("bm25", pool)([as_query(query, ["text"])], 8, None)
    assert [h.uid for h in hits] == [pool[i].uid for i in expected]
    assert [h.score for h in hits] == pytest.approx([scores[i] for i in expected], rel=1e-4)


def test_words_of_any_script():
    from icl.retrieve.terms import words

    assert words("Don't STOP: naïve_ｔｅｘｔ, Straße 42!") == ["don", "t", "stop", "naïve", "text", "strasse", "42"]
    assert words("我想退款") == ["我", "想", "退", "款"]
    assert words("iPhone不工作") == ["iphone", "不", "工", "作"]
    assert words("🙂 … !") == []


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("n", [0, 1, 2, 9])
def test_an_order_only_rearranges(name, pool, n):
    hits = [Hit(e.uid, 1 - i / 10, e) for i, e in enumerate(pool[:n])]
    order = build_order(name, labels=LABELS, seed=0)
    query = as_query("q", ["text"])
    first = order(query, hits)
    assert sorted(h.uid for h in first) == sorted(h.uid for h in hits)
    assert order(query, hits) == first
    assert [h.uid for h in hits] == [e.uid for e in pool[:n]], "what it is given stays as it was"
    assert build_order(name, labels=LABELS, seed=0)(query, hits) == first


def test_orders_do_what_they_say(pool):
    hits = [Hit(e.uid, 1 - i / 10, e) for i, e in enumerate(pool[:8])]
    queries = [as_query(f"q {i}", ["text"]) for i in range(30)]
    assert build_order("similar_last", labels=(), seed=0)(queries[0], hits) == hits[::-1]
    assert build_order("similar_first", labels=(), seed=0)(queries[0], hits) == hits
    shuffled = build_order("shuffled", labels=(), seed=0)
    orders = {tuple(h.uid for h in shuffled(query, hits)) for query in queries}
    assert len(orders) == 30, "a shuffle of its own for each query"
    assert [h.uid for h in build_order("shuffled", labels=(), seed=1)(queries[0], hits)] != [h.uid for h in shuffled(queries[0], hits)]
    assert shuffled(queries[0], hits[::-1]) == shuffled(queries[0], hits), "whatever order they came in"


@pytest.mark.parametrize("counts", [(3, 3), (4, 3, 2), (6, 1, 1), (5,), (2, 2, 2, 2), (7, 2), (1, 1, 1)])
def test_interleaved_keeps_labels_apart_as_far_as_can_be(counts):
    rng = random.Random(sum(counts))
    for _ in range(20):
        labels = [str(i) for i, n in enumerate(counts) for _ in range(n)]
        rng.shuffle(labels)
        hits = [Hit(f"{i}-0", 1 - i / 100, example(f"row {i}", label)) for i, label in enumerate(labels)]
        ordered = build_order("interleaved", labels=(), seed=0)(as_query("q", ["text"]), hits)
        shown = [hit.example.target for hit in ordered]
        beside = sum(a == b for a, b in itertools.pairwise(shown))
        assert beside == max(0, 2 * max(counts) - len(labels) - 1), "no fewer are possible"
        by_label = [[hit.uid for hit in ordered if hit.example.target == label] for label in sorted(set(labels))]
        ranked = [[hit.uid for hit in hits if hit.example.target == label][::-1] for label in sorted(set(labels))]
        assert by_label == ranked, "of a label the most similar stands last"
        if 2 * max(counts) <= len(labels):
            assert ordered[-1] == hits[0], "the most similar of all stands next to the query"


def test_an_order_that_loses_a_hit_is_refused(pool):
    hits = [Hit(e.uid, 0.0, e) for e in pool[:4]]
    for wrong in (lambda q, h: h[1:], lambda q, h: [h[0], *h[:3]]):
        with pytest.raises(InputError, match="did not give back the hits"):
            build_order(wrong, labels=(), seed=0)(as_query("q", ["text"]), hits)
    assert build_order(lambda q, h: h[1:] + h[:1], labels=(), seed=0)(as_query("q", ["text"]), hits) == [*hits[1:], hits[0]]
    with pytest.raises(InputError, match="Did you mean 'shuffled'"):
        build_order("shufled", labels=(), seed=0)
