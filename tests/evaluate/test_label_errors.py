"""Likely label errors: against the definition worked out row by row, and planted ones that have to come first."""

import json
from collections import Counter

import numpy as np
import pytest

import icl
from icl.errors import InputError
from icl.evaluate.label_errors import confident, estimated, label_errors, parts
from icl.values import Example, content_digest, normalised_text


class Table:
    """Texts `label number` -> a unit vector near the label's corner; a text that begins with another word has that word's corner."""

    name = fingerprint = "table"
    dimensions = 6

    def encode(self, texts):
        found = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for vector, text in zip(found, texts, strict=True):
            word, *rest = normalised_text(text).split()
            rng = np.random.default_rng([ord(c) for c in " ".join([word, *rest])])
            vector["abcdef".index(word[0])] = 1.0
            vector += rng.normal(0, 0.15, self.dimensions).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def cut(self, texts):
        return [False] * len(texts)


def row(text, target, occurrence=0):
    fields = {"text": text}
    return Example(f"{content_digest(fields)}-{occurrence}", fields, target)


def pool(n=20, labels="abc", wrong=3):
    """(rows, those among them whose label is wrong)"""
    rows = [row(f"{label} {i}", label) for label in labels for i in range(n)]
    errors = []
    for k in range(wrong):
        at = (k * 7 + 3) % len(rows)
        right = rows[at].target
        rows[at] = row(rows[at].fields["text"], labels[(labels.index(right) + 1) % len(labels)])
        errors.append(rows[at])
    return rows, errors


def test_planted_errors_come_first_and_are_named():
    rows, errors = pool()
    found = label_errors(rows, encoder=Table())
    assert {each.example.uid for each in found.rows[:3]} == {each.uid for each in errors}
    assert [each.suggested for each in found.rows[:3]] == [each.example.fields["text"][0] for each in found.rows[:3]]
    assert [each.flagged for each in found.rows] == [True] * 3 + [False] * (len(rows) - 3)
    assert found.n_flagged == 3
    assert dict(found.pairs) == Counter((each.target, each.fields["text"][0]) for each in errors)
    assert found.estimate == pytest.approx(3, abs=1)
    assert found.agreement == pytest.approx(1 - 3 / len(rows))
    assert (found.n_pool, found.n_unlabelled, found.n_alone) == (len(rows), 0, 0)
    assert [each.probability for each in found.rows] == sorted(each.probability for each in found.rows)


@pytest.mark.parametrize("head", ["logistic", "kernel", "knn"])
def test_probabilities_are_those_of_a_head_that_saw_the_other_parts_only(head):
    from icl.methods._heads import fit_head

    rows, _ = pool(8)
    texts = [each.fields["text"] for each in rows]
    found = {each.example.uid: each for each in label_errors(rows, encoder=Table(), head=head, folds=3, seed=5).rows}
    vectors = Table().encode(texts)
    part = parts(texts, ["abc".index(each.target) for each in rows], 3, 5)
    assert set(part.tolist()) == {0, 1, 2}
    for i, each in enumerate(rows):
        others = [j for j in range(len(rows)) if part[j] != part[i]]
        fitted = fit_head(head, vectors[others], ["abc".index(rows[j].target) for j in others], 3, seed=5)
        shares = dict(zip("abc", fitted.shares(vectors[i : i + 1])[0], strict=True))
        own = shares.pop(each.target)
        assert found[each.uid].probability == pytest.approx(own, abs=1e-9)
        assert found[each.uid].suggested_probability == pytest.approx(max(shares.values()), abs=1e-9)


def test_the_confident_joint_by_hand():
    shares = np.array(
        [[0.9, 0.1, 0.0], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.0, 0.2, 0.8], [0.7, 0.1, 0.2], [0.2, 0.3, 0.5]]
    )
    given = np.array([0, 0, 0, 1, 2, 2, 2])
    # thresholds: mean of own shares: 0.5, 0.6, 0.5
    assert confident(shares, given).tolist() == [0, 0, 1, 1, 2, 0, 2]
    assert estimated(confident(shares, given), given, 3) == pytest.approx(1 + 0 + 1)
    unsure = np.array([[0.9, 0.1], [0.45, 0.55], [0.2, 0.8], [0.6, 0.4]])
    given = np.array([0, 0, 1, 1])
    # thresholds 0.675 and 0.6: the rows between count nowhere, so all that count are right
    assert confident(unsure, given).tolist() == [0, -1, 1, -1]
    assert estimated(confident(unsure, given), given, 2) == 0.0
    # one of two that count is wrong: half of all three rows of that label
    given, found = np.array([0, 0, 0, 1]), np.array([0, 1, -1, 1])
    assert estimated(found, given, 2) == pytest.approx(1.5)


def test_parts_spread_labels_and_keep_copies_together():
    texts = [f"t {i // 2}" for i in range(40)] + [f"u {i}" for i in range(20)]
    targets = [0] * 40 + [1] * 20
    part = parts(texts, targets, 5, 0)
    assert all(part[i] == part[i + 1] for i in range(0, 40, 2))
    for label in (0, 1):
        assert set(Counter(part[np.array(targets) == label].tolist()).values()) <= {4, 8}
    assert parts(texts, targets, 5, 0).tolist() == part.tolist()
    assert parts(texts, targets, 5, 1).tolist() != part.tolist()
    order = np.random.default_rng(0).permutation(60)
    assert parts([texts[i] for i in order], [targets[i] for i in order], 5, 0).tolist() == part[order].tolist()


def test_the_order_of_the_rows_decides_nothing_but_ties():
    rows, _ = pool()
    one, other = (label_errors(each, encoder=Table()) for each in (rows, rows[::-1]))
    assert [each.example.uid for each in one.rows[:3]] == [each.example.uid for each in other.rows[:3]]
    shares = {each.example.uid: each.probability for each in one.rows}
    for each in other.rows:
        assert each.probability == pytest.approx(shares[each.example.uid], abs=1e-4)


def test_a_copy_does_not_speak_for_a_row():
    """A wrong label that stands there twice is found as if it stood there once."""
    rows, errors = pool(wrong=1)
    (error,) = errors
    twice = [*rows, row(f"{error.fields['text'].upper()} ", error.target, 1)]
    found = label_errors(twice, encoder=Table())
    assert {normalised_text(each.example.fields["text"]) for each in found.rows[:2]} == {error.fields["text"]}


def test_rows_that_cannot_be_judged_are_counted():
    rows, _ = pool()
    more = [row("d 1", "d"), row("d 2", None), row("e 1", "e"), row("E  1", "e", 1)]
    found = label_errors([*rows, *more], encoder=Table())
    assert (found.n_pool, found.n_unlabelled, found.n_alone) == (len(rows) + 4, 1, 3)
    assert len(found.rows) == len(rows)


def test_what_cannot_be_judged_is_said():
    rows, _ = pool()
    with pytest.raises(InputError) as error:
        label_errors([row("a", None)], folds=1, encoder=Table())
    assert len(error.value.problems) == 2
    with pytest.raises(InputError, match="nothing to tell apart"):
        label_errors(rows[5:15], encoder=Table())
    with pytest.raises(InputError, match="no head named 'logistics'"):
        label_errors([Example("1", {"text": "a 1"}, target="x")], encoder=Table(), head="logistics")
    with pytest.raises(InputError, match="choices"):
        label_errors([Example("u-0", {"text": "a"}, "x", ("x", "y"))], encoder=Table())


@pytest.mark.slow
@pytest.mark.minilm
@pytest.mark.parametrize(("name", "n"), [("trec", 1000), ("banking77", 2000)])
def test_flipped_labels_are_found_on_public_sets(shared, name, n):
    """5 % of the labels of a pool flipped: an average precision of at least 5 times the base rate."""
    from sklearn.metrics import average_precision_score

    rows = icl.Task.load(shared / "data" / name / "train.jsonl", holdout=0).train
    labels = sorted({str(each.target) for each in rows})
    for seed in range(2):
        rng = np.random.default_rng(seed)
        some = [rows[i] for i in sorted(rng.choice(len(rows), n, replace=False))]
        flipped = {some[i].uid: labels[(labels.index(some[i].target) + int(rng.integers(1, len(labels)))) % len(labels)]
                   for i in rng.choice(n, n // 20, replace=False)}  # fmt: skip
        found = icl.label_errors([Example(each.uid, each.fields, flipped.get(each.uid, each.target)) for each in some], seed=seed)
        hits = [each.example.uid in flipped for each in found.rows]
        value = average_precision_score(hits, [-each.probability for each in found.rows])
        right = [flag.suggested for flag in found.rows if flag.example.uid in flipped and flag.flagged]
        print(json.dumps({"set": name, "rows": n, "seed": seed, "average_precision": round(value, 3), "base": 0.05, "first": sum(hits[: n // 20]),
                          "flagged": found.n_flagged, "flagged_right": len(right), "estimate": round(found.estimate, 1)}))  # fmt: skip
        assert value >= 5 * 0.05
