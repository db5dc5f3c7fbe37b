"""What to label next: the choice against its definition, and what it may not look at."""

from dataclasses import replace

import numpy as np
import pytest

import icl
from icl.errors import InputError
from icl.evaluate.suggest import disagreement, suggest, uncertainty
from icl.retrieve import vote_k
from icl.values import Example, Prediction, content_digest


class Points:
    """Texts `x y` (in hundredths) -> a unit vector with these first two coordinates."""

    name = fingerprint = "points"
    dimensions = 3

    def encode(self, texts):
        found = np.array([[*(int(word) / 100 for word in text.split()[:2]), 0.5] for text in texts], dtype=np.float32).reshape(-1, 3)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def cut(self, texts):
        return [False] * len(texts)


def row(text, target=None):
    fields = {"text": text}
    return Example(f"{content_digest(fields)}-0", fields, target)


def rows(n=60, seed=0):
    """Three groups on a line: left, right, and between them a smaller one."""
    rng = np.random.default_rng(seed)
    xs = np.concatenate([rng.normal(-100, 8, n // 2), rng.normal(100, 8, n // 2), rng.normal(0, 8, n // 6)])
    return [row(f"{round(x)} {round(y)} {i}") for i, (x, y) in enumerate(zip(xs, rng.normal(0, 8, len(xs)), strict=True))]


LABELLED = [row("-95 3", "left"), row("-104 -4", "left"), row("97 1", "right"), row("103 -2", "right")]


def middle(example):
    return abs(int(example.fields["text"].split()[0])) < 50


def test_doubt_by_hand():
    shares = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [0.4, 0.4, 0.2]])
    assert uncertainty(shares) == pytest.approx([0.8, 0.0, 1.0])
    both = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])
    assert disagreement(both) == pytest.approx([np.log(2), 0.0])
    mean = np.array([0.5, 0.5])
    one, two = np.array([0.8, 0.2]), np.array([0.2, 0.8])
    by_hand = (np.sum(one * np.log(one / mean)) + np.sum(two * np.log(two / mean))) / 2
    assert disagreement(np.stack([one[None], two[None]])) == pytest.approx([by_hand])


@pytest.mark.parametrize("by", ["uncertainty", "disagreement"])
def test_what_is_in_doubt_is_suggested(by):
    pool = rows(180)
    known = [replace(each, target="right" if each.fields["text"][0] != "-" else "left") for each in rows(20, 1)[:20]]
    found = suggest(pool, 3, labelled=known, by=by, encoder=Points())
    share = np.mean([middle(each) for each in pool])
    assert np.mean([middle(each.example) for each in found.rows]) >= 3 * share
    assert len({each.example.uid for each in found.rows}) == 3
    assert (found.by, found.n_labelled, found.n_unlabelled, found.n_copies, found.n_asked) == (by, 20, len(pool), 0, 0)
    for each in found.rows:
        assert each.guess in ("left", "right")
        assert 0 <= each.uncertainty <= 1
        assert each.disagreement >= 0
        assert each.reason


def test_figures_are_those_of_heads_on_the_labelled_rows():
    from icl.methods._heads import fit_head

    pool = rows()
    found = suggest(pool, 5, labelled=LABELLED, encoder=Points())
    old, targets = Points().encode([each.fields["text"] for each in LABELLED]), [0, 0, 1, 1]
    for each in found.rows:
        vector = Points().encode([each.example.fields["text"]])
        shares = np.stack([fit_head(kind, old, targets, 2).shares(vector) for kind in ("logistic", "kernel", "knn")])
        assert each.uncertainty == pytest.approx(uncertainty(shares[0])[0], abs=1e-6)
        assert each.disagreement == pytest.approx(disagreement(shares)[0], abs=1e-6)
        best = int(shares[0, 0].argmax())
        assert each.guess == ("left", "right")[best]
        assert each.reason.startswith(f"{each.guess} {shares[0, 0, best]:.2f}, ")


def test_labels_of_the_rows_to_label_are_not_looked_at():
    pool = rows()
    told = [replace(each, target="left") for each in pool]
    for by in ("auto", "disagreement", "diversity", "votek"):
        one, other = (suggest(each, 7, labelled=LABELLED, by=by, encoder=Points(), seed=3).rows for each in (pool, told))
        assert [(each.example.uid, each.reason) for each in one] == [(each.example.uid, each.reason) for each in other]


def test_by_votes_it_is_vote_k_beside_the_labelled_rows():
    pool = rows()
    found = suggest(pool, 8, by="votek", encoder=Points())
    assert [each.example for each in found.rows] == vote_k(pool, 8, encoder=Points())
    assert all(each.guess is None and each.uncertainty is None for each in found.rows)
    beside = suggest(pool, 8, labelled=LABELLED[:2], by="votek", encoder=Points())
    assert [each.example for each in beside.rows] == vote_k(pool, 8, labelled=LABELLED[:2], encoder=Points())
    nearest = Points().encode([beside.rows[0].example.fields["text"]]) @ Points().encode(["-95 3", "-104 -4"]).T
    assert beside.rows[0].reason.endswith(f"{nearest.max():.2f}")


def test_without_labels_there_is_one_row_of_each_group():
    pool = rows()
    found = suggest(pool, 3, encoder=Points())
    assert found.by == "diversity"
    groups = [round(int(each.example.fields["text"].split()[0]) / 100) for each in found.rows]
    assert sorted(groups) == [-1, 0, 1]
    assert groups[2] == 0, "the smallest group comes last"
    assert sum(int(each.reason.split()[2]) for each in found.rows) == len(pool)
    for each, group in zip(found.rows, groups, strict=True):  # the middle row: the nearest to the mean of its group
        vectors = Points().encode([p.fields["text"] for p in pool if round(int(p.fields["text"].split()[0]) / 100) == group])
        mean = vectors.mean(axis=0) / np.linalg.norm(vectors.mean(axis=0))
        own = Points().encode([each.example.fields["text"]])[0]
        assert own @ mean == pytest.approx((vectors @ mean).max(), abs=1e-4)


def test_groups_that_have_a_label_come_last():
    pool = rows()
    known = [LABELLED[0], LABELLED[1]]
    found = suggest(pool, 2, labelled=known, encoder=Points())
    assert found.by == "diversity"  # one label alone
    assert [int(each.example.fields["text"].split()[0]) > -50 for each in found.rows] == [True, True]
    assert all(each.reason.endswith("none labelled") for each in found.rows)
    assert any("beside" in each.reason for each in suggest(pool, 60, labelled=known, encoder=Points()).rows)


def test_copies_are_suggested_once_and_never_what_has_a_label():
    pool = [row("1 1 x"), replace(row("1  1 X"), uid="copy-0"), row("-95  3"), row("90 1 y"), row("2 5 z")]
    found = suggest(pool, 5, labelled=LABELLED, encoder=Points())
    assert {each.example.fields["text"] for each in found.rows} == {"1 1 x", "90 1 y", "2 5 z"}
    assert (found.n_unlabelled, found.n_copies) == (3, 2)


@pytest.mark.parametrize("by", ["uncertainty", "disagreement", "diversity", "votek"])
@pytest.mark.parametrize("budget", [1, 9, 70, 500])
def test_as_many_as_asked_for_if_there_are_as_many(by, budget):
    pool = rows()
    found = suggest(pool, budget, labelled=LABELLED, by=by, encoder=Points())
    assert len({each.example.uid for each in found.rows}) == len(found.rows) == min(budget, len(pool))


class Says:
    """Answers as told."""

    name = "a prompt"

    def __init__(self, probabilities):
        self.probabilities, self.asked = probabilities, []

    def predict(self, queries):
        self.asked += queries
        return [Prediction(each.uid, "left" if found else None, found, ()) for each in queries for found in [self.probabilities(each)]]


def test_another_predictor_has_its_say():
    pool = rows()
    odd = {each.uid for each in pool[:3]}
    contrary = Says(lambda each: {"other": 1.0} if each.uid in odd else None)
    found = suggest(pool, 3, labelled=LABELLED, encoder=Points(), predictors=[contrary], most_asked=len(pool))
    assert found.by == "disagreement"
    assert found.n_asked == len(contrary.asked) == len(pool)
    named = next(each for each in found.rows if each.example.uid in odd)
    assert "other: a prompt" in named.reason
    assert "left: logistic regression, a kernel, the nearest rows" in named.reason
    few = Says(lambda each: None)
    some = suggest(pool, 3, labelled=LABELLED, encoder=Points(), predictors=[few], most_asked=10)
    assert some.n_asked == len(few.asked) == 10
    doubt = {each.example.uid: each.uncertainty for each in suggest(pool, len(pool), labelled=LABELLED, encoder=Points()).rows}
    assert {each.uid for each in few.asked} == {uid for uid, _ in sorted(doubt.items(), key=lambda item: -item[1])[:10]}
    assert {each.example.uid for each in some.rows} <= {each.uid for each in few.asked}


def test_all_that_is_wrong_is_said():
    with pytest.raises(InputError) as error:
        suggest([], 0, labelled=LABELLED[:2], by="uncertainty", encoder=Points())
    assert len(error.value.problems) == 3
    with pytest.raises(InputError, match="diversity"):
        suggest(rows(), 3, by="novelty", encoder=Points())
    with pytest.raises(InputError, match="no say"):
        suggest(rows(), 3, by="diversity", encoder=Points(), predictors=[Says(lambda each: None)])
    with pytest.raises(InputError, match="labelled already"):
        suggest([row("-95 3 ")], 3, labelled=LABELLED, encoder=Points())
    assert icl.suggest is suggest
