"""few_shot from end to end: prompts with and without a model, packing, read-outs, adding, saving, calibration."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_tasks import LABELS, POOLS, QUERIES, example

import icl
from icl.errors import InputError
from icl.protocols import LanguageModel, offers
from icl.values import Hit

SENTIMENT = """---
input: [text]
labels: {billing: [money, bill], delivery: [parcel], login: [password], other: [else]}
---
{% block instruction %}Sort the message.{% endblock %}
{% block example %}Message: {{ text }}
Queue:{% endblock %}
{% block answer %} {{ answer }}{% endblock %}
"""


@pytest.fixture
def few_shot(tiny_lm, encoder_folder):
    def make(lm=tiny_lm, **options):
        return icl.FewShot(lm, **{"encoder": str(encoder_folder), "shots": 3, "max_new_tokens": 6, **options})

    return make


@pytest.fixture
def template():
    return icl.Template.parse(SENTIMENT, "queue")


def fit(method, kind="classify", pool=None):
    return method.fit(POOLS[kind]() if pool is None else pool, labels=LABELS if kind == "classify" else ())


# ── prompts without a language model ─────────────────────────────────────────────────────────────────────────────────────────────


def test_prompts_need_no_model(few_shot, template):
    predictor = fit(few_shot(None, template=template, shots=2))
    prompt = predictor.prompt("Where is the parcel")
    shown = [d.example for d in prompt.demonstrations]
    assert len(shown) == 2
    words = {"billing": "money", "delivery": "parcel", "login": "password"}
    blocks = [f"Message: {e.fields['text']}\nQueue: {words[e.target]}" for e in shown]
    assert prompt.text == "\n\n".join(["Sort the message.", *blocks, "Message: Where is the parcel\nQueue:"])
    assert [m["role"] for m in prompt.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert prompt.messages[2]["content"] == words[shown[0].target]
    assert prompt.n_tokens is None
    with pytest.raises(InputError, match=r"prompts\(queries\)"):
        predictor.predict(["Where is the parcel"])


def test_nearest_demonstration_stands_last(few_shot):
    predictor = fit(few_shot(None))
    prompt = predictor.prompt(POOLS["classify"]()[0].fields["text"])  # typed in, so its own copy may be used
    assert [d.score for d in prompt.demonstrations] == sorted(d.score for d in prompt.demonstrations)
    assert prompt.demonstrations[-1].uid == POOLS["classify"]()[0].uid
    first = fit(few_shot(None, order="similar_first")).prompt(POOLS["classify"]()[0].fields["text"])
    assert [d.uid for d in first.demonstrations] == [d.uid for d in prompt.demonstrations][::-1]


def test_a_counting_function_serves_the_token_budget(few_shot, template):
    counted = fit(few_shot(None, template=template, tokenizer=lambda text: len(text.split()), max_tokens=20, shots=5)).prompt("Hello")
    assert counted.n_tokens == len(counted.text.split())
    assert counted.n_tokens < 20
    assert len(counted.demonstrations) + len(counted.dropped) == 5
    assert counted.dropped
    assert counted.text.startswith("Sort the message.")
    assert counted.text.endswith("Message: Hello\nQueue:")


def test_queries_that_cannot_fit_are_all_named(few_shot, template):
    predictor = fit(few_shot(None, template=template, tokenizer=lambda text: len(text.split()), max_tokens=12))
    with pytest.raises(InputError) as caught:
        predictor.prompts(["short", "far too " * 10, "ok", "long " * 20])
    assert [p.field for p in caught.value.problems] == ["queries.1", "queries.3"]
    assert "budget is 12" in caught.value.problems[0].message


def test_ten_thousand_prompts_in_one_call(few_shot):
    predictor = fit(few_shot(None, retriever="random", shots=4))
    queries = [f"message number {i}" for i in range(10_000)]
    started = time.perf_counter()
    prompts = predictor.prompts(queries)
    assert time.perf_counter() - started < 20
    assert len(prompts) == 10_000
    assert prompts[9_999].text.endswith("Text: message number 9999\nLabel:")
    assert len({tuple(d.uid for d in p.demonstrations) for p in prompts}) == 1  # one random draw, shared by all


# ── reading what a model elsewhere answered ──────────────────────────────────────────────────────────────────────────────────────


def test_read_matches_label_words(few_shot, template):
    predictor = fit(few_shot(None, template=template))
    query = QUERIES["classify"][0]
    read = predictor.read(query, "**Bill**: they charged twice")
    assert (read.uid, read.answer, read.label) == (query.uid, "billing", "billing")
    assert read.candidates == LABELS
    assert predictor.read(query, "<think>money</think> password").answer == "login"
    unread = predictor.read(query, "I cannot say")
    assert unread.answer is None
    assert "none of billing, delivery, login, other" in unread.why
    judged = icl.score([replace(query, target="billing")], [read])
    assert judged["accuracy"].value == 1.0


def test_read_of_choices_and_answers(few_shot):
    choose = fit(few_shot(None), "choose")
    query = QUERIES["choose"][1]
    assert choose.read(query, "(C) snow").answer == "snow"
    assert choose.read(query, "It is the sea.").answer == "sea"
    answer = fit(few_shot(None, format="plain"), "answer")
    assert answer.read("Capital of Portugal", " Lisbon\n\nQuestion: x").answer == "Lisbon"
    assert answer.read("Capital of Portugal", "  ").why == "the model wrote nothing"


# ── predictions ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_prediction_is_what_the_scores_say(few_shot, template, tiny_lm):
    predictor = fit(few_shot(template=template))
    for query, got in zip(QUERIES["classify"], predictor.predict(QUERIES["classify"]), strict=True):
        prompt = predictor.prompt(query)
        assert got.scores.candidates == (" money", " bill", " parcel", " password", " else")
        (by_hand,) = tiny_lm.loglikelihoods([prompt], [got.scores.candidates])
        np.testing.assert_allclose(got.scores.sums, by_hand, atol=1e-4)
        per_label = [np.logaddexp(by_hand[0], by_hand[1]), *by_hand[2:]]
        shares = np.exp(per_label) / np.exp(per_label).sum()
        np.testing.assert_allclose(list(got.probabilities.values()), shares, atol=1e-4)
        assert got.answer == LABELS[int(np.argmax(per_label))]
        assert got.demonstrations == tuple(d.uid for d in prompt.demonstrations)
        assert (got.n_tokens, got.n_dropped) == (prompt.n_tokens, 0)
        assert got.n_tokens == len(prompt.token_ids)


def test_the_readout_changes_what_is_compared(few_shot, template):
    query = QUERIES["classify"][:1]
    total, per_char = (fit(few_shot(template=template, readout=r)).predict(query)[0] for r in ("sum", "per_char"))
    assert total.scores.sums == pytest.approx(per_char.scores.sums, abs=1e-4)
    values = np.array(per_char.scores.sums) / per_char.scores.n_chars
    expected = [np.logaddexp(values[0], values[1]), *values[2:]]
    shares = np.exp(expected) / np.exp(expected).sum()
    np.testing.assert_allclose(list(per_char.probabilities.values()), shares, atol=1e-5)
    assert per_char.scores.n_chars == (5, 4, 6, 8, 4)


def test_choices_of_equal_text_are_one_answer(few_shot):
    (got,) = fit(few_shot(), "choose").predict([QUERIES["choose"][2]])
    assert got.answer == "ash"
    assert dict(got.probabilities) == {"ash": pytest.approx(1.0)}
    assert len(got.scores.candidates) == 2  # its two letters
    (none,) = fit(few_shot(), "choose").predict([example({"question": "no choices"}, None)])
    assert none.answer is None
    assert "no choices" in none.why


def test_a_query_beyond_the_window_is_unscored_and_the_others_are_not(few_shot):
    long = "x" * 700  # the window has 640 tokens, one a byte
    got = fit(few_shot()).predict(["short", long, "also short"])
    assert [p.answer is None for p in got] == [False, True, False]
    assert "640" in got[1].why
    assert got[1].probabilities is None


def test_demonstrations_that_do_not_fit_are_dropped_and_counted(few_shot):
    (got,) = fit(few_shot(max_tokens=120, shots=6)).predict(["hello"])
    assert got.answer is not None
    assert got.n_dropped + len(got.demonstrations) == 6
    assert got.n_dropped > 0
    assert got.n_tokens < 120


def test_more_shots_than_examples_and_none(few_shot):
    assert len(fit(few_shot(shots=50, max_tokens=None)).predict(["hi"])[0].demonstrations) <= 8
    zero = fit(few_shot(shots=0))
    assert zero.predict(["hi"])[0].demonstrations == ()
    assert zero.prompt("hi").text == "Text: hi\nLabel:"


def test_the_plan_counts_what_is_scored(few_shot):
    predictor = fit(few_shot())
    counts = predictor.plan(QUERIES["classify"])
    predictions = predictor.predict(QUERIES["classify"])
    naive = sum(len(p.candidates) * p.n_tokens for p in predictions)
    assert naive < counts.naive < naive + 5 * sum(map(len, LABELS)) + 5 * len(LABELS) * 2
    assert counts.computed < counts.naive


def test_the_plan_counts_what_is_written_with_shared_beginnings_once(few_shot, tiny_lm):
    predictor = fit(few_shot(retriever="random", max_new_tokens=6), "answer")
    counts = predictor.plan(QUERIES["answer"])
    before = replace(tiny_lm.totals)
    predictor.predict(QUERIES["answer"])
    assert tiny_lm.totals.computed - before.computed <= counts.computed < counts.naive, "the same demonstrations are read once"
    assert tiny_lm.totals.naive - before.naive <= counts.naive


def test_generated_answers_are_read_out(few_shot, tiny_lm):
    predictor = fit(few_shot(), "answer")
    predictions = predictor.predict(QUERIES["answer"])
    prompt = predictor.prompt(QUERIES["answer"][0])
    assert prompt.format == "chat"
    assert predictions[0].text == tiny_lm.generate([prompt], max_new_tokens=6, stop=())[0]
    assert all((p.answer is None) == (p.why is not None) for p in predictions)


REASONED = """---
input: [text]
---
{% block example %}Message: {{ text }}{% endblock %}
{% block rationale %}
Thought: {{ rationale }}{% endblock %}
{% block answer %}
So the queue is {{ answer }}{% endblock %}
"""


class Recorder:
    """The tiny model, with what it writes laid down: a random one writes no rationale worth reading."""

    def __init__(self, lm, text):
        self._lm, self._text = lm, text

    def __getattr__(self, name):
        return getattr(self._lm, name)

    def generate(self, prompts, max_new_tokens=64, stop=()):
        return [self._text for _ in prompts]


def with_rationales(kind):
    return [replace(e, rationale=f"it says {i}") for i, e in enumerate(POOLS[kind]())]


def test_labels_are_scored_after_a_rationale_of_the_models_own(few_shot, tiny_lm):
    lm = Recorder(tiny_lm, "\nThought: a code\nSo the queue is login\nMessage: x")
    assert offers(lm, LanguageModel)
    predictor = fit(few_shot(lm, template=icl.Template.parse(REASONED, "reasoned"), shots=2), pool=with_rationales("classify"))
    prompt = predictor.prompt("The code")
    shown = prompt.demonstrations[-1].example
    assert f"Message: {shown.fields['text']}\nThought: {shown.rationale}\nSo the queue is {shown.target}" in prompt.text
    (got,) = predictor.predict(["The code"])
    assert got.scores.candidates == tuple(f"\nThought: a code\nSo the queue is {label}" for label in LABELS)
    (after,) = tiny_lm.loglikelihoods([prompt.text + "\nThought: a code"], [[f"\nSo the queue is {label}" for label in LABELS]])
    shares = np.exp(after - np.logaddexp.reduce(after))
    np.testing.assert_allclose(list(got.probabilities.values()), shares, atol=1e-4)  # the rationale's likelihood cancels out
    with pytest.raises(InputError, match="Use sum"):
        fit(few_shot(readout="per_char", template=icl.Template.parse(REASONED, "reasoned")), pool=with_rationales("classify"))


def test_answers_are_read_after_the_rationale(few_shot, tiny_lm):
    source = REASONED.replace("input: [text]", "input: [question]\nkind: answer").replace("{{ text }}", "{{ question }}")
    lm = Recorder(tiny_lm, "\nThought: in the south\nSo the queue is Lisbon")
    predictor = fit(few_shot(lm, template=icl.Template.parse(source, "reasoned")), "answer", with_rationales("answer"))
    assert predictor.predict(["Capital of Portugal"])[0].answer == "Lisbon"


# ── retrievers of the user's own, and growing ────────────────────────────────────────────────────────────────────────────────────


def test_a_function_as_retriever(few_shot):
    pool = POOLS["classify"]()

    def first(queries, k):
        return [[Hit(e.uid, 1.0, e) for e in pool if e.uid != q.uid][:k] for q in queries]

    predictor = fit(few_shot(retriever=first))
    assert predictor.predict(["anything"])[0].demonstrations == tuple(e.uid for e in pool[2::-1])
    with pytest.raises(InputError, match="function cannot be saved"):
        predictor.save("somewhere")


def test_an_index_stays_live(few_shot, encoder_folder):
    pool = POOLS["classify"]()
    index = icl.DemoIndex.build(pool[:4], encoder=str(encoder_folder))
    predictor = few_shot(retriever=index).fit(list(index.examples), labels=LABELS)
    new = example({"text": "exactly this"}, "other")
    assert new.uid not in predictor.predict(["exactly this"])[0].demonstrations
    index.add([new])
    assert predictor.predict(["exactly this"])[0].demonstrations[-1] == new.uid
    predictor.save("live")
    assert icl.load("live").predict(["exactly this"])[0].demonstrations[-1] == new.uid


def test_new_examples_and_new_labels_are_taken(few_shot):
    predictor = fit(few_shot(shots=1))
    predictor.predict(["My dog ate the parcel"])
    new = example({"text": "My dog ate the parcel"}, "pets")
    predictor.add([new])
    got = predictor.predict(["My dog ate the parcel"])[0]
    assert got.demonstrations == (new.uid,)
    assert got.candidates == (*LABELS, "pets")


def test_a_saved_prompt_method_prompts_without_its_model(few_shot, template, monkeypatch):
    predictor = fit(few_shot(template=template, retriever={"knn": {}}, format="plain"))
    before = predictor.predict(QUERIES["classify"])
    predictor.save("shipped")
    state = json.loads(Path("shipped/predictor.json").read_text())
    assert Path("shipped/template.jinja").read_text() == SENTIMENT
    assert state["model"]["window"] == 640
    assert set(state["encoder"]) == {"name", "fingerprint"}
    again = icl.load("shipped")
    assert again.prompt(QUERIES["classify"][0]) == predictor.prompt(QUERIES["classify"][0])
    assert again._model.lm is None  # the tokenizer was enough
    assert [p.probabilities for p in again.predict(QUERIES["classify"])] == [p.probabilities for p in before]
    assert again._model.lm is not None


def test_a_changed_encoder_is_refused(few_shot, tmp_path, encoder_folder):
    predictor = fit(few_shot())
    predictor.predict(["x"])
    predictor.save("shipped")
    manifest = next(p for p in (tmp_path / "shipped" / "index").iterdir() if "manifest" in p.name)
    text = manifest.read_text()
    fingerprint = predictor.index.encoder.fingerprint
    assert fingerprint in text
    manifest.write_text(text.replace(fingerprint, fingerprint[::-1]))
    with pytest.raises(InputError):
        icl.load("shipped").predict(["x"])


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_wrong_options_at_once():
    with pytest.raises(InputError) as caught:
        icl.FewShot("smollm2", shots=-1, readout="per_chars", format="chatty", max_tokens=0)
    assert {p.field for p in caught.value.problems} == {"lm", "shots", "readout", "format", "max_tokens"}
    assert "load_model" in str(caught.value)
    assert "Did you mean 'per_char'" in str(caught.value)


def test_an_unknown_calibration_is_refused_at_once(few_shot):
    with pytest.raises(InputError, match="no calibration named 'no_such_one'"):
        fit(few_shot(calibration="no_such_one"))


SHIFT = '''"""Subtracts the mean log-score of each label."""
from icl.plugins import NoSettings as Settings

KIND = "calibration"


class Shift:
    def fit(self, scores):
        return {"mean": scores.mean(0).tolist(), "n": len(scores)}

    def apply(self, state, scores):
        return scores - state["mean"]


def build(settings, context):
    return Shift()
'''


def test_a_calibration_is_one_new_file(few_shot, tmp_path):
    (tmp_path / "plug").mkdir()
    (tmp_path / "plug" / "shift.py").write_text(SHIFT)
    options = {"calibration": "shift", "plugins": (tmp_path / "plug",)}
    predictor, plain = fit(few_shot(**options)), fit(few_shot())
    got, raw = predictor.predict(QUERIES["classify"]), plain.predict(QUERIES["classify"])
    mean = plain.log_scores(POOLS["classify"]()).mean(0)
    for a, b in zip(got, raw, strict=True):
        assert a.scores.sums == b.scores.sums  # raw scores are always kept
        shifted = np.array(b.scores.sums) - mean
        np.testing.assert_allclose(list(a.probabilities.values()), np.exp(shifted) / np.exp(shifted).sum(), atol=1e-5)
    predictor.save("calibrated")
    state = json.loads(Path("calibrated/predictor.json").read_text())["calibration_state"]
    assert state["n"] == 8
    assert not math.isnan(sum(state["mean"]))
    with pytest.raises(InputError, match="one set of labels"):
        fit(few_shot(**options), "answer")
