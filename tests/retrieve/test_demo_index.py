"""The index in memory and on disk: exact search in a settled order, rows and vectors that belong together."""

import threading

import numpy as np
import pytest
from retrieve_samples import HashEncoder, example, pool_of

from icl import DemoIndex
from icl.errors import InputError
from icl.retrieve.nearest import nearest
from icl.values import as_query, embedded_text


def slow_search(encoder, examples, text, k):
    """The definition: every inner product, sorted by (score, position)."""
    scores = [
        float(np.float32(np.dot(encoder.encode([embedded_text(e.fields)])[0].astype(float), encoder.encode([text])[0]))) for e in examples
    ]
    return sorted(range(len(examples)), key=lambda i: (-scores[i], i))[:k]


def test_search_is_the_definition():
    encoder, pool = HashEncoder(), pool_of(60)
    index = DemoIndex.build(pool, encoder=encoder)
    queries = ["where is the card", "money back", "", "words that nothing has"]
    found = index.search(queries, 7)
    for query, hits in zip(queries, found, strict=True):
        assert [h.uid for h in hits] == [pool[i].uid for i in slow_search(encoder, pool, query, 7)]
        assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
        for hit in hits:
            again = encoder.encode([embedded_text(hit.example.fields)])[0] @ encoder.encode([query])[0]
            assert hit.score == pytest.approx(float(again), abs=1e-5)


def test_equal_rows_come_by_position_even_where_they_reach_beyond_k():
    """FAISS gives the last of equal rows first, and would drop the first ones at the border."""
    pool = [example("same text", occurrence=i) for i in range(90)] + [example("another")]
    index = DemoIndex.build(pool, encoder=HashEncoder())
    for k in (1, 3, 60, 90):
        (hits,) = index.search(["same text"], k)
        assert [h.uid for h in hits] == [e.uid for e in pool[:k]]
    (hits,) = index.search(["another"], 4)
    assert [h.uid for h in hits] == [pool[90].uid, *(e.uid for e in pool[:3])]


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_do_not_depend_on_the_batch(seed):
    """FAISS computes up to 19 queries another way than 20 and more; near ties then change places."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((20, 24))
    vectors = np.repeat(base, 15, axis=0) + rng.standard_normal((300, 24)) * 1e-7  # near ties, as close as rounding
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    queries = np.ascontiguousarray(vectors[rng.permutation(300)[:64]])
    together = nearest(queries, vectors, 6)
    for i in range(64):
        alone = nearest(queries[i : i + 1], vectors, 6)
        assert together[0][i].tolist() == alone[0][0].tolist()
        assert together[1][i].tolist() == alone[1][0].tolist()


def test_queries_may_be_texts_dicts_or_examples():
    pool = [example(f"text {i}", title=f"title {i % 3}") for i in range(9)]
    index = DemoIndex.build(pool, encoder=HashEncoder())
    text, mapping, row = index.search(["text 4\ntitle 1", {"title": "title 1", "text": "text 4"}, pool[4]], 9)
    assert text == mapping == row
    assert text[0].uid == pool[4].uid
    assert text[0].score == pytest.approx(1, abs=1e-6)


def test_odd_sizes():
    index = DemoIndex.build(pool_of(3), encoder=HashEncoder())
    assert [len(h) for h in index.search(["x", "y"], 10)] == [3, 3]
    assert index.search([], 3) == []
    assert index.search(["x"], 0) == [[]]
    empty = DemoIndex.build([], encoder=HashEncoder())
    assert empty.search(["x"], 3) == [[]]
    assert len(empty) == 0
    empty.add(pool_of(2))
    assert len(empty.search(["x"], 3)[0]) == 2


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        ("one text", 3, "list of queries"),
        ([3], 3, "got int"),
        (["x"], -1, "k is -1"),
        ([{"txt": "x"}], 3, r"lacks the field\(s\) \['text'\]"),
    ],
)
def test_wrong_queries_are_refused(queries, k, message):
    with pytest.raises(InputError, match=message):
        DemoIndex.build(pool_of(3), encoder=HashEncoder()).search(queries, k)


@pytest.mark.parametrize("factor", [np.nan, 2.0, 0.0, np.inf])
def test_an_encoder_that_gives_no_unit_vectors_is_refused(factor):
    class Broken(HashEncoder):
        def encode(self, texts):
            return super().encode(texts) * factor

    with pytest.raises(InputError, match=r"not finite or not of length 1, the first for the text"):
        DemoIndex.build(pool_of(3), encoder=Broken())


def test_an_encoder_of_other_dimensions_is_refused():
    index = DemoIndex.build(pool_of(3), encoder=HashEncoder(32))
    index._encoder = HashEncoder(16)
    with pytest.raises(InputError, match=r"\(1, 16\), expected \(1, 32\)"):
        index.search(["x"], 1)


def test_a_uid_twice_is_refused():
    pool = pool_of(4)
    with pytest.raises(InputError, match=r"1 uids are in the index twice(.|\n)*unique within a split"):
        DemoIndex.build([*pool, pool[2]], encoder=HashEncoder())
    index = DemoIndex.build(pool, encoder=HashEncoder())
    with pytest.raises(InputError, match="twice"):
        index.add([example("new"), pool[0]])
    assert len(index) == 4, "all or none"


def test_add_and_remove_are_like_building_anew():
    """Random changes, each compared with an index built of the same rows."""
    rng = np.random.default_rng(3)
    rows, spare = pool_of(30)[:10], pool_of(90)[30:]
    index = DemoIndex.build(rows, encoder=HashEncoder())
    ids = {e.uid: i for e, i in zip(index.examples, index._state.ids.tolist(), strict=True)}
    for step in range(25):
        if rows and rng.random() < 0.5:
            gone = [rows[i] for i in rng.permutation(len(rows))[: rng.integers(1, 4)]]
            index.remove([e.uid for e in gone])
            rows = [e for e in rows if e not in gone]
        else:
            new = [spare.pop() for _ in range(min(len(spare), int(rng.integers(1, 4))))]
            index.add(new)
            rows = [*rows, *new]
        assert list(index.examples) == rows
        fresh = DemoIndex.build(rows, encoder=HashEncoder())
        assert (index.vectors == fresh.vectors).all()
        assert index.search(["where is the card", "refund"], 5) == fresh.search(["where is the card", "refund"], 5), step
        now = {e.uid: i for e, i in zip(index.examples, index._state.ids.tolist(), strict=True)}
        assert all(now[uid] == i for uid, i in ids.items() if uid in now), "an id stays with its row"
        assert not {i for uid, i in now.items() if uid not in ids} & set(ids.values()), "an id is not given twice"
        ids |= now


def test_removing_what_is_not_there():
    index = DemoIndex.build(pool_of(4), encoder=HashEncoder())
    with pytest.raises(InputError, match=r"1 of the uids are not in the index: nobody"):
        index.remove([index.examples[0].uid, "nobody"])
    assert len(index) == 4


def test_searching_while_rows_come_and_go():
    index = DemoIndex.build(pool_of(50), encoder=HashEncoder())
    errors, stop = [], threading.Event()

    def search():
        encoder = HashEncoder()
        while not stop.is_set():
            for hit in index.search(["where is the card"], 5)[0]:
                expected = float(encoder.encode([embedded_text(hit.example.fields)])[0] @ encoder.encode(["where is the card"])[0])
                if abs(hit.score - expected) > 1e-5:
                    errors.append((hit, expected))

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for row in pool_of(80)[50:]:
        index.add([row])
        index.remove([index.examples[0].uid])
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors


def test_similarities_and_vectors_of_rows_inside_and_outside():
    encoder, pool = HashEncoder(), pool_of(12)
    index = DemoIndex.build(pool[:8], encoder=encoder)
    encoder.encoded.clear()
    assert (index.vectors_of([pool[5], pool[10]]) == encoder.encode([pool[5].fields["text"], pool[10].fields["text"]])).all()
    rows = [[pool[3], pool[10]], [], [pool[0]]]
    scores = index.similarities(["a card", "x", pool[0]], rows)
    assert [len(s) for s in scores] == [2, 0, 1]
    assert scores[2][0] == pytest.approx(1, abs=1e-6)
    assert scores[0][1] == pytest.approx(float(encoder.encode(["a card"])[0] @ encoder.encode([pool[10].fields["text"]])[0]), abs=1e-6)
    assert index.similarities(["x"], [[]]) == [[]]


def test_fingerprint_follows_rows_order_and_encoder():
    pool = pool_of(5)
    base = DemoIndex.build(pool, encoder=HashEncoder()).fingerprint
    assert DemoIndex.build(pool, encoder=HashEncoder()).fingerprint == base
    relabelled = [*pool[:4], example(pool[4].fields["text"], "other")]
    for rows, encoder in ((pool[::-1], HashEncoder()), (pool[:4], HashEncoder()), (relabelled, HashEncoder()), (pool, HashEncoder(16))):
        assert DemoIndex.build(rows, encoder=encoder).fingerprint != base


def test_with_a_real_encoder_a_second_build_encodes_nothing(tiny_encoder, monkeypatch):
    pool = pool_of(30)
    first = DemoIndex.build(pool, encoder=str(tiny_encoder))
    monkeypatch.setattr("icl.retrieve.encoders._Model.encode", lambda *a: pytest.fail("something was encoded"))
    second = DemoIndex.build(pool, encoder=str(tiny_encoder))
    assert (first.vectors == second.vectors).all()
    assert second.search(pool[:3], 4) == first.search(pool[:3], 4)
    assert first.search([pool[7]], 1)[0][0].uid == pool[7].uid


def test_a_typed_query_finds_its_exact_match(tiny_encoder):
    pool = pool_of(20)
    index = DemoIndex.build(pool, encoder=str(tiny_encoder))
    hit = index.search([as_query(pool[4].fields["text"], ["text"])], 1)[0][0]
    assert hit.uid == pool[4].uid
    assert hit.score == pytest.approx(1, abs=1e-6)
