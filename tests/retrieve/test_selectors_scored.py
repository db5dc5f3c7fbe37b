"""Selectors and orders that ask the model, against their formulas on a table of scores, and on a real tiny model."""

import itertools
import math

import numpy as np
import pytest
import tiny
from retrieve_samples import HashEncoder, example, pool_of

import icl
from icl import DemoIndex
from icl.errors import InputError
from icl.plugins import Context, available, build
from icl.retrieve import build_order, build_retriever
from icl.retrieve.selectors.mdl import code_length
from icl.seeds import numpy_rng_for
from icl.train.retriever import NothingScoredError, train_retriever
from icl.values import Hit, as_query

LABELS = ("card", "refund", "login")
SCORED = {
    "mdl": "mdl",
    "influence": "influence",
    "leave_one_out": "leave_one_out",
    "epr": {"epr": {"queries": 6, "candidates": 3, "epochs": 1}},
}
PROBED = ["globale", "locale", "pdo"]


def table(query, shown):
    """Scores that depend on the query and on the demonstrations in their order, and on nothing else."""
    scores = numpy_rng_for(0, query.uid, *(e.uid for e in shown)).normal(size=3)
    return scores - np.logaddexp.reduce(scores)


class Scorer:
    def __init__(self, one=table):
        self.one, self.calls, self.pairs = one, 0, []

    def __call__(self, pairs):
        self.calls += 1
        self.pairs += [(q.uid, tuple(e.uid for e in shown)) for q, shown in pairs]
        return [self.one(query, shown) for query, shown in pairs]


BASE = {}


@pytest.fixture(scope="module", autouse=True)
def _base(tiny_encoder):
    BASE["folder"] = str(tiny_encoder)


def train(rows, settings, score_many, to):
    try:
        train_retriever(rows, score_many, to, labels=LABELS, settings=settings, base=BASE["folder"])
    except NothingScoredError:
        return False
    return True


def selector(value, pool, scorer=None, seed=0):
    index = DemoIndex.build(pool, encoder=HashEncoder())
    scorer = scorer or Scorer()
    return build("selector", value, Context(pool=pool, index=index, labels=LABELS, seed=seed, score_many=scorer, train_encoder=train))


def order(value, pool, scorer=None, seed=0):
    return build_order(value, labels=LABELS, seed=seed, pool=pool, score_many=scorer or Scorer())


def uids(hits):
    return [hit.uid for hit in hits]


@pytest.fixture(scope="module")
def pool():
    return pool_of(30)


QUERY = as_query("where is the card", ["text"])


def test_all_that_ask_the_model_are_tested_here():
    for kind, names in (("selector", SCORED), ("order", PROBED)):
        asking = {name for name, plugin in available(kind).items() if getattr(plugin.load(), "NEEDS_MODEL", False)}
        assert asking == set(names)


# ── the contract of selectors ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SCORED.values(), ids=SCORED)
def test_the_contract(name, pool, one_thread):
    queries = [*pool[:5], QUERY, as_query("", ["text"])]
    for k in (1, 4, 29):
        for query, hits in zip(queries, selector(name, pool)(queries, k, None), strict=True):
            assert len(set(uids(hits))) == len(hits) == k
            assert query.uid not in uids(hits)
    together = [uids(hits) for hits in selector(name, pool)(queries, 4, None)]
    again = selector(name, pool)
    assert [uids(again([query], 4, None)[0]) for query in reversed(queries)][::-1] == together
    assert sorted(uids(selector(name, pool)([QUERY], 99, None)[0])) == sorted(e.uid for e in pool)
    assert [uids(hits) for hits in selector(name, pool[:1])([QUERY, pool[0]], 4, None)] == [[pool[0].uid], []]
    assert selector(name, [])([QUERY], 4, None) == [[]]
    assert selector(name, pool)([], 4, None) == []
    candidates = [[Hit(e.uid, 0.5, e) for e in pool[i : i + 6]] for i in range(7)]
    candidates[3] = []
    found = selector(name, pool)(queries, 3, candidates)
    for query, hits, allowed in zip(queries, found, candidates, strict=True):
        assert set(uids(hits)) <= set(uids(allowed)) - {query.uid}
        assert len(hits) == min(3, len(set(uids(allowed)) - {query.uid}))
    assert selector(name, pool, Scorer(lambda query, shown: None))([QUERY], 4, None)[0], "nothing could be scored: still demonstrations"


# ── MDL ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_code_length_is_the_entropy_in_bits():
    shares = np.array([0.5, 0.25, 0.25])
    assert code_length(np.log(shares)) == pytest.approx(1.5)
    assert code_length(np.log(shares) - 700) == pytest.approx(1.5), "scores need not be normalised"
    assert code_length(np.array([0.0, -math.inf])) == 0
    assert code_length(None) == math.inf


def test_mdl_takes_the_set_that_leaves_the_least_to_say(pool):
    scorer = Scorer()
    queries = [QUERY, *pool[:4]]
    found = selector({"mdl": {"sets": 6, "candidates": 10}}, pool, scorer)(queries, 3, None)
    assert scorer.calls == 1, "one call for all queries"
    index = DemoIndex.build(pool, encoder=HashEncoder())
    examples = {e.uid: e for e in pool}
    for query, hits in zip(queries, found, strict=True):
        sets = [shown for uid, shown in scorer.pairs if uid == query.uid]
        near = [hit.uid for hit in index.search([query], 11)[0] if hit.uid != query.uid][:10]
        assert 1 < len(set(sets)) == len(sets) <= 6
        assert sets[0] == tuple(near[:3][::-1]), "the nearest rows are one of the sets, the nearest stands last"
        assert all(set(shown) <= set(near) for shown in sets)
        lengths = [code_length(table(query, [examples[uid] for uid in shown])) for shown in sets]
        assert tuple(uids(hits)[::-1]) == sets[int(np.argmin(lengths))]


# ── influence and leave-one-out ──────────────────────────────────────────────────────────────────────────────────────────────


def additive(worth):
    """A model whose log-odds of the right label are the sum of what its demonstrations are worth."""

    def one(query, shown):
        scores = np.zeros(3)
        scores[LABELS.index(query.target)] = sum(worth[e.uid] for e in shown)
        return scores

    return one


@pytest.mark.parametrize(("name", "prompts"), [("influence", 600), ("leave_one_out", 60)])
def test_rows_that_help_come_first_and_rows_that_harm_last(name, prompts, pool):
    worth = {e.uid: 1.5 if i < 5 else -1.5 if i >= 25 else 0.0 for i, e in enumerate(pool)}
    scorer = Scorer(additive(worth))
    select = selector({name: {"prompts": prompts, "rows": 4, "shots": 3}}, pool, scorer)
    ranked = uids(select([QUERY], 30, None)[0])
    assert set(ranked[:5]) == {e.uid for e in pool[:5]}
    assert set(ranked[-5:]) == {e.uid for e in pool[25:]}
    calls, n = scorer.calls, len(scorer.pairs)
    select(pool, 5, None)
    assert (scorer.calls, len(scorer.pairs)) == (calls, n), "the worths of a pool are computed once"
    assert n == prompts * 4 * (4 if name == "leave_one_out" else 1), "as the settings say"
    assert all(query not in shown for query, shown in scorer.pairs), "no row is judged by a prompt that shows it"
    halves = [{query for query, _ in scorer.pairs} & set(shown) for _, shown in scorer.pairs]
    assert any(halves), "rows that judge one half are valued on the other"


def test_influence_by_its_formula(pool):
    """The mean value of the prompts with the row less that of those without, from the very pairs that were scored."""
    scorer = Scorer()
    (hits,) = selector({"influence": {"prompts": 40, "rows": 3, "shots": 3}}, pool, scorer)([QUERY], 30, None)
    targets, examples = {e.uid: LABELS.index(e.target) for e in pool}, {e.uid: e for e in pool}
    trials = []
    for i in range(0, len(scorer.pairs), 3):
        scores = [table(examples[q], [examples[uid] for uid in shown])[targets[q]] for q, shown in scorer.pairs[i : i + 3]]
        trials.append((scorer.pairs[i][1], sum(scores) / 3))
    assert len(trials) == 40
    for hit in hits:
        mine = next(half for half in (trials[:20], trials[20:]) if any(hit.uid in shown for shown, _ in half))
        inside, outside = [v for shown, v in mine if hit.uid in shown], [v for shown, v in mine if hit.uid not in shown]
        assert hit.score == pytest.approx(sum(inside) / len(inside) - sum(outside) / len(outside))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_accuracy_as_the_measure(pool):
    scorer = Scorer(additive({e.uid: 1.0 if i < 4 else -1.0 for i, e in enumerate(pool)}))
    (hits,) = selector({"influence": {"measure": "accuracy", "prompts": 80, "rows": 2, "shots": 2}}, pool, scorer)([QUERY], 4, None)
    assert len(set(uids(hits)) & {e.uid for e in pool[:4]}) >= 3


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def hits_of(rows):
    return [Hit(e.uid, 1 - i / 10, e) for i, e in enumerate(rows)]


def slow_value(name, shares, target):
    if name == "globale":
        counts = [sum(int(np.argmax(row)) == label for row in shares) / len(shares) for label in range(3)]
        return -sum(c * math.log(c) for c in counts if c)
    if name == "locale":
        return sum(-sum(p * math.log(p) for p in row) for row in shares) / len(shares)
    marginal = [sum(row[label] for row in shares) / len(shares) for label in range(3)]
    return -sum(m * math.log(m / t) for m, t in zip(marginal, target, strict=True))


@pytest.mark.parametrize("name", PROBED)
@pytest.mark.parametrize("n", [2, 3, 4])
def test_orders_by_their_formula(name, n, pool):
    """All permutations, each on the same probes; of equal ones the most similar last."""
    hits, scorer = hits_of(pool[3 : 3 + n]), Scorer()
    found = order({name: {"probes": 7}}, pool, scorer)(QUERY, hits)
    probes = list(dict.fromkeys(query for query, _ in scorer.pairs))
    assert len(probes) == 7
    assert not set(probes) & set(uids(hits)), "a probe is not among the demonstrations"
    examples = {e.uid: e for e in pool}
    values = {}
    for rows in itertools.permutations(hits):
        shares = [np.exp(table(examples[probe], [hit.example for hit in rows])) for probe in probes]
        values[tuple(uids(rows))] = round(slow_value(name, shares, [11 / 33] * 3), 6)
    assert len(scorer.pairs) == math.factorial(n) * 7
    assert values[tuple(uids(found))] == max(values.values())
    if list(values.values()).count(max(values.values())) == 1:
        assert tuple(uids(found)) == max(values, key=lambda rows: values[rows])


@pytest.mark.parametrize("name", PROBED)
def test_an_order_for_a_set_is_looked_for_once(name, pool):
    scorer = Scorer()
    arrange = order({name: {"probes": 3, "permutations": 5}}, pool, scorer)
    shared, own = hits_of(pool[:6]), hits_of(pool[4:10])
    queries = [as_query(f"q {i}", ["text"]) for i in range(4)]
    first = arrange.many(queries, [shared, own, shared, shared[:1]])
    assert scorer.calls == 1
    assert len(scorer.pairs) == 2 * 5 * 3, "two different sets, five orders, three probes"
    assert uids(first[0]) == uids(first[2])
    assert uids(arrange(queries[3], shared)) == uids(first[0])
    assert scorer.calls == 1
    assert [uids(order({name: {"probes": 3, "permutations": 5}}, pool)(q, h)) for q, h in zip(queries, [shared, own], strict=False)] == [
        uids(each) for each in first[:2]
    ], "whatever the batch"
    assert arrange.many([], []) == []
    assert arrange(QUERY, []) == []


def test_pdo_with_a_uniform_prior(pool):
    skewed = [*pool[:6], *(example(f"only cards {i}", "card") for i in range(30))]

    def one(query, shown):
        """The label of the last demonstration is likelier the more often it stands in the pool."""
        return np.log([0.8, 0.1, 0.1] if shown[-1].target == "card" else [0.34, 0.33, 0.33])

    hits = hits_of([pool[0], pool[1]])  # card, refund
    by_pool = order({"pdo": {"probes": 4}}, skewed, Scorer(one))(QUERY, hits)
    uniform = order({"pdo": {"probes": 4, "prior": "uniform"}}, skewed, Scorer(one))(QUERY, hits)
    assert (by_pool[-1].example.target, uniform[-1].example.target) == ("card", "refund")


@pytest.mark.parametrize("name", PROBED)
def test_orders_need_labels_and_a_model(name, pool):
    with pytest.raises(InputError, match="needs a set of labels"):
        build_order(name, labels=(), seed=0, pool=pool, score_many=Scorer())
    with pytest.raises(InputError, match="asks a language model, and there is none"):
        build_order(name, labels=LABELS, seed=0, pool=pool)
    nothing = order(name, pool, Scorer(lambda query, shown: None))(QUERY, hits_of(pool[:3]))
    assert sorted(uids(nothing)) == sorted(e.uid for e in pool[:3])


# ── with a real model ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def lm():
    return tiny.lm()


def test_the_scores_are_those_of_the_prompt_that_is_predicted_with(lm, pool):
    method = icl.FewShot(lm, retriever=["bm25"], shots=2, encoder=HashEncoder())
    predictor = method.fit(pool, labels=LABELS)
    prediction = predictor.predict([pool[0]])[0]
    shown = [next(e for e in pool if e.uid == uid) for uid in prediction.demonstrations]
    values, other = predictor.score_many([(pool[0], shown), (pool[0], shown[::-1])])
    shares = np.exp(values - np.logaddexp.reduce(values))
    assert shares == pytest.approx([prediction.probabilities[label] for label in LABELS], abs=1e-5)
    assert not np.allclose(values, other), "the order of demonstrations matters to a model"
    assert predictor.score_many([]) == []


@pytest.mark.parametrize("options", [
    {"retriever": [{"bm25": {"n": 6}}, {"mdl": {"sets": 3}}]},
    {"retriever": {"influence": {"prompts": 6, "rows": 2, "shots": 2}}},
    {"retriever": {"leave_one_out": {"prompts": 4, "rows": 2, "shots": 2}}},
    {"retriever": "random", "order": {"locale": {"permutations": 3, "probes": 2}}},
    {"retriever": "random", "order": {"pdo": {"permutations": 3, "probes": 2}}},
], ids=str)  # fmt: skip
def test_a_method_that_asks_its_model(lm, pool, options):
    method = icl.FewShot(lm, shots=3, encoder=HashEncoder(), **options)
    rows = pool[:12]
    together = method.fit(rows, labels=LABELS).predict(rows[:4])
    alone = method.fit(rows, labels=LABELS)
    assert [alone.predict([row])[0].demonstrations for row in rows[:4]] == [p.demonstrations for p in together]
    assert all(p.answer is not None and len(p.demonstrations) == 3 for p in together)
    with pytest.raises(InputError, match="model"):
        icl.FewShot(None, shots=3, encoder=HashEncoder(), **options).fit(rows).prompt("x")


def test_stages_that_ask_the_model_say_how_much(pool):
    scorer = Scorer()
    index = DemoIndex.build(pool, encoder=HashEncoder())
    retrieve = build_retriever(
        [{"knn": {"n": 9}}, {"mdl": {"sets": 4}}], pool, index=lambda: index, labels=LABELS, seed=0, score_many=scorer
    )
    traced = retrieve.trace([QUERY], 3)[0]
    assert retrieve.n_scored == len(scorer.pairs) > 1
    assert [step[:3] for step in traced.steps] == [("knn", 30, 9), ("mdl", 9, 3)]


@pytest.mark.parametrize("options", [
    {"retriever": [{"bm25": {"n": 6}}, {"mdl": {"sets": 3}}]},
    {"retriever": {"hybrid": {"of": ["bm25", {"influence": {"prompts": 6, "rows": 2, "shots": 2}}]}}},
    {"retriever": "random", "order": {"locale": {"permutations": 3, "probes": 2}}},
], ids=str)  # fmt: skip
def test_what_the_model_will_be_asked_is_planned_without_asking_it(pool, options):
    lm = tiny.lm()
    rows = pool[:12]
    predictor = icl.FewShot(lm, shots=3, encoder=HashEncoder(), **options).fit(rows, labels=LABELS)
    before = lm.totals.computed
    planned = predictor.plan(rows[:4])
    assert lm.totals.computed == before
    predictor.predict(rows[:4])
    done = lm.totals.computed - before
    # The prompts that follow depend on the answers, and those of one call share more than those of several do.
    assert done == pytest.approx(planned.computed, rel=0.25)
    plain = icl.FewShot(lm, shots=3, encoder=HashEncoder(), retriever="bm25").fit(rows, labels=LABELS)
    assert planned.naive > 1.5 * plain.plan(rows[:4]).naive
    if "hybrid" in str(options):
        assert predictor.plan(rows[:4]).naive < planned.naive, "what is asked once for a pool is planned once"
