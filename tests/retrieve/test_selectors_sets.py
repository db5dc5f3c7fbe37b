"""Selectors that choose sets, each against an independent slow definition on small cases."""

import itertools
import math
import random

import numpy as np
import pytest
from retrieve_samples import HashEncoder, example, pool_of

from icl import DemoIndex
from icl.errors import InputError
from icl.plugins import Context, build
from icl.retrieve import vote_k
from icl.retrieve.annotate import Votes
from icl.retrieve.selectors import coverage, dpp, mmr
from icl.retrieve.terms import words
from icl.values import Hit, as_query, embedded_text

QUERY = as_query("where is the card and the money for the kettle", ["text"])


def selector(value, pool, seed=0):
    return build("selector", value, Context(pool=pool, index=DemoIndex.build(pool, encoder=HashEncoder()), seed=seed))


def uids(hits):
    return [hit.uid for hit in hits]


def unit(n, d, seed):
    vectors = np.random.default_rng(seed).standard_normal((n, d))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def case(seed, n=9, d=6):
    """(vectors, cosines to a query) as selectors get them."""
    vectors = unit(n, d, seed).astype(np.float32).astype(np.float64)
    query = unit(1, d, seed + 1000)[0]
    return vectors, (vectors @ query).astype(np.float32)


@pytest.fixture(scope="module")
def pool():
    return pool_of(40)


# ── MMR ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def slow_mmr(vectors, cosines, k, relevance):
    taken = []
    while len(taken) < min(k, len(vectors)):
        scores = {}
        for z in range(len(vectors)):
            if z not in taken:
                redundancy = max((float(vectors[z] @ vectors[t]) for t in taken), default=0.0)
                scores[z] = relevance * float(cosines[z]) - (1 - relevance) * redundancy
        if not taken:
            scores = {z: relevance * float(cosines[z]) for z in scores}
        taken.append(max(scores, key=lambda z: (round(scores[z], 6), -z)))
    return taken


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("relevance", [0.0, 0.3, 0.5, 1.0])
def test_mmr_is_its_formula(seed, relevance):
    vectors, cosines = case(seed)
    assert mmr.chosen(vectors, cosines, 9, relevance) == slow_mmr(vectors, cosines, 9, relevance)


def test_mmr_in_a_retriever_reads_the_vectors_of_the_index(pool):
    index = DemoIndex.build(pool, encoder=HashEncoder())
    ranked = index.search([QUERY], 12)[0]
    vectors = index.vectors_of([hit.example for hit in ranked]).astype(float)
    expected = slow_mmr(vectors, [hit.score for hit in ranked], 5, 0.5)
    (hits,) = selector({"mmr": {"candidates": 12}}, pool)([QUERY], 5, None)
    assert uids(hits) == [ranked[i].uid for i in expected]
    assert [hit.score for hit in hits] == pytest.approx([ranked[i].score for i in expected], abs=1e-6)
    assert uids(selector({"mmr": {"relevance": 1}}, pool)([QUERY], 6, None)[0]) == uids(ranked[:6]), "relevance alone is knn"


# ── DPP ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def log_det(vectors, cosines, rows, trade_off):
    """log det of the whole kernel, relevances included, as CEIL writes it."""
    scale = np.exp((1 + cosines.astype(float)) / 2 / (2 * trade_off))
    kernel = scale[:, None] * (1 + vectors @ vectors.T) / 2 * scale
    sign, value = np.linalg.slogdet(kernel[np.ix_(rows, rows)])
    return value if sign > 0 else -math.inf


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("trade_off", [0.05, 0.1, 1.0, 10.0])
def test_dpp_is_the_greedy_mode_of_the_determinant(seed, trade_off):
    vectors, cosines = case(seed)
    taken = dpp.chosen(vectors, cosines, 5, trade_off)
    for step in range(5):
        gains = [log_det(vectors, cosines, [*taken[:step], z], trade_off) if z not in taken[:step] else -math.inf for z in range(9)]
        assert gains[taken[step]] == pytest.approx(max(gains), abs=1e-5)
    best = max(log_det(vectors, cosines, list(rows), trade_off) for rows in itertools.combinations(range(9), 3))
    assert log_det(vectors, cosines, taken[:3], trade_off) > best - 1, "greedy comes close to the best of all sets"


def test_dpp_never_takes_a_row_twice():
    """OpenICL's copy gave [7, 11, 3, 3, 3, 3, 3, 3] on three texts in four copies."""
    base = unit(3, 16, 1).astype(np.float32).astype(float)
    vectors = np.repeat(base, 4, axis=0)
    cosines = (vectors @ base.mean(axis=0)).astype(np.float32)
    taken = dpp.chosen(vectors, cosines, 12, 0.1)
    assert sorted(taken) == list(range(12))
    assert sorted(i // 4 for i in taken[:3]) == [0, 1, 2], "one of each text first"
    few = unit(40, 3, 2).astype(np.float32).astype(float)
    assert sorted(dpp.chosen(few, few[:, 0].astype(np.float32), 40, 0.1)) == list(range(40)), "more rows than dimensions"


# ── coverage ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def set_coverage(cover, rows):
    return sum(max(cover[w][z] for z in rows) for w in range(len(cover)))


def slow_coverage(cover, k):
    """Algorithm 1 of the paper, written out."""
    n = len(cover[0])
    taken, current, value = [], [], -math.inf
    while len(taken) < min(k, n):
        scores = {z: round(set_coverage(cover, [*current, z]), 9) for z in range(n) if z not in taken}
        best = max(scores, key=lambda z: (scores[z], -z))
        if scores[best] > value:
            value = scores[best]
            taken.append(best)
            current.append(best)
        else:
            current, value = [], -math.inf
    return taken


@pytest.mark.parametrize("seed", range(10))
def test_coverage_is_the_papers_algorithm(seed):
    rng = np.random.default_rng(seed)
    cover = np.round(rng.random((4, 8)), 2) * (rng.random((4, 8)) < 0.6)
    full = [z for z in range(8) if cover[:, z].any()]
    assert coverage.chosen(cover, len(full)) == slow_coverage(cover, len(full))
    assert sorted(coverage.chosen(cover, 8)) == list(range(8))


@pytest.mark.parametrize("seed", range(6))
def test_greedy_coverage_is_near_the_best_of_all_sets(seed):
    """The sum of maxima is submodular: greedy reaches at least 1 - 1/e of the best."""
    cover = np.random.default_rng(seed).random((5, 8))
    best = max(set_coverage(cover, rows) for rows in itertools.combinations(range(8), 3))
    taken = coverage.chosen(cover, 3)
    assert set_coverage(cover, taken) >= (1 - 1 / math.e) * best


def slow_terms(pool, query, rows):
    documents = [words(embedded_text(e.fields)) for e in pool]
    mean = sum(map(len, documents)) / len(documents)
    result = []
    for word in dict.fromkeys(words(query)):
        n = sum(word in d for d in documents)
        if n:
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            own = [words(embedded_text(row.fields)) for row in rows]
            result.append([idf * d.count(word) / (d.count(word) + 1.5 * (0.25 + 0.75 * len(d) / mean)) for d in own])
    return np.array(result)


def test_coverage_of_terms(pool):
    (hits,) = selector({"coverage": {"candidates": 40}}, pool)([QUERY], 6, None)
    ranked = [hit.example for hit in selector("bm25", pool)([QUERY], 40, None)[0]]
    cover = slow_terms(pool, embedded_text(QUERY.fields), ranked)
    assert uids(hits) == [ranked[i].uid for i in slow_coverage(cover, 6)]
    assert [hit.score for hit in hits] == pytest.approx([float(cover[:, i].sum()) for i in slow_coverage(cover, 6)])
    together = {word for hit in hits[:3] for word in words(embedded_text(hit.example.fields))} & set(words(embedded_text(QUERY.fields)))
    nearest = {word for row in ranked[:3] for word in words(embedded_text(row.fields))} & set(words(embedded_text(QUERY.fields)))
    assert len(together) >= len(nearest)


def test_coverage_by_the_vectors_of_words(pool):
    encoder = HashEncoder()
    index = DemoIndex.build(pool, encoder=encoder)
    (hits,) = build("selector", {"coverage": {"by": "embedding"}}, Context(pool=pool, index=index))([QUERY], 5, None)
    ranked = [hit.example for hit in index.search([QUERY], 40)[0]]
    own = [[encoder.encode([w])[0].astype(float) for w in dict.fromkeys(words(embedded_text(row.fields)))] for row in ranked]
    asked = [encoder.encode([w])[0].astype(float) for w in dict.fromkeys(words(embedded_text(QUERY.fields)))]
    cover = np.round([[max(float(w @ v) for v in row) for row in own] for w in asked], 5)
    assert uids(hits) == [ranked[i].uid for i in slow_coverage(cover, 5)]


# ── k-means and vote-k ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Planted(HashEncoder):
    """Vectors of texts `<cluster> <i>`: well separated clusters, in which a lower i is nearer to the middle."""

    def _vector(self, text):
        cluster, i = (int(part) for part in text.split())
        vector = np.zeros(self.dimensions)
        vector[cluster], vector[8 + i] = 1, 0.02 * (i + 1)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def planted(sizes):
    return [example(f"{cluster} {i}") for cluster, size in enumerate(sizes) for i in range(size)]


def test_kmeans_takes_the_middle_of_each_cluster():
    rows = random.Random(3).sample(planted([9, 7, 5]), 21)
    select = build("selector", "kmeans", Context(pool=rows, index=DemoIndex.build(rows, encoder=Planted())))
    (hits,) = select([as_query("7 0", ["text"])], 3, None)
    assert [hit.example.fields["text"] for hit in hits] == ["0 0", "1 0", "2 0"], "the largest cluster first"
    own = next(row for row in rows if row.fields["text"] == "1 0")
    assert [hit.example.fields["text"] for hit in select([own], 3, None)[0]] == ["0 0", "1 1", "2 0"]
    among = [Hit(row.uid, 0.0, row) for row in rows if row.fields["text"][0] != "0"]
    assert {hit.example.fields["text"] for hit in select([own], 2, [among])[0]} == {"1 1", "2 0"}


def slow_votes(vectors, neighbours, rho, n):
    near = [sorted((u for u in range(len(vectors)) if u != v), key=lambda u: (-float(np.float32(vectors[v] @ vectors[u])), u))[:neighbours]
            for v in range(len(vectors))]  # fmt: skip
    taken = []
    while len(taken) < n:
        scores = {}
        for u in range(len(vectors)):
            if u not in taken:
                scores[u] = sum(rho ** -len(set(near[v]) & set(taken)) for v in range(len(vectors)) if v not in taken and u in near[v])
        taken.append(max(scores, key=lambda u: (round(scores[u], 9), -u)))
    return taken


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("neighbours", [1, 3, 8, 50])
def test_vote_k_is_its_definition(seed, neighbours):
    vectors = unit(25, 5, seed).astype(np.float32)
    exact = vectors.astype(np.float64)
    assert Votes(vectors, neighbours).best(25) == slow_votes(exact, neighbours, 10.0, 25)
    assert Votes(vectors, neighbours, 2.0).best(6) == slow_votes(exact, neighbours, 2.0, 6)


def test_vote_k_as_a_selector(pool):
    index = DemoIndex.build(pool, encoder=HashEncoder())
    order = Votes(index.vectors, 10).best(40)
    select = selector({"votek": {"neighbours": 10}}, pool)
    assert uids(select([QUERY], 6, None)[0]) == [pool[i].uid for i in order[:6]]
    own = pool[order[2]]
    assert uids(select([own], 6, None)[0]) == [pool[i].uid for i in [*order[:2], *order[3:7]]]


def test_vote_k_within_a_label_budget(pool):
    vectors = DemoIndex.build(pool, encoder=HashEncoder()).vectors
    assert vote_k(pool, 7, encoder=HashEncoder()) == [pool[i] for i in Votes(vectors).best(7)]
    assert vote_k(pool, 99, encoder=HashEncoder()) == pool
    assert vote_k(pool, 0, encoder=HashEncoder()) == []
    asked = []

    def confidence(labelled, others):
        asked.append(([pool.index(e) for e in labelled], len(others)))
        return [pool.index(e) / 100 for e in others]

    chosen = [pool.index(e) for e in vote_k(pool, 20, confidence=confidence, encoder=HashEncoder(), neighbours=6)]
    first = Votes(vectors, 6).best(2)
    assert asked == [(first, 38)]
    assert chosen[:2] == first
    assert len(set(chosen)) == 20
    ranked = sorted((i for i in range(40) if i not in first), reverse=True)
    buckets = [bucket.tolist() for bucket in np.array_split(ranked, 20)]
    assert not set(chosen) & set(buckets[0] + buckets[1]), "what the model is surest of needs no label"
    assert [sum(i in bucket for i in chosen) for bucket in buckets[2:]] == [1] * 18, "one row of each other bucket"
    slow = slow_second_stage(vectors.astype(float), first, buckets[2:], 6)
    assert chosen == slow
    known = [pool[i] for i in (5, 11, 12)]
    others = [each for each in pool if each not in known]
    beside = Votes(DemoIndex.build([*known, *others], encoder=HashEncoder()).vectors)
    for i in range(3):
        beside.take(i)
    assert vote_k(others, 7, labelled=known, encoder=HashEncoder()) == [others[i - 3] for i in beside.best(10)[3:]]
    asked.clear()
    second = vote_k(others, 20, labelled=known, confidence=lambda rows, rest: confidence(rows, rest), encoder=HashEncoder())
    assert asked[0][0][:3] == [5, 11, 12]
    assert asked[0][1] == 35
    assert len({each.uid for each in second}) == 20
    assert not {each.uid for each in second} & {each.uid for each in known}
    with pytest.raises(InputError, match="one number per row"):
        vote_k(pool, 20, confidence=lambda labelled, others: [1.0], encoder=HashEncoder())
    with pytest.raises(InputError, match="label budget is -1"):
        vote_k(pool, -1, encoder=HashEncoder())


def slow_second_stage(vectors, first, buckets, neighbours):
    near = [sorted((u for u in range(len(vectors)) if u != v), key=lambda u: (-float(np.float32(vectors[v] @ vectors[u])), u))[:neighbours]
            for v in range(len(vectors))]  # fmt: skip
    taken = list(first)
    for bucket in buckets:
        votes = {u: sum(10.0 ** -len(set(near[v]) & set(taken)) for v in range(len(vectors)) if v not in taken and u in near[v])
                 for u in bucket}  # fmt: skip
        taken.append(max(bucket, key=lambda u: (round(votes[u], 9), -bucket.index(u))))
    return taken
