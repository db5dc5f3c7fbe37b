"""A retriever trained from scores (EPR): on scores that a planted rule gives, so that what it has to learn is known."""

import itertools
import json
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from retrieve_samples import HashEncoder, example, pool_of

from icl import DemoIndex
from icl.errors import InputError
from icl.plugins import Context, Learned, build
from icl.retrieve import load_encoder
from icl.train import retriever as epr
from icl.train.retriever import Judged, NothingScoredError, Training, Triplet, train_retriever
from icl.values import as_query

KEYS = ("card", "money", "posted", "yet")
FILL = ["my", "new", "has", "not", "arrived", "where", "is", "the", "that", "was", "please", "give", "me", "back", "for"]
LABELS = ("a", "b")
FAST = {"queries": 12, "candidates": 4, "epochs": 1}
pytestmark = pytest.mark.usefixtures("one_thread")


def keyed_pool(n):
    """Texts with one of four words among others; the label says nothing."""
    rng = random.Random(0)
    rows = {}
    while len(rows) < n:
        words = [*rng.sample(FILL, rng.randint(3, 6)), rng.choice(KEYS)]
        row = example(" ".join(rng.sample(words, len(words))), rng.choice(LABELS))
        rows[row.uid] = row
    return list(rows.values())


def key(row):
    return next(word for word in KEYS if word in row.fields["text"].split())


def partner(row):
    """What no similarity of texts knows: which words go together."""
    return KEYS[KEYS.index(key(row)) ^ 1]


class Planted:
    """The right label is likelier after a demonstration with the query's word, and that is all."""

    def __init__(self, better=lambda query, shown: key(query) == key(shown)):
        self.better, self.pairs = better, []

    def __call__(self, pairs):
        self.pairs += [(query, shown) for query, (shown,) in pairs]
        return [self.one(query, shown) for query, (shown,) in pairs]

    def one(self, query, shown):
        scores = np.array([-3.0, -3.0])
        scores[LABELS.index(query.target)] += 2.0 * self.better(query, shown)
        return scores


def settings(**more):
    return Training.model_validate({**FAST, **more})


def train(pool, score, out, base, **more):
    return train_retriever(
        pool, score, out, **{"labels": LABELS, "settings": settings(), "base": base if isinstance(base, HashEncoder) else str(base), **more}
    )


@pytest.fixture(scope="module")
def pool():
    return keyed_pool(120)


def test_training_ranks_as_the_scores_do(pool, tiny_encoder, tmp_path):
    """On rows that training did not see, and for any query afterwards."""
    rule = Planted(lambda query, shown: partner(query) == key(shown))
    record = train(pool, rule, tmp_path / "out", tiny_encoder, settings=settings(queries=120, candidates=24, epochs=8, learning_rate=2e-3))
    rank = record["mean_reciprocal_rank"]
    assert record["n_held_out"] >= 15
    assert rank["after"] > rank["before"] + 0.1
    assert rank["after"] > rank["by_chance"] + 0.15
    assert record["loss"][-1] < record["loss"][0] - 0.5

    def shares(encoder):
        index = DemoIndex.build(pool, encoder=str(encoder))
        found = build("selector", {"knn": {"encoder": str(encoder)}}, Context(pool=pool, index=index))(pool, 5, None)
        return np.mean([key(hit.example) == partner(query) for query, hits in zip(pool, found, strict=True) for hit in hits])

    assert shares(tmp_path / "out") > shares(tiny_encoder) + 0.2


def test_the_other_way_round(pool, tiny_encoder, tmp_path):
    """The same rows and the opposite rule: what is learned comes from the scores, not from the texts."""
    rule = Planted(lambda query, shown: key(query) != key(shown))
    found = {}
    for name, score in (("same", Planted()), ("other", rule)):
        train(pool, score, tmp_path / name, tiny_encoder, settings=settings(queries=60, epochs=5, learning_rate=2e-3))
        vectors = load_encoder(str(tmp_path / name)).encode([row.fields["text"] for row in pool])
        alike = np.array([[key(a) == key(b) for b in pool] for a in pool])
        cosines = vectors @ vectors.T
        np.fill_diagonal(cosines, np.nan)
        found[name] = np.nanmean(cosines[alike]) - np.nanmean(cosines[~alike])
    assert found["same"] > found["other"] + 0.05


def test_ranking_is_measured_on_queries_that_training_did_not_see(pool, tiny_encoder, tmp_path, monkeypatch):
    seen = {}

    def spy(name, judged_at):
        plain = getattr(epr, name)

        def called(*arguments):
            seen.setdefault(name, {each.query for each in arguments[judged_at]})
            return plain(*arguments)

        monkeypatch.setattr(epr, name, called)

    spy("_fit", 1)
    spy("mean_reciprocal_rank", 1)
    record = train(pool, Planted(), tmp_path / "out", tiny_encoder)
    assert (len(seen["_fit"]), len(seen["mean_reciprocal_rank"])) == (record["n_trained"], record["n_held_out"])
    assert not seen["_fit"] & seen["mean_reciprocal_rank"]


def test_candidates_are_never_the_query_or_its_copies(tiny_encoder, tmp_path):
    rows = keyed_pool(30)
    copies = [example(row.fields["text"].upper() + " !!", row.target) for row in rows[:20]]
    for by in ("bm25", "knn"):
        score = Planted(lambda query, shown: len(shown.uid) + len(shown.fields["text"]) > 60)
        rule = Planted(lambda query, shown: sum(map(ord, shown.uid[:8])) % 2)
        train([*rows, *copies], rule, tmp_path / by, tiny_encoder, settings=settings(queries=40, candidates=6, candidates_by=by))
        assert len({query.uid for query, _ in rule.pairs}) == 30, "a text is a query once"
        for query, shown in rule.pairs:
            assert epr._text(query) != epr._text(shown)
        for _, group in itertools.groupby(rule.pairs, key=lambda pair: pair[0].uid):
            texts = [epr._text(shown) for _, shown in group]
            assert len(set(texts)) == len(texts) <= 6
        assert not score.pairs


def test_candidates_are_those_of_bm25(tiny_encoder, tmp_path):
    rows = keyed_pool(30)
    rule = Planted(lambda query, shown: sum(map(ord, shown.uid[:8])) % 2)
    train(rows, rule, tmp_path / "out", tiny_encoder)
    assert len(rule.pairs) == 12 * 4
    for query, group in itertools.groupby(rule.pairs, key=lambda pair: pair[0]):
        (hits,) = build("selector", "bm25", Context(pool=rows, index=None))([query], 4, None)
        assert [shown for _, shown in group] == [hit.example for hit in hits]


# ── the parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("measure", ["log_likelihood", "log_probability"])
def test_scores_are_those_of_the_right_label(measure):
    rows = pool_of(6, LABELS)
    given = {row.uid: np.array([-1.0 - i, -0.5 * i]) for i, row in enumerate(rows)}
    (found,) = epr.judge(rows[:1], [rows[1:]], lambda pairs: [given[shown.uid] for _, (shown,) in pairs], LABELS, measure)
    right = LABELS.index(rows[0].target)
    expected = {
        row.fields["text"]: given[row.uid][right] - (np.log(np.exp(given[row.uid]).sum()) if measure == "log_probability" else 0)
        for row in rows[1:]
    }
    assert dict(zip(found.candidates, found.scores, strict=True)) == pytest.approx(expected)
    assert list(found.scores) == sorted(found.scores, reverse=True)


def test_what_cannot_be_scored_is_left_out():
    rows = pool_of(8, LABELS)
    scores = {rows[2].uid: None, rows[3].uid: np.array([-np.inf, -np.inf])}

    def score(pairs):
        return [scores.get(shown.uid, np.full(2, -float(len(shown.uid) % 3 + i))) for i, (_, (shown,)) in enumerate(pairs)]

    (found,) = epr.judge(rows[:1], [rows[1:6]], score, LABELS, "log_likelihood")
    assert set(found.candidates) == {row.fields["text"] for row in (rows[1], rows[4], rows[5])}
    assert epr.judge(rows[:1], [rows[1:6]], lambda pairs: [np.zeros(2) for _ in pairs], LABELS, "log_likelihood") == []
    with pytest.raises(NothingScoredError, match="scored none"):
        epr.judge(rows[:1], [rows[1:6]], lambda pairs: [None] * len(pairs), LABELS, "log_likelihood")


def test_many_prompts_are_scored_in_parts(monkeypatch):
    rows, sizes = keyed_pool(20), []
    monkeypatch.setattr(epr, "PAIRS", 10)

    def score(pairs):
        sizes.append(len(pairs))
        return Planted()(pairs)

    parts = epr.judge(rows[:9], [rows[10:14]] * 9, score, LABELS, "log_likelihood")
    assert sizes == [8, 8, 8, 8, 4]
    monkeypatch.setattr(epr, "PAIRS", 1000)
    assert epr.judge(rows[:9], [rows[10:14]] * 9, score, LABELS, "log_likelihood") == parts


def test_positives_are_the_best_quarter_and_negatives_the_worst():
    judged = [Judged(f"q{i}", tuple(f"{i}-{rank}" for rank in range(8)), (-1.0, -1.5, -2, -3, -4, -5, -6, -7)) for i in range(40)]
    drawn = [triplet for epoch in range(8) for triplet in epr._triplets(judged, 3, epoch)]
    assert len(drawn) == 8 * 40
    assert {t.query for t in drawn[:40]} == {each.query for each in judged}
    assert {t.positive[-1] for t in drawn} == {"0", "1"}
    assert {t.negative[-1] for t in drawn} == {"6", "7"}
    assert all(t.query[1:] == t.positive[:-2] == t.negative[:-2] for t in drawn)
    assert [*epr._triplets(judged, 3, 0)] == drawn[:40]
    assert [t.query for t in drawn[:40]] != [t.query for t in drawn[40:80]], "mixed anew"
    (two,) = epr._triplets([Judged("q", ("good", "bad"), (0.0, -1.0))], 0, 0)
    assert two == Triplet("q", "good", "bad")
    tied = [Judged("q", tuple("abcdefgh"), (0.0, -1, -1, -1, -1, -1, -1, -1))]
    assert {next(epr._triplets(tied, 0, epoch)).positive for epoch in range(20)} == {"a"}, "equal ones are not told apart"


def test_no_text_of_a_batch_is_pulled_and_pushed():
    rng = random.Random(2)
    texts = [str(i) for i in range(40)]
    triplets = [Triplet(*rng.sample(texts, 3)) for _ in range(300)]
    batches = epr._batches(triplets, 16)
    assert sorted(itertools.chain(*batches)) == sorted(triplets)
    assert max(map(len, batches)) <= 16
    for batch in batches:
        for a, b in itertools.permutations(batch, 2):
            assert not {b.query, b.positive, b.negative} & {a.query, a.positive}
    free = [Triplet(f"q{i}", f"p{i}", "the same") for i in range(50)]
    assert [len(batch) for batch in epr._batches(free, 16)] == [16, 16, 16, 2], "a negative may be one for several"


class Fixed:
    """Encodes texts as they are told."""

    def __init__(self, vectors):
        self.vectors = vectors

    def encode(self, texts, advance):
        return np.array([self.vectors[text] for text in texts])


def test_the_mean_reciprocal_rank_by_hand():
    angles = {"q": 0.0, "a": 0.3, "b": 0.1, "c": 0.2, "d": 0.4, "r": 0.0, "s": 0.5}
    model = Fixed({text: (np.cos(x), np.sin(x)) for text, x in angles.items()})
    assert epr.mean_reciprocal_rank(model, [Judged("q", ("a", "b", "c", "d"), (0.0, -1, -2, -3))]) == pytest.approx(1 / 3)
    assert epr.mean_reciprocal_rank(model, [Judged("q", ("a", "c", "b"), (0.0, 0.0, -2))]) == pytest.approx(1 / 2), "the first of equals"
    assert epr.mean_reciprocal_rank(model, [Judged("q", ("b", "a"), (0.0, -1)), Judged("r", ("s", "b"), (0.0, -1))]) == pytest.approx(0.75)
    same = Fixed(dict.fromkeys("qabc", (1.0, 0.0)))
    assert epr.mean_reciprocal_rank(same, [Judged("q", ("a", "b", "c"), (0.0, -1, -2))]) == pytest.approx(1 / 3), (
        "equal cosines gain nothing"
    )


def test_chance_is_the_mean_over_all_orders():
    for n, best in [(2, 1), (4, 1), (5, 2), (5, 4)]:
        scores = [0.0] * best + [-1.0 - i for i in range(n - best)]
        ranks = [1 / (1 + min(order.index(i) for i in range(best))) for order in itertools.permutations(range(n))]
        assert epr._by_chance([Judged("q", tuple("abcde"[:n]), tuple(scores))]) == pytest.approx(np.mean(ranks))


# ── the folder ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_seed_gives_the_same_encoder(pool, tiny_encoder, tmp_path):
    import torch

    torch.manual_seed(5)
    before = torch.get_rng_state()
    records = [train(rows, Planted(), tmp_path / name, tiny_encoder, seed=seed) for name, rows, seed in
               (("one", pool, 1), ("two", pool[::-1], 1), ("three", pool, 2))]  # fmt: skip
    assert torch.equal(torch.get_rng_state(), before), "the caller's generator is left alone"
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "three")]
    assert weights[2] != weights[0] != (tiny_encoder / "model.safetensors").read_bytes()
    assert records[0]["mean_reciprocal_rank"] != records[2]["mean_reciprocal_rank"] or records[0]["loss"] != records[2]["loss"]
    again = train(pool, Planted(), tmp_path / "again", tiny_encoder, seed=1)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == weights[0]
    assert again == records[0] == json.loads((tmp_path / "one" / "training.json").read_text())
    assert load_encoder(str(tmp_path / "again")).fingerprint == load_encoder(str(tmp_path / "one")).fingerprint


def test_the_folder_says_what_it_is(pool, tiny_encoder, tmp_path):
    record = train(pool, Planted(), tmp_path / "out", tiny_encoder, about={"model": "somebody"})
    assert record["model"] == "somebody"
    assert (record["n_rows"], record["n_prompts"]) == (120, 48)
    assert 0 < record["n_trained"] + record["n_held_out"] <= 12
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{record['mean_reciprocal_rank']['after']:.3f} after" in card
    assert "knn: {encoder: FOLDER}" in card
    names = {path.name for path in (tmp_path / "out").rglob("*")}
    assert "model.safetensors" in names
    assert not [name for name in names if name.endswith((".bin", ".pkl", ".pt"))]
    assert sorted(path.name for path in tmp_path.iterdir()) in (["icl-home", "out"], ["out"]), "nothing is left beside it"
    assert load_encoder(str(tmp_path / "out")).dimensions == 32


def test_whoever_is_interrupted_leaves_the_old_folder(pool, tiny_encoder, tmp_path):
    def broken(pairs):
        raise KeyboardInterrupt

    train(pool, Planted(), tmp_path / "out", tiny_encoder)
    old = (tmp_path / "out" / "model.safetensors").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        train(pool, broken, tmp_path / "out", tiny_encoder)
    with pytest.raises(KeyboardInterrupt):
        train(pool, broken, tmp_path / "new", tiny_encoder)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == old
    assert not (tmp_path / "new").exists()
    train(pool, Planted(), tmp_path / "out", tiny_encoder, seed=4)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() != old, "a trained encoder may be replaced"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match="not a trained encoder"):
        train(pool, Planted(), tmp_path / "mine", tiny_encoder)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize(("rows", "says"), [
    ([], "too few"),
    (keyed_pool(2), "too few"),
    ([example("one text", "a", occurrence=i) for i in range(5)], "1 with a known label and different texts"),
    ([example(f"text {i}", "a") for i in range(9)], "all rows have the label 'a'"),
    ([example(f"text {i}", "unknown") for i in range(9)], "too few"),
], ids=["none", "two", "copies", "one-label", "unknown-label"])  # fmt: skip
def test_pools_that_teach_nothing(rows, says, tiny_encoder, tmp_path):
    score = Planted(lambda query, shown: True)
    with pytest.raises(InputError, match=says):
        train(rows, score, tmp_path / "out", tiny_encoder)
    assert not score.pairs, "said before the model is asked anything"
    assert not (tmp_path / "out").exists()


def test_scores_that_teach_nothing(pool, tiny_encoder, tmp_path):
    """As where no demonstration has room in the prompt."""
    with pytest.raises(InputError, match=r"tell the candidates of 0 rows apart(.|\n)*does not fit the token budget"):
        train(pool, Planted(lambda query, shown: True), tmp_path / "out", tiny_encoder)
    with pytest.raises(InputError, match="has no weights here"):
        train(pool, Planted(), tmp_path / "out", HashEncoder())


# ── the selector ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def selector(pool, score, base, learned=None, **more):
    def train_encoder(rows, settings, score_many, to):
        train_retriever(rows, score_many, to, labels=LABELS, settings=settings, base=str(base))
        return True

    index = DemoIndex.build(pool, encoder=HashEncoder())
    context = Context(
        pool=pool, index=index, labels=LABELS, score_many=score, train_encoder=train_encoder, learned=learned or Learned()
    )  # fmt: skip
    return build("selector", {"epr": {**FAST, **more}}, context)


def test_the_selector_searches_with_what_it_trained(pool, tiny_encoder):
    score, learned = Planted(), Learned()
    select = selector(pool, score, tiny_encoder, learned)
    queries = [*pool[:4], as_query("where is my money", ["text"])]
    found = select(queries, 5, None)
    n = len(score.pairs)
    assert n == 12 * 4
    assert {row.uid for pair in score.pairs for row in pair} <= {row.uid for row in pool}, "a query that is predicted trains nothing"
    (folder,) = learned.folders.values()
    expected = build("selector", {"knn": {"encoder": str(folder)}}, Context(pool=pool, index=None))(queries, 5, None)
    assert found == expected
    select(pool, 3, None)
    selector(pool, score, tiny_encoder, learned)(queries, 2, None)
    assert len(score.pairs) == n, "trained once for a pool"
    selector(pool[1:], score, tiny_encoder, learned)(queries, 2, None)
    assert len(score.pairs) == 2 * n, "another pool is another encoder"
    assert len(learned.folders) == 2


def test_trained_files_go_with_their_owner(pool, tiny_encoder, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    Path(tmp_path / "tmp").mkdir()
    learned = Learned()
    select = selector(pool, Planted(), tiny_encoder, learned)
    select(pool[:1], 2, None)
    assert len([*(tmp_path / "tmp").iterdir()]) == 1
    del select, learned
    assert [*(tmp_path / "tmp").iterdir()] == []


def test_what_cannot_be_trained_is_tried_once(pool, tiny_encoder):
    score = Planted(lambda query, shown: True)
    select = selector(pool, score, tiny_encoder)
    for _ in range(3):
        with pytest.raises(InputError, match="tell the candidates of 0 rows apart"):
            select(pool[:2], 2, None)
    assert len(score.pairs) == 12 * 4
    with pytest.raises(InputError, match="nothing here trains an encoder"):
        build("selector", "epr", Context(pool=pool, labels=LABELS, score_many=score))(pool[:1], 2, None)
