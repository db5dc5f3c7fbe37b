"""Stages that compose: filters before and behind a search, fused ranks, and the record of what each stage did."""

import pytest
from retrieve_samples import HashEncoder, example, pool_of

from icl import DemoIndex, patterns
from icl.errors import InputError
from icl.retrieve import Filter, build_retriever
from icl.retrieve.pools import LivePool
from icl.values import as_query

QUERY = as_query("where is the card", ["text"])


def retriever(value, pool, **options):
    index = DemoIndex.build(pool, encoder=HashEncoder())
    return build_retriever(value, pool, **{"index": lambda: index, "labels": ("card", "refund", "login"), "seed": 0, **options})


def uids(hits):
    return [hit.uid for hit in hits]


@pytest.fixture(scope="module")
def pool():
    return pool_of(60)


def test_a_filter_first_takes_rows_out_of_the_search(pool):
    """Rather than leaving the query with what happens to pass of its nearest."""
    near = DemoIndex.build(pool, encoder=HashEncoder()).search([QUERY], 60)[0]
    expected = [hit.uid for hit in near if hit.example.target == "login"][:5]
    assert uids(retriever([{"label": {"only": ["login"]}}, "knn"], pool)([QUERY], 5)[0]) == expected
    behind = retriever([{"knn": {"n": 5}}, {"label": {"only": ["login"]}}], pool)([QUERY], 5)[0]
    assert uids(behind) == [hit.uid for hit in near[:5] if hit.example.target == "login"]
    both = retriever([{"label": {"never": ["card"]}}, {"label": {"never": ["refund"]}}, "bm25", "knn"], pool)([QUERY], 5)[0]
    assert {hit.example.target for hit in both} == {"login"}


@pytest.mark.parametrize("candidates", ["knn", "bm25", "random", "balanced", "all", "hybrid"])
def test_whatever_finds_candidates_sees_only_what_a_first_filter_leaves(candidates, pool):
    found = retriever([{"label": {"only": ["refund"]}}, {candidates: {"n": 30}}, "knn"], pool)([QUERY, *pool[:7]], 6)
    for query, hits in zip([QUERY, *pool[:7]], found, strict=True):
        assert {hit.example.target for hit in hits} == {"refund"}
        assert len(hits) == 6
        assert query.uid not in uids(hits)


def test_rows_that_share_a_field_with_the_query():
    rows = [example(f"text {i}", lang="en" if i % 2 else "de") for i in range(20)]
    queries = [example("text 3", lang="de"), example("text 4", lang="en"), example("text 5", lang="fr")]
    same = {"field": {"name": "lang", "same_as_query": True}}
    found = retriever([same, "knn"], rows)(queries, 4)
    assert [{hit.example.fields["lang"] for hit in hits} for hits in found] == [{"de"}, {"en"}, set()]
    assert [retriever([same, "knn"], rows)([query], 4)[0] for query in queries] == found, "whatever the batch"
    only = retriever([{"field": {"name": "lang", "one_of": ["de"]}}, "knn"], rows)(queries, 4)
    assert {hit.example.fields["lang"] for hits in only for hit in hits} == {"de"}
    with pytest.raises(InputError, match=r"no field 'lnag'(.|\n)*Did you mean 'lang'"):
        retriever([{"field": {"name": "lnag"}}, "knn"], rows)


def test_length_in_words_characters_and_tokens():
    rows = [example("one"), example("one two three"), example("a b c d e f")]

    def kept(**settings):
        found = retriever({"length": settings}, rows, count_tokens=lambda text: 2 * len(text.split()))([QUERY], 9)[0]
        return [hit.example.fields["text"] for hit in found]

    assert kept() == ["one", "one two three", "a b c d e f"]
    assert kept(at_most=3) == ["one", "one two three"]
    assert kept(at_least=2, at_most=5) == ["one two three"]
    assert kept(at_most=11, unit="characters") == ["one", "a b c d e f"]
    assert kept(at_most=6, unit="tokens") == ["one", "one two three"]
    with pytest.raises(InputError, match="nothing counts tokens"):
        retriever({"length": {"unit": "tokens"}}, rows)


PERSONAL = {
    "email": ["write to jane.doe+x@mail.example.org please"],
    "phone": ["call +44 20 7946 0958", "(020) 7946 0958", "212-555-0175", "+4930123456"],
    "card": ["my card is 4111 1111 1111 1111", "5500005555555559"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432 is it"],
    "ip": ["from 192.168.0.12 yesterday"],
    "ssn": ["078-05-1120"],
}
HARMLESS = [
    "order 1234567890 of 2024-05-17", "it costs 1,234.50 or 12.99", "version 1.2.3.4.5", "4111 1111 1111 1112", "the years 1990-2000",
    "at 10:30 on 12/05/2024", "meet @home", "DE12 3456 7890 1234 5678 90", "999.1.1.1", "0000 0000 0000 0000",
]  # fmt: skip


@pytest.mark.parametrize("kind", PERSONAL)
def test_personal_data_of_each_kind_is_found(kind):
    rows = [example(text) for text in PERSONAL[kind]]
    assert retriever({"personal_data": {"kinds": [kind]}}, rows)([QUERY], 9) == [[]]
    assert retriever("personal_data", rows)([QUERY], 9) == [[]]


def test_personal_data_leaves_ordinary_numbers():
    rows = [example(text) for text in HARMLESS]
    assert [hit.example.fields["text"] for hit in retriever("personal_data", rows)([QUERY], 99)[0]] == HARMLESS
    own = {"personal_data": {"patterns": {"order": r"order \d+"}}}
    assert len(retriever(own, rows)([QUERY], 99)[0]) == len(HARMLESS) - 1
    with pytest.raises(InputError, match="'order' is not a regular expression"):
        retriever({"personal_data": {"patterns": {"order": "("}}}, rows)


def test_a_pattern_that_never_ends_leaves_the_row_out(monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 0.05)
    rows = [example("a" * 5000 + "!"), example("tea")]
    stage = retriever({"personal_data": {"patterns": {"name": "(a+)+$"}}}, rows)
    assert [hit.example for hit in stage([QUERY], 9)[0]] == rows[1:]


def test_reciprocal_rank_fusion_by_its_formula(pool):
    depth, c, lists = 20, 10.0, {}
    for name in ("knn", "bm25"):
        lists[name] = uids(retriever(name, pool)([QUERY], depth)[0])
    scores = {}
    for ranked in lists.values():
        for rank, uid in enumerate(ranked, start=1):
            scores[uid] = scores.get(uid, 0) + 1 / (c + rank)
    (hits,) = retriever({"hybrid": {"depth": depth, "c": c}}, pool)([QUERY], 8)
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True)[:8])
    assert all(hit.score == pytest.approx(scores[hit.uid]) for hit in hits)
    assert uids(retriever({"hybrid": {"of": ["knn"]}}, pool)([QUERY], 8)[0]) == lists["knn"][:8]
    with pytest.raises(InputError, match="there is no selector named 'kn'"):
        retriever({"hybrid": {"of": ["kn"]}}, pool)


def test_the_log_says_what_each_stage_did(pool):
    rows = [*pool, example("mail me at a@b.org", "card"), example("where is the card " * 9, "card")]
    value = ["personal_data", {"knn": {"n": 12}}, {"length": {"at_most": 20}}, {"label": {"never": ["refund"]}}, "balanced"]
    retrieve = retriever(value, rows)
    queries = [QUERY, pool[0], rows[-1]]
    traced = retrieve.trace(queries, 4)
    assert [each.hits for each in traced] == retrieve(queries, 4), "the same as without a record"
    for each in traced:
        assert [step.stage for step in each.steps] == ["personal_data", "knn", "length", "label", "balanced"]
        for before, after in zip(each.steps, each.steps[1:], strict=False):
            assert before.n_out == after.n_in
        assert all(step.n_in - step.n_out == sum(step.dropped.values()) for step in each.steps)
    first = traced[0].steps
    assert first[0] == ("personal_data", 62, 61, {"personal data: email": 1}, 0)
    assert first[1] == ("knn", 61, 12, {"not chosen": 49}, 0)
    # The long row stands among the first eleven, and its place is taken by the twelfth.
    assert first[2] == ("length", 12, 11, {"more than 20 words": 1}, 1)
    n_refund = sum(hit.example.target == "refund" for hit in retriever([{"knn": {"n": 12}}, "all"], rows)([QUERY], 12)[0])
    assert first[3][:4] == ("label", 11, 11 - n_refund, {"label refund": n_refund} if n_refund else {})
    assert first[4].n_out == len(traced[0].hits) == 4
    drawn = retriever([*value[:-1], "random"], rows).trace([QUERY], 4)[0]
    alone = retriever(value[:-1], rows)([QUERY], 4)[0]
    assert drawn.steps[4].n_changed == len(set(uids(drawn.hits)) - set(uids(alone))) > 0
    assert traced[1].steps[1].dropped["the query's own row or a copy"] == 1
    alone = retrieve.trace([pool[0]], 4)[0]
    assert alone == traced[1]


def test_the_log_follows_a_pool_that_changes(pool):
    index = DemoIndex.build(pool, encoder=HashEncoder())
    live = LivePool(index)
    retrieve = build_retriever([{"label": {"never": ["card"]}}, "knn"], live, index=lambda: index, labels=(), seed=0)
    assert retrieve.trace([QUERY], 3)[0].steps[0][1:3] == (60, 40)
    index.add([example("one more", "refund"), example("and another", "card")])
    assert retrieve.trace([QUERY], 3)[0].steps[0][1:3] == (62, 41)


def test_what_only_takes_out_leaves_all_others(pool):
    rows = pool_of(300)
    traced = retriever(["all", {"label": {"never": ["card"]}}, "knn"], rows).trace([QUERY], 3)[0]
    assert [(step.n_in, step.n_out) for step in traced.steps] == [(300, 300), (300, 200), (200, 3)]
    assert uids(traced.hits) == uids(retriever([{"label": {"never": ["card"]}}, "knn"], rows)([QUERY], 3)[0])


def test_stages_composed_in_python(pool):
    short = Filter(pool, lambda row, key: "odd" if int(str(row.fields["text"]).split()[-1]) % 2 else None)
    shown = retriever([short, "knn"], pool).trace([QUERY], 5)[0]
    assert all(int(hit.example.fields["text"].split()[-1]) % 2 == 0 for hit in shown.hits)
    assert shown.steps[0] == ("Filter", 60, 30, {"odd": 30}, 0)


def test_filters_follow_a_live_pool(pool):
    index = DemoIndex.build(pool[:6], encoder=HashEncoder())
    rows = list(pool[:6])
    live = build_retriever([{"label": {"only": ["card"]}}, "random", "knn"], rows, index=lambda: index, labels=(), seed=0)
    assert len(live([QUERY], 9)[0]) == 2
    new = example("where is the new one", "card")
    rows.append(new)
    index.add([new])
    assert new.uid in uids(live([QUERY], 9)[0])


def test_a_stage_that_asks_the_model_needs_one(pool, tmp_path):
    (tmp_path / "asks.py").write_text('"""Asks."""\nKIND = "selector"\nNEEDS_MODEL = True\ndef build(settings, context):\n'
                                      "    return lambda queries, k, candidates: context.score_many([(q, []) for q in queries]) and candidates\n")  # fmt: skip
    with pytest.raises(InputError, match="the selector 'asks' asks a language model, and there is none"):
        retriever(["knn", "asks"], pool, folders=[tmp_path])
    counted = retriever([{"knn": {"n": 3}}, "asks"], pool, folders=[tmp_path], score_many=lambda pairs: [None] * len(pairs))
    assert len(counted([QUERY, QUERY], 3)[0]) == 3
    assert counted.n_scored == 2
