"""Retrievers as users write them: names, stages, functions, indexes, a file dropped into a folder."""

import pytest
from retrieve_samples import HashEncoder, example, pool_of

from icl import DemoIndex
from icl.errors import InputError
from icl.retrieve import build_order, build_retriever, without_duplicates
from icl.values import Example, Hit, as_query, content_digest

QUERY = as_query("where is the card", ["text"])


def retriever(value, pool, **options):
    built = []

    def index():
        built.append(DemoIndex.build(pool, encoder=HashEncoder()))
        return built[-1]

    retrieve = build_retriever(value, pool, **{"index": index, "labels": ("card", "refund", "login"), "seed": 0, **options})
    retrieve.built = built
    return retrieve


def uids(found):
    return [[hit.uid for hit in hits] for hits in found]


@pytest.fixture(scope="module")
def pool():
    return pool_of(60)


def test_stages_narrow_down(pool):
    """The first gives n candidates, each further one narrows them, the last leaves k."""
    index = DemoIndex.build(pool, encoder=HashEncoder())
    near = index.search([QUERY], 9)[0]
    (hits,) = retriever([{"knn": {"n": 9}}, "balanced"], pool)([QUERY], 3)
    by_label = {}
    for hit in near:
        by_label.setdefault(hit.example.target, hit.uid)
    assert {h.uid for h in hits} == set(by_label.values()) if len(by_label) == 3 else {h.uid for h in hits} <= {h.uid for h in near}
    (three,) = retriever([{"knn": {"n": 20}}, {"bm25": {"n": 6}}, "random"], pool)([QUERY], 2)
    assert {h.uid for h in three} <= {h.uid for h in index.search([QUERY], 20)[0]}
    assert uids(retriever([{"random": {"n": 60}}, "knn"], pool)([QUERY], 5)) == uids([near[:5]])
    assert len(retriever([{"knn": {"n": 2}}, "random"], pool)([QUERY], 5)[0]) == 5, "never fewer candidates than shots"


def test_the_index_is_built_when_it_is_needed(pool):
    for value in ("random", "balanced", "bm25"):
        retrieve = retriever(value, pool)
        retrieve([QUERY], 3)
        assert not retrieve.built
    retrieve = retriever("knn", pool)
    assert not retrieve.built
    retrieve([QUERY], 3)
    retrieve([QUERY], 3)
    assert len(retrieve.built) == 1


@pytest.mark.parametrize(
    "value", ["random", "balanced", "knn", "bm25", [{"knn": {"n": 12}}, "random"], {"random": {"per_query": True}}], ids=str
)
def test_never_the_query_nor_its_duplicates(value):
    """Copies in other case and punctuation are the same text; a task row never sees one, in any batch, and still gets k rows."""
    texts = ["Where is my card?", "where is MY card", "Where… is my card!!", "where is my card"]
    copies = [example(text, "card") for text in texts]
    pool = [*copies, *pool_of(20)]
    row = example("WHERE IS MY CARD", "card")
    queries = [*pool, row]
    found = retriever(value, pool)(queries, 6)
    for query, hits in zip(queries, found, strict=True):
        assert len({h.uid for h in hits}) == 6
        assert query.uid not in {h.uid for h in hits}
        if query in copies or query is row:
            assert not {h.uid for h in hits} & {c.uid for c in copies}
    assert [uids(retriever(value, pool)([q], 6))[0] for q in queries] == uids(found)


def test_rows_that_hold_nothing_but_duplicates():
    copies = [example("the same", occurrence=i) for i in range(40)]
    pool = [*copies, example("another", "refund")]
    for value in ("knn", "random", "bm25"):
        found = retriever(value, pool)([copies[3], pool[-1]], 4)
        assert uids(found[:1]) == [[pool[-1].uid]]
        assert len(found[1]) == 4


def test_a_typed_query_may_get_its_exact_match(pool):
    typed = as_query(pool[5].fields["text"], ["text"])
    assert retriever("knn", pool)([typed], 1)[0][0].uid == pool[5].uid
    assert retriever("knn", pool)([pool[5]], 1)[0][0].uid != pool[5].uid


def test_signs_alone_are_no_duplicates_of_each_other():
    pool = [example("🙂"), example("🙁"), example("!!")]
    assert len(retriever("random", pool)([pool[0]], 3)[0]) == 2


def test_the_guard_keeps_a_shared_draw_shared(pool):
    """Asking for more only where something was left out: everybody else's prompt stays the common one."""
    queries = [as_query(f"q {i}", ["text"]) for i in range(5)]
    shared = uids(retriever("balanced", pool)(queries, 6))[0]
    asked = []

    def select(queries, k, candidates):
        asked.append((len(queries), k))
        return [[Hit(e.uid, 0.0, e) for e in pool[:k]] for _ in queries]

    rows = [example("not in the pool"), pool[2]]
    assert uids(without_duplicates(select)(rows, 4, None)) == [[e.uid for e in pool[:4]], [pool[i].uid for i in (0, 1, 3, 4)]]
    assert asked == [(2, 4), (1, 6)]
    assert uids(retriever("balanced", pool)([example("not in the pool")], 6))[0] == shared


def test_a_function_is_a_retriever(pool):
    def mine(queries, k):
        return [[Hit(e.uid, 1.0, e) for e in pool[:k]] for _ in queries]

    assert uids(retriever(mine, pool)([QUERY, pool[1]], 3)) == [[e.uid for e in pool[:3]], [pool[i].uid for i in (0, 2, 3)]]


def test_a_function_may_be_a_stage(pool):
    def only_refunds(queries, k, candidates):
        return [[h for h in hits if h.example.target == "refund"][:k] for hits in candidates]

    (hits,) = retriever([{"knn": {"n": 60}}, only_refunds, "knn"], pool)([QUERY], 4)
    assert {h.example.target for h in hits} == {"refund"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda q, k: [], "gave 0 lists of hits for 1 queries"),
        (lambda q, k: [[Hit(r.uid, 0.0, r) for r in pool_of(k + 1)]], "gave 4 hits where at most 3"),
        (lambda q, k: [[Hit(r.uid, 0.0, r) for r in pool_of(1) * 2]], "the same row twice"),
        (lambda q, k: [pool_of(2)], "no Hit"),
    ],
)
def test_a_function_that_breaks_the_contract_is_named(pool, wrong, message):
    with pytest.raises(InputError, match=rf"the selector '<lambda>' {message}|{message}"):
        retriever(wrong, pool)([QUERY], 3)
    with pytest.raises(InputError, match="not among its candidates"):
        retriever([{"knn": {"n": 5}}, lambda q, k, c: [[Hit("x-0", 0.0, example("x"))]]], pool)([QUERY], 3)


def test_an_index_is_kept_live(pool):
    index = DemoIndex.build(pool[:20], encoder=HashEncoder())
    retrieve = build_retriever(index, (), index=lambda: pytest.fail("another index was asked for"), labels=(), seed=0)
    assert uids(retrieve([QUERY], 5)) == uids(index.search([QUERY], 5))
    new = example("where is the card now")
    index.add([new])
    assert retrieve([QUERY], 1)[0][0].uid == new.uid
    index.remove([new.uid])
    assert retrieve([QUERY], 1)[0][0].uid != new.uid


@pytest.mark.parametrize("value", ["random", "balanced", "bm25", "knn"])
def test_rows_added_to_a_live_pool_are_seen(value, pool):
    index = DemoIndex.build(pool[:2], encoder=HashEncoder())
    rows = list(pool[:2])
    retrieve = build_retriever(value, rows, index=lambda: index, labels=(), seed=0)
    assert len(retrieve([QUERY], 9)[0]) == 2
    new = example("where is the new one", "login")
    rows.append(new)
    index.add([new])
    assert new.uid in uids(retrieve([QUERY], 9))[0]


def test_odd_calls(pool):
    retrieve = retriever("knn", pool)
    assert retrieve([], 3) == []
    assert retrieve([QUERY], 0) == [[]]
    with pytest.raises(InputError, match="-1 demonstrations"):
        retrieve([QUERY], -1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("kn", "Did you mean 'knn'"),
        ([], "at least one stage"),
        ({"knn": {"m": 3}}, "has no option 'm'"),
        ([{"knn": {"n": 3}}, "mmmr"], r"retriever\.1: there is no selector named 'mmmr'"),
        (3, "a selector is a name or a mapping"),
    ],
)
def test_what_nobody_can_mean(pool, value, message):
    with pytest.raises(InputError, match=message):
        retriever(value, pool)


DROPPED = '''"""The shortest rows."""

from pydantic import BaseModel, ConfigDict

from icl.values import Hit, embedded_text


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    longest: bool = False


def build(settings, context):
    sign = -1 if settings.longest else 1
    ranked = sorted(context.pool, key=lambda e: sign * len(embedded_text(e.fields)))

    def select(queries, k, candidates):
        return [[Hit(e.uid, 0.0, e) for e in ranked if e.uid != q.uid][:k] for q in queries]

    return select
'''


def test_a_selector_is_one_file(pool, tmp_path):
    """Dropped into a folder that the user names, it is there by its name, with its options, alone or as a stage."""
    dropped_selector(tmp_path)
    rows = [*pool, example("tiny"), example("a very " * 30)]
    assert retriever("shortest", rows, folders=[tmp_path])([QUERY], 1)[0][0].example.fields["text"] == "tiny"
    assert uids(retriever({"shortest": {"longest": True}}, rows, folders=[tmp_path])([QUERY], 1)) == [[rows[-1].uid]]
    staged = retriever(["shortest", "knn"], rows, folders=[tmp_path])([QUERY], 3)
    assert len(staged[0]) == 3
    with pytest.raises(InputError, match="there is no selector named 'shortest'"):
        retriever("shortest", rows)


DROPPED_ORDER = '''"""Demonstrations by the length of their text."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    longest_last: bool = True


def build(settings, context):
    sign = 1 if settings.longest_last else -1
    return lambda query, hits: sorted(hits, key=lambda hit: sign * len(hit.example.fields["text"]))
'''


def test_an_order_is_one_file(pool, tmp_path):
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "by_length.py").write_text(DROPPED_ORDER)
    hits = [Hit(e.uid, 1.0, e) for e in pool[:6]]
    lengths = [len(h.example.fields["text"]) for h in build_order("by_length", labels=(), seed=0, folders=[tmp_path])(QUERY, hits)]
    assert lengths == sorted(lengths)
    value = {"by_length": {"longest_last": False}}
    assert [len(h.example.fields["text"]) for h in build_order(value, labels=(), seed=0, folders=[tmp_path])(QUERY, hits)] == lengths[::-1]
    nested = retriever({"hybrid": {"of": ["knn", "shortest"]}}, pool, folders=[dropped_selector(tmp_path)])([QUERY], 3)
    assert len(nested[0]) == 3, "a component that names others finds the user's own"


def dropped_selector(folder):
    (folder / "selectors").mkdir(exist_ok=True)
    (folder / "selectors" / "shortest.py").write_text(DROPPED)
    return folder


def test_ten_thousand_queries_in_one_call(pool):
    queries = [Example(f"{content_digest({'text': str(i)})}-0", {"text": f"where is {i % 97}"}, None) for i in range(10_000)]
    found = retriever("knn", pool)(queries, 4)
    assert len(found) == 10_000
    assert uids(found[:97]) == uids(found[97:194])
    for value in ("mmr", "dpp", "coverage", ["bm25", {"mmr": {"n": 9}}, "balanced"], {"shared": {"own": 1}}):
        staged = retriever(value, pool)(queries[:1000], 4)
        assert {len(hits) for hits in staged} == {4}
        assert uids(staged[:97]) == uids(staged[97:194])
