"""Demonstrations shared by clusters of queries: the same beginning for all queries of a cluster, the own ones last."""

import pytest
from retrieve_samples import HashEncoder, example, pool_of

import icl
from icl import DemoIndex
from icl.retrieve import build_retriever
from icl.retrieve.clusters import assigned, centres
from icl.values import as_query


@pytest.fixture(scope="module")
def pool():
    return pool_of(60)


def retriever(pool, **settings):
    index = DemoIndex.build(pool, encoder=HashEncoder())
    return build_retriever([{"shared": settings}], pool, index=lambda: index, labels=(), seed=0), index


def uids(hits):
    return [hit.uid for hit in hits]


QUERIES = [
    as_query(f"{text} {i}", ["text"]) for i in range(8) for text in ("where is my card", "money back please", "the password is lost")
]


@pytest.mark.parametrize("own", [0, 2, 5])
def test_queries_of_a_cluster_share_all_but_their_own(pool, own):
    retrieve, index = retriever(pool, clusters=4, own=own)
    found = retrieve(QUERIES, 6)
    near = index.search(QUERIES, 12)
    clusters = assigned(index.encode(QUERIES), centres(index.vectors, 4, 0)).tolist()
    tails = {}
    for hits, cluster, close in zip(found, clusters, near, strict=True):
        assert len(set(uids(hits))) == 6
        tails.setdefault(cluster, set()).add(tuple(uids(hits)[own:]))
        assert uids(hits)[:own] == [uid for uid in uids(close) if uid not in uids(hits)[own:]][:own], "the nearest that are not shared"
    assert len(tails) > 1
    assert all(len(each) == 1 for each in tails.values())


def test_neither_the_batch_nor_its_order_matters(pool):
    retrieve, _ = retriever(pool, clusters=3, own=2)
    together = retrieve([*QUERIES, *pool[:5]], 6)
    assert [retriever(pool, clusters=3, own=2)[0]([query], 6)[0] for query in [*QUERIES[:4], *pool[:2]]] == together[:4] + together[24:26]
    assert retrieve([*QUERIES, *pool[:5]][::-1], 6)[::-1] == together


def test_a_querys_own_row_is_replaced_for_that_query_alone(pool):
    retrieve, _ = retriever(pool, clusters=1)
    shared = uids(retrieve(QUERIES[:1], 6)[0])
    row = next(row for row in pool if row.uid == shared[2])
    own = uids(retrieve([row], 6)[0])
    assert set(shared) - set(own) == {row.uid}
    assert own[:2] == shared[:2]
    copy = example(row.fields["text"].upper(), "refund")
    assert uids(retrieve([copy], 6)[0]) == own
    assert all(uids(hits) == shared for hits in retrieve(QUERIES, 6))


def test_all_own_is_knn_and_more_clusters_than_rows_are_fine(pool):
    retrieve, index = retriever(pool, clusters=5, own=6)
    assert [uids(hits) for hits in retrieve(QUERIES, 6)] == [uids(hits) for hits in index.search(QUERIES, 6)]
    many, _ = retriever(pool[:7], clusters=50)
    assert all(len(hits) == 5 for hits in many(QUERIES, 5))


def test_prompts_of_a_cluster_begin_alike(pool):
    """The shared demonstrations stand first, so a cache of beginnings serves them; the own ones stand next to the query."""
    method = icl.FewShot(None, retriever={"shared": {"clusters": 1, "own": 2}}, shots=6, encoder=HashEncoder())
    prompts = method.fit(pool).prompts(QUERIES)
    beginnings = {tuple(d.uid for d in prompt.demonstrations[:4]) for prompt in prompts}
    assert len(beginnings) == 1
    assert len({tuple(d.uid for d in prompt.demonstrations[4:]) for prompt in prompts}) > 3
    plain = icl.FewShot(None, retriever="knn", shots=6, encoder=HashEncoder()).fit(pool).prompts(QUERIES)
    assert len({tuple(d.uid for d in prompt.demonstrations[:4]) for prompt in plain}) > 5
