"""Why an answer: every effect equals its definition, each prompt built by hand and scored by itself."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp
from small_tasks import LABELS, POOLS, QUERIES, example

import icl
from icl.errors import InputError
from icl.methods._why import effects_on
from icl.values import Prompt, as_query

PLAIN = """---
input: [text]
labels: {billing: [m, b], delivery: [p], login: [l], other: [x]}
---
{% block instruction %}Sort the messages.{% endblock %}
{% block example %}Message: {{ text }}
It is about{% endblock %}
{% block answer %} {{ answer }}{% endblock %}
"""
CHANNEL = """---
input: [text]
labels: {billing: [m, b], delivery: [p], login: [l], other: [x]}
channel: true
---
{% block answer %}About {{ answer }}:{% endblock %}
{% block example %}
{{ text }}{% endblock %}
"""


@pytest.fixture
def fitted(tiny_lm, encoder_folder):
    def make(kind="classify", lm=tiny_lm, pool=None, **options):
        template = icl.Template.parse(PLAIN, "plain") if kind == "classify" else "default"
        options = {"template": template, "encoder": str(encoder_folder), "shots": 3, "max_new_tokens": 5, **options}
        return icl.FewShot(lm, **options).fit(POOLS[kind]() if pool is None else pool, labels=LABELS if kind == "classify" else ())

    return make


def scores_by_hand(predictor, shown, query, format="plain"):
    """(answers, their log-scores): one prompt, each continuation asked for by itself."""
    lm, bound = predictor.lm, predictor.bound

    def prompt(ending=None):
        if format == "chat":
            return Prompt("", bound.messages(shown, query, ending), format="chat")
        return bound.plain(shown, query, ending)

    values = {}
    for answer, texts in bound.continuations(query, format):
        if bound.template.channel:
            each = [lm.loglikelihoods([prompt(text)], [[bound.scored(query, format)]])[0][0] for text in texts]
        else:
            each = [lm.loglikelihoods([prompt()], [[text]])[0][0] for text in texts]
        values.setdefault(answer, []).extend(each)
    alone = bound.template.channel  # there each word is a prompt of its own, and its mean is taken
    return list(values), np.array([logsumexp(each) - alone * np.log(len(each)) for each in values.values()])


def shares_by_hand(predictor, shown, query, format="plain"):
    answers, values = scores_by_hand(predictor, shown, query, format)
    if predictor.calibration is not None:  # contextual: less the mean of what inputs without content give, here with the same rows
        empty = [example({"text": text}, None) for text in ("N/A", "", "[MASK]")]
        fixed = [d.example for d in predictor.prompt(query).demonstrations]
        values = values - np.log(np.mean([np.exp(scores_by_hand(predictor, fixed, each)[1]) for each in empty], axis=0))
    return dict(zip(answers, log_softmax(values), strict=True))


def words_less_one(text, n_words):
    """The text without each of its words in turn; it is words with single spaces between them."""
    words = text.split(" ")
    assert len(words) == n_words
    return [" ".join(words[:i] + words[i + 1 :]) for i in range(n_words)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("classify", {}),
        ("classify", {"format": "chat"}),
        ("classify", {"template": icl.Template.parse(CHANNEL, "channel"), "readout": "channel"}),
        ("classify", {"retriever": "random", "calibration": "contextual"}),
        ("classify", {"order": "similar_first", "abstain": 0.99}),
        ("choose", {}),
    ],
    ids=["plain", "chat", "channel", "calibration", "abstain", "choose"],
)
def test_effects_equal_the_prompts_built_by_hand(fitted, kind, options):
    predictor = fitted(kind, **options)
    query = QUERIES[kind][0]
    found = predictor.why(query)
    format = options.get("format", "plain")
    shown = [d.example for d in predictor.prompt(query).demonstrations]
    whole = shares_by_hand(predictor, shown, query, format)
    assert [each.demonstration.example for each in found.demonstrations] == shown
    assert found.answer == max(whole, key=whole.get) == found.prediction.answer  # also where `abstain` would hold it back
    assert found.log_probability == pytest.approx(whole[found.answer], abs=1e-4)
    tried = [(shown[:i] + shown[i + 1 :], query) for i in range(3)]
    (field,) = query.fields
    tried += [(shown, replace(query, fields={field: text})) for text in words_less_one(query.fields[field], 3)]
    for (demonstrations, other), each in zip(tried, [*found.demonstrations, *found.words], strict=True):
        without = shares_by_hand(predictor, demonstrations, other, format)
        assert each.left_out.log_probability == pytest.approx(without[found.answer], abs=1e-4)
        assert each.left_out.effect == pytest.approx(whole[found.answer] - without[found.answer], abs=1e-4)
        assert each.left_out.answer == max(without, key=without.get)
        assert each.left_out.changed == (each.left_out.answer != found.answer)
    assert [each.text for each in found.words] == query.fields[field].split(" ")
    assert found.n_prompts == 7
    assert max(abs(each.left_out.effect) for each in found.demonstrations) > 0.01
    assert list(found.most_harmful) == sorted(found.demonstrations, key=lambda each: each.left_out.effect)
    encoder = predictor.index.encoder
    vectors = encoder.encode([query.fields[field], *(row.fields[field] for row in shown)])
    np.testing.assert_allclose([each.similarity for each in found.demonstrations], vectors[1:] @ vectors[0], atol=1e-5)


@pytest.mark.parametrize("combine", ["product", "mixture"])
def test_windows_stay_as_they_are_cut(fitted, combine):
    predictor = fitted(shots=5, windows={"n": 3, "combine": combine})
    query = QUERIES["classify"][0]
    runs = [[d.example for d in window.demonstrations] for window in predictor.prompt(query).windows.prompts]
    assert [len(run) for run in runs] == [1, 2, 2]

    def shares(windows, asked):
        # Word by word, since windows are put together before the words of a label are.
        texts = [text for _, its in predictor.bound.continuations(asked) for text in its]
        prompts = [predictor.bound.plain(run, asked) for run in windows]
        raw = np.array([[predictor.lm.loglikelihoods([p], [[t]])[0][0] for t in texts] for p in prompts])
        found = raw.mean(axis=0) if combine == "product" else logsumexp(log_softmax(raw, axis=1), axis=0)
        money, bill, *others = found
        return dict(zip(LABELS, log_softmax([np.logaddexp(money, bill), *others]), strict=True))

    found = predictor.why(query)
    whole = shares(runs, query)
    assert found.log_probability == pytest.approx(whole[found.answer], abs=1e-4)
    for each in found.demonstrations:
        left = [[row for row in run if row != each.demonstration.example] for run in runs]
        without = shares([run for run in left if run], query)
        assert each.left_out.log_probability == pytest.approx(without[found.answer], abs=1e-4)
    for text, each in zip(words_less_one(query.fields["text"], 3), found.words, strict=True):
        without = shares(runs, replace(query, fields={"text": text}))
        assert each.left_out.log_probability == pytest.approx(without[found.answer], abs=1e-4)


@pytest.mark.parametrize("how", ["truncate", "head_tail"])
@pytest.mark.parametrize("channel", [False, True])
def test_an_input_that_was_cut_stays_what_it_is(fitted, how, channel):
    """Leaving a demonstration out makes room, which nothing may fill."""
    options = {"template": icl.Template.parse(CHANNEL, "channel"), "readout": "channel"} if channel else {}
    predictor = fitted(max_tokens=300, long_input=how, **options)
    found = predictor.why(" ".join(f"word{i} more" for i in range(60)), most_words=3)
    assert found.prediction.n_cut > 0
    assert found.query.fields["text"] in found.prompt.text or channel
    shown = [d.example for d in found.prompt.demonstrations]
    whole = shares_by_hand(predictor, shown, found.query)
    assert found.log_probability == pytest.approx(whole[found.answer], abs=1e-4)
    for i, each in enumerate(found.demonstrations):
        without = shares_by_hand(predictor, shown[:i] + shown[i + 1 :], found.query)
        assert each.left_out.log_probability == pytest.approx(without[found.answer], abs=1e-4)
    assert shown
    assert len(found.words) == 3


def test_an_input_read_in_pieces(fitted):
    predictor = fitted(max_tokens=300, long_input="slide", shots=2)
    found = predictor.why(" ".join(f"word{i} more" for i in range(60)), most_words=2)
    pieces = [window.query for window in found.prompt.windows.prompts]
    assert len(pieces) > 1
    shown = [d.example for d in found.prompt.demonstrations]
    assert shown

    def mean(rows):
        texts = [text for _, its in predictor.bound.continuations(pieces[0]) for text in its]
        prompts = [predictor.bound.plain(rows, piece) for piece in pieces]
        m, b, *others = np.mean([[predictor.lm.loglikelihoods([p], [[t]])[0][0] for t in texts] for p in prompts], axis=0)
        return dict(zip(LABELS, log_softmax([np.logaddexp(m, b), *others]), strict=True))

    for i, each in enumerate(found.demonstrations):
        without = mean(shown[:i] + shown[i + 1 :])
        assert each.left_out.log_probability == pytest.approx(without[found.answer], abs=1e-4)
    assert len(found.words) == 2


@pytest.mark.parametrize("format", ["plain", "chat"])
def test_an_answer_in_words_is_explained_by_the_likelihood_of_its_text(fitted, format):
    predictor = fitted("answer", format=format)
    query = QUERIES["answer"][0]
    shown = [d.example for d in predictor.prompt(query).demonstrations]
    for asked in (None, "Lisbon"):
        found = predictor.why(query, answer=asked, words=False)
        text = found.prediction.text if asked is None else "Lisbon" if format == "chat" else " Lisbon"

        def by_hand(rows, text=text):
            bound = predictor.bound
            chat = Prompt("", bound.messages(rows, query), format="chat")
            return predictor.lm.loglikelihoods([chat if format == "chat" else bound.plain(rows, query)], [[text]])[0][0]

        assert found.answer == (asked or found.prediction.answer)
        assert found.log_probability == pytest.approx(by_hand(shown), abs=1e-4)
        for i, each in enumerate(found.demonstrations):
            assert each.left_out.effect == pytest.approx(by_hand(shown) - by_hand(shown[:i] + shown[i + 1 :]), abs=1e-4)
            assert (each.left_out.answer, each.left_out.changed) == (None, False)
        assert found.words == ()


def test_another_answer_can_be_explained(fitted):
    predictor = fitted()
    query = QUERIES["classify"][1]
    by_label = {label: predictor.why(query, answer=label, words=False) for label in LABELS}
    assert sum(np.exp(found.log_probability) for found in by_label.values()) == pytest.approx(1, abs=1e-6)
    for i in range(3):
        assert sum(np.exp(found.demonstrations[i].left_out.log_probability) for found in by_label.values()) == pytest.approx(1, abs=1e-6)
    assert {found.prediction.answer for found in by_label.values()} == {predictor.predict([query])[0].answer}


def test_a_prompt_without_demonstrations_and_a_query_without_words(fitted):
    found = fitted(shots=0).why("")
    assert (found.demonstrations, found.words, found.n_prompts) == ((), (), 1)
    assert found.log_probability <= 0


def test_rows_are_asked_for_their_own_answer(fitted):
    pool = POOLS["classify"]()
    predictor = fitted()
    for row, found in zip(pool, effects_on(predictor, pool), strict=True):
        one = predictor.why(row, answer=row.target, words=False)
        assert found.answer == one.prediction.answer
        assert [d.uid for d, _ in found.demonstrations] == [each.demonstration.uid for each in one.demonstrations]
        got, want = [effect.effect for _, effect in found.demonstrations], [each.left_out.effect for each in one.demonstrations]
        np.testing.assert_allclose(got, want, atol=1e-4)
    answers = POOLS["answer"]()
    (found,) = effects_on(fitted("answer", format="plain"), answers[:1])
    one = fitted("answer", format="plain").why(answers[0], answer="Paris", words=False)
    np.testing.assert_allclose([e.effect for _, e in found.demonstrations], [e.left_out.effect for e in one.demonstrations], atol=1e-4)
    assert found.answer is None


def test_what_cannot_be_explained_is_said(fitted, tiny_lm):
    query = QUERIES["classify"][0]
    with pytest.raises(InputError, match="'refund' is no candidate here"):
        fitted().why(query, answer="refund")
    with pytest.raises(InputError, match="the budget is 20"):
        fitted(max_tokens=20).why(query)
    with pytest.raises(InputError, match="at least 1"):
        fitted().why(query, most_words=0)
    with pytest.raises(InputError, match="transductive"):
        fitted(calibration={"batch": {"transductive": True}}).why(query)
    with pytest.raises(InputError, match="several samples"):
        fitted(samples=3).why(query)
    with pytest.raises(InputError, match="lacks the field"):
        fitted().why({"body": "text"})
    with pytest.raises(InputError, match="model"):
        fitted(lm=None).why(query)
    with pytest.raises(InputError, match="1 rows have no answer"):
        effects_on(fitted(), [query])
    assert isinstance(effects_on(fitted(max_tokens=20), POOLS["classify"]()[:1])[0], str)


class Silent:
    """A model that writes and gives no log-probabilities; or only those of a first token."""

    def __init__(self, lm, estimator):
        self.__dict__.update(lm=lm, estimator=estimator)

    def __getattr__(self, name):
        return getattr(self.__dict__["lm"], name)


def test_models_without_log_probabilities(fitted, tiny_lm):
    with pytest.raises(InputError, match="gives no log-probability"):
        fitted(lm=Silent(tiny_lm, "generation")).why(QUERIES["classify"][0])
    with pytest.raises(InputError, match="gives no log-probability"):
        fitted("answer", lm=Silent(tiny_lm, "first_token")).why(QUERIES["answer"][0])
    assert fitted(lm=Silent(tiny_lm, "first_token")).why(QUERIES["classify"][0]).demonstrations


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_words_of_many_scripts():
    from icl.methods._query_words import places_in, text_of, without

    def words(fields, most=64):
        query = as_query(fields, tuple(fields))
        return query, places_in(query, tuple(fields), most)

    def texts(query, places):
        return [text_of(query, place)[place.start : place.end] for place in places]

    query, places = words({"text": "Don't  pay 3.50€ - she's re-paid, naïve café"})
    assert texts(query, places) == ["Don't", "pay", "3", ".", "50", "€", "-", "she's", "re-paid", ",", "naïve", "café"]
    assert without(query, places[1]).fields["text"] == "Don't  3.50€ - she's re-paid, naïve café"
    assert without(query, places[-1]).fields["text"] == "Don't  pay 3.50€ - she's re-paid, naïve"
    assert without(query, places[0]).fields["text"] == " pay 3.50€ - she's re-paid, naïve café"
    assert texts(*words({"text": "我爱NLP。ทดสอบ"})) == ["我", "爱", "NLP", "。", *"ทดสอบ"]
    turns = [{"role": "user", "text": "hello there"}, {"role": "agent", "text": "hi"}]
    query, places = words({"talk": turns, "title": "x"})
    assert texts(query, places) == ["hello", "there", "hi", "x"]
    assert [(place.field, place.turn) for place in places] == [("talk", 0), ("talk", 0), ("talk", 1), ("title", None)]
    less = without(query, places[2])
    assert less.fields["talk"] == [turns[0], {"role": "agent", "text": ""}]
    assert query.fields["talk"] == turns  # the query itself is as it was
    query, places = words({"text": " ".join(map(str, range(200))), "title": "one"}, most=10)
    runs = texts(query, places)
    assert 9 <= len(runs) <= 11
    assert " ".join(runs[:-1]) == query.fields["text"]
    assert runs[-1] == "one"
    assert max(len(run.split()) for run in runs[:-1]) - min(len(run.split()) for run in runs[:-1]) <= 1
    assert words({"n": 3})[1] == []
