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


@pytest.mark.parametrize("value", ["random", "balanced", "kmeans", "votek", {"shared": {"clusters": 3, "own": 2}}])
def test_what_is_marked_as_shared_is_the_same_for_all_but_who_has_a_row_of_its_own_in_it(pool, value):
    index = DemoIndex.build(pool, encoder=HashEncoder())
    retrieve = build_retriever(value, pool, index=lambda: index, labels=("card", "refund", "login"), seed=0)
    beginnings = {}
    for hits in retrieve(QUERIES, 6):
        marked = [hit.uid for hit in hits if hit.shared]
        assert len(marked) == (4 if isinstance(value, dict) else 6)
        assert marked == uids(hits)[-len(marked) :], "the shared ones come last, so they stand first in the prompt"
        beginnings[tuple(marked)] = hits
    assert len(beginnings) <= (3 if isinstance(value, dict) else 1)
    hits = next(iter(beginnings.values()))
    row = next(hit.example for hit in hits if hit.shared)
    for query in (row, example(str(row.fields["text"]).upper(), "refund")):  # the row itself, and a copy of it
        own = retrieve([query], 6)[0]
        assert row.uid not in uids(own)
        if uids(own)[-4:] not in [list(marked)[-4:] for marked in beginnings]:
            assert not any(hit.shared for hit in own)


@pytest.mark.parametrize("value", ["knn", "bm25", {"random": {"per_query": True}}, {"balanced": {"per_query": True}}])
def test_what_is_chosen_for_each_query_is_not_marked(pool, value):
    index = DemoIndex.build(pool, encoder=HashEncoder())
    retrieve = build_retriever(value, pool, index=lambda: index, labels=("card", "refund", "login"), seed=0)
    assert not any(hit.shared for hits in retrieve(QUERIES, 6) for hit in hits)


def prompts_of(pool, retriever, **options):
    method = icl.FewShot(None, retriever=retriever, shots=6, encoder=HashEncoder(), **options)
    return method.fit(pool).prompts(QUERIES)


def test_the_prompt_says_up_to_which_message_it_is_shared(pool):
    """Computed from the messages themselves: as many as all prompts of a cluster begin with."""
    for own in (0, 2):
        for prompt in (made := prompts_of(pool, {"shared": {"clusters": 1, "own": own}})):
            assert prompt.cache_break == 2 * (6 - own)
            assert prompt.messages[: prompt.cache_break] == made[0].messages[: prompt.cache_break]
            assert [d.shared for d in prompt.demonstrations] == [True] * (6 - own) + [False] * own
    assert {prompt.cache_break for prompt in prompts_of(pool, "knn")} == {0}
    instructed = icl.Template.parse(TEMPLATE, "told")
    assert {prompt.cache_break for prompt in prompts_of(pool, "knn", template=instructed)} == {1}
    assert {prompt.cache_break for prompt in prompts_of(pool, "random", template=instructed)} == {13}
    about_the_query = icl.Template.parse(TEMPLATE.replace("Sort it", "Sort {{ text }}"), "told")
    assert {prompt.cache_break for prompt in prompts_of(pool, "random", template=about_the_query)} == {0}
    assert {prompt.cache_break for prompt in prompts_of(pool, "random", order="similar_first")} == {12}
    assert {prompt.cache_break for prompt in prompts_of(pool, {"shared": {"clusters": 1, "own": 2}}, order="similar_first")} == {0}


def test_a_prompt_that_lost_shared_demonstrations_has_another_beginning(pool):
    whole = prompts_of(pool, {"shared": {"clusters": 1, "own": 2}}, tokenizer=len)
    limit = min(prompt.n_tokens for prompt in whole) - 20
    cut = prompts_of(pool, {"shared": {"clusters": 1, "own": 2}}, tokenizer=len, max_tokens=limit)
    assert all(prompt.dropped for prompt in cut)
    assert {prompt.cache_break for prompt in cut} == {0}


TEMPLATE = """---
input: [text]
---
{% block instruction %}Sort it.{% endblock %}
{% block example %}Text: {{ text }}
Queue:{% endblock %}
{% block answer %} {{ answer }}{% endblock %}
"""
