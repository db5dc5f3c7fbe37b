"""The most harmful demonstrations of a pool: the mean of what each does to other rows, worked out row by row."""

import numpy as np
import pytest
import tiny

import icl
from icl.errors import InputError
from icl.evaluate.harmful import harmful
from icl.values import Example, content_digest, embedded_text, normalised_text

TEMPLATE = """---
input: [text]
labels: {good: [s], bad: [t]}
---
{% block example %}Review: {{ text }}
It is{% endblock %}
{% block answer %} {{ answer }}{% endblock %}
"""
TEXTS = [
    "the plot is a mess", "a moving film", "old jokes, a quiet mess", "a quiet film about people", "people and jokes", "the film is moving",
    "A Moving film!", "the jokes are old", "about people", "a mess",
]  # fmt: skip


def rows():
    labels = ("bad", "good")
    fields = [{"text": text} for text in TEXTS]
    return [Example(f"{content_digest(f)}-0", f, labels[i % 2], (), ()) for i, f in enumerate(fields)]


def predictor(pool, **options):
    options = {"template": icl.Template.parse(TEMPLATE, "t"), "retriever": "bm25", "shots": 3, **options}
    return icl.FewShot(tiny.lm("llama"), **options).fit(pool, labels=("good", "bad"))


@pytest.mark.parametrize("retriever", ["bm25", "random", {"random": {"per_query": True}}])
def test_means_over_prompts_built_by_hand(retriever):
    pool = rows()
    fitted = predictor(pool, retriever=retriever)
    lm, bound = fitted.lm, fitted.bound
    found = harmful(fitted, 100)

    def share(shown, row):
        """(log-probability of the row's own label, whether it is answered)"""
        values = [lm.loglikelihoods([bound.plain(shown, row)], [[text]])[0][0] for text in (" s", " t")]
        own = ("good", "bad").index(row.target)
        return values[own] - np.logaddexp(*values), values[own] > values[1 - own]

    effects, broken, mended = {}, {}, {}
    n_prompts = 0
    for row in pool:
        shown = [d.example for d in fitted.prompt(row).demonstrations]
        assert all(normalised_text(embedded_text(d.fields)) != normalised_text(embedded_text(row.fields)) for d in shown)
        with_all, right = share(shown, row)
        n_prompts += 1 + len(shown)
        for i, demonstration in enumerate(shown):
            without, right_without = share(shown[:i] + shown[i + 1 :], row)
            effects.setdefault(demonstration.uid, []).append(with_all - without)
            broken[demonstration.uid] = broken.get(demonstration.uid, 0) + (right_without and not right)
            mended[demonstration.uid] = mended.get(demonstration.uid, 0) + (right and not right_without)
    assert {each.example.uid for each in found.rows} == set(effects)
    for each in found.rows:
        want = effects[each.example.uid]
        assert each.effect == pytest.approx(np.mean(want), abs=1e-4)
        assert each.n == len(want)
        assert (each.n_broken, each.n_mended) == (broken[each.example.uid], mended[each.example.uid])
        if len(want) > 1:
            assert each.error == pytest.approx(np.std(want, ddof=1) / len(want) ** 0.5, abs=1e-4)
        else:
            assert each.error is None
    order = [each.effect for each in found.rows]
    assert order == sorted(order)
    assert sum(broken.values()) + sum(mended.values()) > 0
    assert (found.n_asked, found.n_prompts, found.n_pool, found.unscored) == (len(pool), n_prompts, len(pool), ())


def test_only_so_many_rows_are_asked_whichever_way(monkeypatch):
    pool = rows()
    fitted = predictor(pool)
    some = harmful(fitted, 4, seed=1)
    assert (some.n_asked, some.n_prompts) == (4, 16)
    assert harmful(fitted, 4, seed=1) == some
    assert harmful(fitted, 4, seed=2).rows != some.rows
    monkeypatch.setattr("icl.evaluate.harmful.AT_ONCE", 3)
    one_by_one = harmful(fitted, 4, seed=1)
    assert [each.example.uid for each in one_by_one.rows] == [each.example.uid for each in some.rows]
    np.testing.assert_allclose([e.effect for e in one_by_one.rows], [e.effect for e in some.rows], atol=1e-4)


def test_rows_that_cannot_be_asked_are_counted():
    long = {"text": "film " * 300}
    pool = [*rows(), Example(f"{content_digest(long)}-0", long, "good")]
    found = harmful(predictor(pool, max_tokens=150), 100)
    assert found.n_asked == len(pool) - 1
    assert "budget is 150" in found.unscored[0]
    assert found.n_pool == len(pool)
    assert long not in [each.example.fields for each in found.rows]


def test_what_cannot_be_asked_is_said():
    with pytest.raises(InputError, match="0 rows"):
        harmful(predictor(rows()), 0)
    with pytest.raises(InputError, match="no labelled rows"):
        harmful(icl.FewShot(tiny.lm("llama"), shots=0).fit([], labels=("good", "bad"), inputs=("text",), kind="classify"))
