"""Demonstrations in several windows, and inputs that are longer than a prompt: against the plain prompt and definitions by hand."""

import json
import random
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp
from small_tasks import LABELS, POOLS, QUERIES, example

import icl
from icl.errors import InputError
from icl.methods._long_input import pieces
from icl.methods._windows import combined
from icl.values import LabelScores

QUERY = QUERIES["classify"][0]
LONG = " ".join(f"word{i} and more of it" for i in range(90))


@pytest.fixture
def few_shot(tiny_lm, encoder_folder):
    def make(lm=tiny_lm, **options):
        return icl.FewShot(lm, **{"encoder": str(encoder_folder), "shots": 6, "max_new_tokens": 6, **options})

    return make


def fit(method, kind="classify", pool=None):
    return method.fit(POOLS[kind]() if pool is None else pool, labels=LABELS if kind == "classify" else ())


def many_rows(n=60):
    rng = random.Random(0)
    words = ["parcel", "invoice", "password", "courier", "phone", "month", "charge", "door"]
    return [example({"text": " ".join(rng.choices(words, k=5)) + f" {i}"}, LABELS[i % 3]) for i in range(n)]


# ── windows of demonstrations ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("windows", [1, "auto", {"n": 1, "combine": "parallel"}, {"combine": "mixture"}, {"combine": "parallel"}])
@pytest.mark.parametrize("kind", ["classify", "choose"])
def test_what_fits_into_one_prompt_is_the_plain_prompt(few_shot, windows, kind):
    queries = QUERIES[kind]
    plain, other = fit(few_shot(), kind), fit(few_shot(windows=windows), kind)
    assert other.prompts(queries) == plain.prompts(queries)
    for got, want in zip(other.predict(queries), plain.predict(queries), strict=True):
        np.testing.assert_allclose(got.scores.sums, want.scores.sums, atol=1e-4)
        assert (got.answer, got.n_windows, got.n_cut) == (want.answer, 0, 0)


def test_each_window_is_a_prompt_of_its_own(few_shot, tiny_lm):
    plain, other = fit(few_shot()), fit(few_shot(windows=3))
    shown = [d.uid for d in plain.prompt(QUERY).demonstrations]
    made = other.prompt(QUERY)
    assert [d.uid for d in made.demonstrations] == shown  # in prompt order, two to a window
    assert [[d.uid for d in w.demonstrations] for w in made.windows.prompts] == [shown[:2], shown[2:4], shown[4:]]
    assert [d.shot for d in made.demonstrations] == [0, 1, 2, 3, 4, 5]
    assert made.n_tokens == sum(w.n_tokens for w in made.windows.prompts)
    assert all(window.text in made.text for window in made.windows.prompts)
    (got,) = other.predict([QUERY])
    continuations = got.scores.candidates
    by_hand = tiny_lm.loglikelihoods(list(made.windows.prompts), [continuations] * 3)
    np.testing.assert_allclose(got.scores.parts, by_hand, atol=1e-4)
    np.testing.assert_allclose(got.scores.sums, np.mean(by_hand, axis=0), atol=1e-4)
    assert got.n_windows == 3
    assert got.n_tokens == made.n_tokens


def test_product_mixture_and_max_by_hand():
    rng = np.random.default_rng(0)
    raw = -5 * rng.random((3, 4))
    first = tuple(range(4))
    scores = [LabelScores(tuple("abcd"), tuple(row), (1,) * 4, (1,) * 4, (1,) * 4, first=tuple(row), first_of=first) for row in raw]
    shares, level = log_softmax(raw, axis=1), logsumexp(raw, axis=1).mean()
    expected = {"product": raw.mean(axis=0), "mixture": np.log(np.exp(shares).mean(axis=0)) + level, "max": shares.max(axis=0) + level}
    for combine, values in expected.items():
        found = combined(scores, combine)
        np.testing.assert_allclose(found.sums, values, atol=1e-12)
        assert found.first == found.first_of == ()  # no read-out of one token out of several prompts
        assert found.parts == tuple(map(tuple, raw))
        np.testing.assert_allclose(combined(scores[:1], combine).sums, raw[0], atol=1e-12)
    # The product's answer is that of the product of the windows' probabilities over the labels.
    assert np.argmax(expected["product"]) == np.argmax(shares.sum(axis=0))


def test_auto_shows_everything_in_as_few_windows_as_it_takes(few_shot):
    pool = many_rows()
    plain, auto = (fit(few_shot(shots=50, max_tokens=500, windows=w), pool=pool) for w in (None, "auto"))
    one, several = plain.prompt(QUERY), auto.prompt(QUERY)
    assert one.dropped
    assert not several.dropped
    assert len(several.demonstrations) == 50
    assert all(w.n_tokens < 500 for w in several.windows.prompts)
    n = len(several.windows.prompts)
    assert n >= 50 / len(one.demonstrations)
    assert fit(few_shot(shots=50, max_tokens=500, windows=n - 1), pool=pool).prompt(QUERY).dropped
    sizes = [len(w.demonstrations) for w in several.windows.prompts]
    assert max(sizes) - min(sizes) <= 1


def test_a_demonstration_that_fits_nowhere_is_dropped_and_counted(few_shot):
    pool = [*many_rows(10), example({"text": LONG}, LABELS[0])]
    (got,) = fit(few_shot(shots=11, max_tokens=400, windows="auto"), pool=pool).predict([QUERY])
    assert got.n_dropped == 1
    assert len(got.demonstrations) == 10


@pytest.mark.parametrize("combine", ["product", "mixture", "parallel"])
def test_windows_are_planned_saved_and_calibrated(few_shot, tiny_lm, combine, tmp_path):
    from icl import load_model

    queries, options = QUERIES["classify"], {"retriever": "random", "calibration": "batch", "windows": {"n": 2, "combine": combine}}
    lm = load_model(tiny_lm.reference["name"], device="cpu", dtype="float32")
    predictor = fit(few_shot(lm, **options))
    planned = predictor.plan(queries)
    whole = predictor.predict(queries)
    assert (lm.totals.computed, lm.totals.naive) == (planned.computed, planned.naive)
    assert planned.computed < planned.naive
    assert {p.n_windows for p in whole} == {2}
    assert all(abs(sum(p.probabilities.values()) - 1) < 1e-9 for p in whole)
    raw = fit(few_shot(**{**options, "calibration": None})).predict(queries)
    assert any(a.probabilities != pytest.approx(b.probabilities, abs=1e-6) for a, b in zip(whole, raw, strict=True))
    predictor.save(tmp_path / "saved")
    again = icl.load(tmp_path / "saved", lm=tiny_lm)
    assert json.loads((tmp_path / "saved" / "predictor.json").read_text())["settings"]["windows"] == {"n": 2, "combine": combine}
    for got, want in zip(again.predict(queries), whole, strict=True):
        assert got.answer == want.answer
        assert got.probabilities == pytest.approx(want.probabilities, abs=1e-5)


def test_parallel_windows_see_the_instruction_once_and_the_query_last(few_shot, tiny_lm):
    """Against one forward pass of transformers with a mask and positions by hand, in `tests/model`; here: that the right parts are found."""
    template = icl.Template.parse(
        "---\ninput: [text]\n---\n{% block instruction %}Sort the message.{% endblock %}\n{% block example %}Message: {{ text }}\nQueue:"
        "{% endblock %}\n{% block answer %} {{ answer }}{% endblock %}\n",
        "queue",
    )
    made = fit(few_shot(template=template, windows={"n": 3, "combine": "parallel"})).prompt(QUERY)
    decode = tiny_lm.codec.tokens.decode
    windows = made.windows
    query = f"Message: {QUERY.fields['text']}\nQueue:"
    for window in windows.prompts:
        assert decode(window.token_ids[: windows.n_head]) == "Sort the message.\n\n"
        assert decode(window.token_ids[len(window.token_ids) - windows.n_tail :]) == query
    shared = fit(few_shot(template=template, retriever="random", windows={"n": 3, "combine": "parallel"}))
    one, two = (tiny_lm.plan(shared.prompts(QUERIES["classify"][:n]), [[" a"]] * n).computed for n in (1, 2))
    assert two - one < 80  # the windows are read once for all queries


def test_what_windows_cannot_do_is_said(few_shot, tiny_lm):
    with pytest.raises(InputError, match="an answer is written"):
        fit(few_shot(windows=2), "answer")
    with pytest.raises(InputError, match="an answer is written"):
        fit(few_shot(windows=2, samples=3))
    with pytest.raises(InputError, match="plain prompts"):
        fit(few_shot(format="chat", windows={"n": 2, "combine": "parallel"})).predict([QUERY])
    for bad, field in ((0, "windows"), ("many", "windows"), ({"n": 2, "combine": "sum"}, "windows.combine"), ({"w": 2}, "windows.w")):
        with pytest.raises(InputError) as caught:
            few_shot(windows=bad)
        assert caught.value.problems[0].field.startswith(field)
    with pytest.raises(InputError, match="one by one"):
        tiny_lm.loglikelihoods([fit(few_shot(windows=2)).prompt(QUERY)], [[" a"]])


def test_a_model_that_cannot_do_parallel_windows_says_so_before_any_work(few_shot):
    import tiny

    for name in ("mistral", "t5", "bloom"):
        with pytest.raises(InputError, match="parallel windows cannot be had"):
            fit(few_shot(tiny.lm(name), windows={"n": 2, "combine": "parallel"}))
    assert fit(few_shot(tiny.lm("t5"), windows=2)).predict([QUERY])[0].n_windows == 2


# ── long inputs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_long_input_is_refused_unless_told_otherwise(few_shot):
    (got,) = fit(few_shot(max_tokens=300)).predict([LONG])
    assert got.answer is None
    assert "budget is 300" in got.why


@pytest.mark.parametrize("how", ["slide", "head_tail", "truncate", {"how": "slide", "pool": "max"}])
def test_an_input_that_fits_is_left_alone(few_shot, how):
    queries = QUERIES["classify"]
    plain, other = fit(few_shot()).predict(queries), fit(few_shot(long_input=how)).predict(queries)
    for got, want in zip(other, plain, strict=True):
        np.testing.assert_allclose(got.scores.sums, want.scores.sums, atol=1e-4)
        assert (got.answer, got.n_windows, got.n_cut) == (want.answer, 0, 0)


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.6])
def test_a_sliding_window_reads_all_of_the_input(few_shot, tiny_lm, pool, overlap):
    predictor = fit(few_shot(max_tokens=300, long_input={"how": "slide", "pool": pool, "overlap": overlap}))
    made = predictor.prompt(LONG)
    windows = made.windows.prompts
    assert all(w.n_tokens + max(map(len, LABELS)) <= 301 for w in windows)  # a label is a space and its bytes here
    parts = [w.query.fields["text"] for w in windows]
    at = 0
    for part in parts:  # nothing between two windows is in neither
        start = LONG.find(part, max(at - len(part), 0))
        assert 0 <= start <= at
        at = start + len(part)
    assert at == len(LONG)
    assert len({tuple(d.uid for d in w.demonstrations) for w in windows}) == 1
    assert windows[0].demonstrations
    (got,) = predictor.predict([LONG])
    by_hand = np.array(tiny_lm.loglikelihoods(list(windows), [got.scores.candidates] * len(windows)))
    expected = by_hand.mean(axis=0) if pool == "mean" else log_softmax(by_hand, axis=1).max(axis=0) + logsumexp(by_hand, axis=1).mean()
    np.testing.assert_allclose(got.scores.sums, expected, atol=1e-4)
    assert (got.n_windows, got.n_cut) == (len(windows), 0)
    assert got.demonstrations == tuple(d.uid for d in windows[0].demonstrations)


def test_a_part_of_the_input_is_counted_as_cut(few_shot):
    for how in ("truncate", "head_tail"):
        predictor = fit(few_shot(max_tokens=300, long_input=how))
        made = predictor.prompt(LONG)
        assert 270 <= made.n_tokens <= 300
        read = made.text.rpartition("Text: ")[2].removesuffix("\nLabel:")
        assert made.query.fields["text"] == read
        head, _, tail = read.partition(" … ")
        assert LONG.startswith(head)
        assert LONG.endswith(tail)
        assert bool(tail) == (how == "head_tail")
        (got,) = predictor.predict([LONG])
        assert abs(got.n_cut + len(head) + len(tail) - len(LONG)) <= 5
        assert got.answer is not None
        assert got.n_windows == 0


def test_written_answers_are_cut_or_refused(few_shot):
    with pytest.raises(InputError, match="head_tail or truncate"):
        fit(few_shot(long_input="slide"), "answer")
    (got,) = fit(few_shot(max_tokens=300, long_input="head_tail", format="plain"), "answer").predict([LONG])
    assert got.n_cut > 0
    assert got.text is not None


def test_the_longest_field_is_cut_or_the_one_that_is_named(few_shot):
    rows = [example({"title": f"a title {i}", "text": f"some text {i}"}, LABELS[i % 2]) for i in range(6)]
    query = {"title": "short", "text": LONG}
    for field in (None, "text"):
        method = few_shot(max_tokens=300, long_input={"how": "truncate", "field": field}, retriever="random")
        assert fit(method, pool=rows).predict([query])[0].n_cut > 0
    with pytest.raises(InputError, match="no input field 'body'"):
        fit(few_shot(long_input={"how": "truncate", "field": "body"}), pool=rows)
    method = few_shot(max_tokens=300, long_input={"how": "truncate", "field": "title"}, retriever="random")
    assert "budget is 300" in fit(method, pool=rows).predict([query])[0].why  # cutting the title does not help


def test_pieces_hold_every_character():
    rng = random.Random(0)
    for _ in range(200):
        text = "".join(rng.choice("ab c d  ") for _ in range(rng.randrange(40, 400)))
        size, overlap = rng.randrange(16, len(text)), rng.choice([0, 0.25, 0.5, 0.9])
        starts = []
        at = 0
        for piece in pieces(text, size, overlap):
            start = next(s for s in range(at, -1, -1) if text.startswith(piece, s)) if piece else at
            starts.append(start)
            at = max(at, start + len(piece))
        assert at == len(text)
        assert all(a <= b for a, b in pairwise(starts))


def test_long_inputs_without_demonstrations(tiny_lm, encoder_folder):
    method = icl.FewShot(tiny_lm, shots=0, max_tokens=200, long_input="slide", encoder=str(encoder_folder))
    assert method.fit((), labels=LABELS, kind="classify", inputs=("text",)).predict([LONG])[0].n_windows > 3


# ── in results ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_results_count_windows_and_cuts_and_name_the_approximation(model_folder, tmp_path):
    rows = [{"text": f"{'a parcel' if i % 2 else 'an invoice'} number {i}", "label": LABELS[i % 2]} for i in range(12)]
    tests = [*rows[:2], {"text": LONG, "label": LABELS[0]}]
    for name, some in (("train", rows), ("test", tests)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    suite = {
        "models": [{"model": str(model_folder), "attention": "sink:4+640", "dtype": "float32", "name": "sinks"}],
        "tasks": [{"name": "mail", "train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")}],
        "methods": [
            {"name": "slides", "few_shot": {"retriever": "random", "shots": 4, "max_tokens": 300, "windows": 2, "long_input": "slide"}},
            {"name": "cut", "zero_shot": {"max_tokens": 300, "long_input": {"how": "truncate"}}},
        ],
        "budgets": [8],
        "metrics": ["accuracy"],
    }
    run = icl.run(suite, out=tmp_path / "run")
    found = {r["method"]: r for r in run.results if r["seed"] is None}
    assert (found["slides"]["n_windowed"], found["slides"]["n_truncated"], found["slides"]["n_failed"]) == (3, 0, 0)
    assert (found["cut"]["n_windowed"], found["cut"]["n_truncated"], found["cut"]["n_failed"]) == (0, 1, 0)
    assert found["cut"]["estimator"] == "loglikelihood, attention sink:4+640"
    manifest = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))["manifest"]
    assert "attention sink:4+640" in json.dumps(manifest["models"])
    assert "attention sink:4+640" in run.table()
    assert "in windows" in run.table()
    (long,) = [p for p in run.predictions(method="slides") if p.n_windows > 2]
    assert len(long.scores.parts) == long.n_windows  # kept in the store


def test_a_saved_predictor_keeps_the_attention(model_folder, encoder_folder, tmp_path):
    lm = icl.load_model(str(model_folder), device="cpu", attention="sink:4+640")
    predictor = icl.FewShot(lm, shots=2, encoder=str(encoder_folder)).fit(POOLS["classify"](), labels=LABELS)
    predictor.save(tmp_path / "saved")
    again = icl.load(tmp_path / "saved")
    again.predict([QUERY])
    assert again.lm.approximation == "attention sink:4+640"
    assert again.lm.fingerprint == lm.fingerprint
    with pytest.raises(InputError, match="is no attention"):
        icl.load_model(str(model_folder), attention="sinks")
    with pytest.raises(InputError, match="attention"):
        icl.load_model("http://localhost:1/v1#m", attention="sink:4+640")
