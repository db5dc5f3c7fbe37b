"""Approximate search beside the exact one: recall measured, filters, rows added and removed, on disk, and damaged."""

import numpy as np
import pytest
from retrieve_samples import HashEncoder, example, pool_of

from icl import DemoIndex
from icl.errors import InputError
from icl.retrieve import build_retriever
from icl.retrieve.approximate import approximate, kind_for, lists_for, measured
from icl.retrieve.nearest import nearest
from icl.values import as_query

KINDS = ["hnsw", "ivf"]
QUERIES = [as_query(text, ["text"]) for text in ("where is the card", "money back", "the password", "", "where has it gone")]


@pytest.fixture(scope="module")
def pool():
    return pool_of(400)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def index(pool, kind):
    return DemoIndex.build(pool, encoder=HashEncoder(), kind=kind)


def uids(found):
    return [[hit.uid for hit in hits] for hits in found]


def recall(found, truth):
    return np.mean([len(set(a) & set(b)) / max(1, len(b)) for a, b in zip(uids(found), uids(truth), strict=True)])


def test_it_finds_nearly_all_and_says_how_many(pool, index, kind):
    exact = DemoIndex.build(pool, encoder=HashEncoder())
    assert (exact.kind, exact.recall, index.kind) == ("exact", 1.0, kind)
    queries = [*QUERIES, *pool[:60]]
    found, truth = index.search(queries, 8), exact.search(queries, 8)
    assert recall(found, truth) > 0.9
    assert index.recall >= 0.95
    assert index.recall == pytest.approx(measured(index._state.structure, index.vectors))
    for hits in found:
        assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    for a, b in zip(found, truth, strict=True):
        scores = {h.uid: h.score for h in b}
        assert all(scores.get(h.uid, h.score) == h.score for h in a), "scores are the exact ones"


def test_the_recall_that_is_told_is_the_recall(kind, monkeypatch):
    """On vectors without any structure the least effort is not enough; counted by hand at whatever effort was settled on."""
    monkeypatch.setattr("icl.retrieve.approximate.RECALL", 0.99)
    vectors = np.random.default_rng(0).standard_normal((4000, 48)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = approximate(vectors, np.arange(4000), kind)
    assert made.effort > 16
    assert made.recall >= 0.99
    rows = np.arange(0, 4000, 10)
    truth = [set(best[1:].tolist()) for best in nearest(vectors[rows], vectors, 9)[0]]
    found = [set(row.tolist()) - {i} for i, row in zip(rows.tolist(), made.rough(vectors[rows], 9), strict=True)]
    by_hand = np.mean([len(a & b) / 8 for a, b in zip(found, truth, strict=True)])
    assert abs(by_hand - made.recall) < 0.04


def test_neither_the_batch_nor_its_order_matters(pool, index):
    queries = [*QUERIES, *pool[:40]]
    together = index.search(queries, 6)
    assert index.search(queries[::-1], 6)[::-1] == together
    assert [index.search([query], 6)[0] for query in queries] == together


def test_odd_sizes(kind):
    few = DemoIndex.build(pool_of(3), encoder=HashEncoder(), kind=kind)
    assert [len(hits) for hits in few.search(QUERIES, 9)] == [3] * 5
    assert few.recall is None
    empty = DemoIndex.build([], encoder=HashEncoder(), kind=kind)
    assert empty.search(QUERIES, 3) == [[]] * 5
    copies = DemoIndex.build([example("same", occurrence=i) for i in range(90)], encoder=HashEncoder(), kind=kind)
    assert all(hit.score == pytest.approx(1) for hit in copies.search(["same"], 30)[0])
    assert len(copies.search(["same"], 90)[0]) == 90


def test_the_kind_is_chosen_by_size_or_by_name():
    assert [kind_for("auto", n) for n in (0, 200_000, 200_001)] == ["exact", "exact", "ivf"]
    assert [kind_for(kind, 10) for kind in ("exact", "hnsw", "ivf")] == ["exact", "hnsw", "ivf"]
    assert [lists_for(n) for n in (10, 1000, 100_000, 1_000_000)] == [1, 32, 1024, 4096]
    with pytest.raises(InputError, match=r"no kind of index named 'hnws'(.|\n)*Did you mean 'hnsw'"):
        DemoIndex.build(pool_of(3), encoder=HashEncoder(), kind="hnws")


def test_only_among_some_rows(pool, index, kind, monkeypatch):
    monkeypatch.setattr("icl.retrieve.approximate.FEW", 10)  # else so few rows are searched exactly
    among = np.arange(0, 400, 2)
    found = index.search(QUERIES, 6, among=among)
    truth = DemoIndex.build(pool, encoder=HashEncoder()).search(QUERIES, 6, among=among)
    assert all(pool.index(hit.example) % 2 == 0 for hits in found for hit in hits)
    assert all(len(hits) == 6 for hits in found)
    assert recall(found, truth) > 0.85
    few = np.array([5, 17, 200])
    assert [sorted(h.example.fields["text"] for h in hits) for hits in index.search(QUERIES, 9, among=few)] == [
        sorted(pool[i].fields["text"] for i in few)
    ] * 5
    assert index.search(QUERIES, 3, among=np.zeros(0, dtype=np.int64)) == [[]] * 5


def test_a_filter_before_an_approximate_search(pool, kind):
    index = DemoIndex.build(pool, encoder=HashEncoder())
    value = [{"label": {"only": ["login"]}}, {"knn": {"index": kind}}]
    found = build_retriever(value, pool, index=lambda: index, labels=("card", "refund", "login"), seed=0)(QUERIES, 5)
    assert all(len(hits) == 5 and {hit.example.target for hit in hits} == {"login"} for hits in found)


def test_rows_that_come_and_go(kind, monkeypatch):
    """After every change all the rows there are can be found, none that is gone, and nearly all of the nearest."""
    monkeypatch.setattr("icl.retrieve.approximate.FEW", 10)
    rng = np.random.default_rng(5)
    rows, spare = pool_of(260)[:200], pool_of(260)[200:]
    index = DemoIndex.build(rows, encoder=HashEncoder(), kind=kind)
    for step in range(12):
        if rng.random() < 0.5:
            gone = [rows[i] for i in rng.permutation(len(rows))[:7]]
            index.remove([row.uid for row in gone])
            rows = [row for row in rows if row not in gone]
        else:
            new = [spare.pop() for _ in range(min(4, len(spare)))]
            index.add(new)
            rows = [*rows, *new]
        exact = DemoIndex.build(rows, encoder=HashEncoder())
        assert recall(index.search(QUERIES, 8), exact.search(QUERIES, 8)) > 0.85, step
        found = index.search([row.fields["text"] for row in rows], 1)
        assert np.mean([hits[0].uid == row.uid for hits, row in zip(found, rows, strict=True)]) > 0.97
        everything = index.search(["anything"], len(rows))[0]
        assert {hit.uid for hit in everything} == {row.uid for row in rows}
        some = np.arange(0, len(rows), 3)
        assert {rows.index(hit.example) % 3 for hits in index.search(QUERIES, 5, among=some) for hit in hits} == {0}


def test_on_disk_and_mapped(pool, index, kind, tmp_path):
    before = index.search(QUERIES, 7)
    index.save(tmp_path / "i")
    opened = DemoIndex.open(tmp_path / "i", encoder=HashEncoder())
    assert (opened.kind, opened.recall, len(opened)) == (kind, index.recall, 400)
    assert opened.search(QUERIES, 7) == before
    opened.verify()
    opened.add([example("a new card")])
    assert opened.search(["a new card"], 1)[0][0].example.fields["text"] == "a new card"
    opened.save(tmp_path / "i")
    again = DemoIndex.open(tmp_path / "i", encoder=HashEncoder())
    again.verify()
    assert again._state.structure.n == 401, "extended, so that the new row is found by the structure too"
    assert again.search(["a new card"], 1)[0][0].example.fields["text"] == "a new card"
    again.remove([pool[0].uid])
    again.save(tmp_path / "i")
    last = DemoIndex.open(tmp_path / "i", encoder=HashEncoder())
    last.verify()
    assert len(last) == last._state.structure.n == 400
    assert sorted(p.suffix for p in (tmp_path / "i").glob("search-*")) == [".faiss", ".sums"], "the old structure's files are gone"


def test_an_exact_index_says_nothing_of_a_search(pool, tmp_path):
    DemoIndex.build(pool[:5], path=tmp_path / "i", encoder=HashEncoder())
    assert "search" not in (tmp_path / "i" / "manifest.json").read_text()
    assert not list((tmp_path / "i").glob("search*"))


def test_the_fingerprint_knows_of_an_approximate_search(pool, index):
    exact = DemoIndex.build(pool, encoder=HashEncoder())
    assert index.fingerprint != exact.fingerprint
    assert index.searched_by("exact").fingerprint == exact.fingerprint
    assert index.searched_by("exact").search(QUERIES, 5) == exact.search(QUERIES, 5)


@pytest.mark.parametrize("where", [0, 40, 3000, -5])
def test_a_changed_structure_is_refused_before_faiss_reads_it(index, where, tmp_path):
    index.save(tmp_path / "i")
    path = next((tmp_path / "i").glob("search-*.faiss"))
    content = bytearray(path.read_bytes())
    content[where] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{path.name}(.|\n)*(check sum|sha256)(.|\n)*icl index build"):
        DemoIndex.open(tmp_path / "i", encoder=HashEncoder()).verify()
    path.write_bytes(content[:-9])
    with pytest.raises(InputError, match="the manifest says"):
        DemoIndex.open(tmp_path / "i")
    path.unlink()
    with pytest.raises(InputError, match="the file is missing"):
        DemoIndex.open(tmp_path / "i")


def test_a_structure_of_other_rows_is_found_out(pool, index, kind, tmp_path):
    """Whole by its sums, but it is not the structure of these vectors: verify measures that it no longer finds them."""
    other = np.random.default_rng(1).standard_normal(index.vectors.shape).astype(np.float32)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    wrong = approximate(other, index._state.ids, kind)
    broken = DemoIndex.build(pool, encoder=HashEncoder())
    from dataclasses import replace

    broken._state = replace(broken._state, structure=replace(wrong, recall=0.99))
    broken.save(tmp_path / "i")
    with pytest.raises(InputError, match=r"the search finds 0\.\d+ of the nearest rows, and found 0\.99"):
        DemoIndex.open(tmp_path / "i", encoder=HashEncoder()).verify()
