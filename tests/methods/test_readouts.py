"""Every read-out of a predictor equals its definition, written out over the logits of one plain pass per sequence."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
from small_tasks import LABELS, POOLS, QUERIES

import icl
from icl.errors import InputError
from icl.readout import LENGTHS, READOUTS, probabilities

WORDS = {"billing": ["money", "a bill"], "delivery": ["parcel"], "login": ["login", "parcels"], "other": ["x"]}
PLAIN = """---
input: [text]
labels: {billing: [money, a bill], delivery: [parcel], login: [login, parcels], other: [x]}
---
{% block instruction %}Sort the messages.{% endblock %}
{% block example %}Message: {{ text }}
It is about{% endblock %}
{% block answer %} {{ answer }}{% endblock %}
"""
CHANNEL = """---
input: [text]
labels: {billing: [money, a bill], delivery: [parcel], login: [login, parcels], other: [x]}
channel: true
---
{% block instruction %}Write messages.{% endblock %}
{% block answer %}About {{ answer }}:{% endblock %}
{% block example %}
{{ text }}{% endblock %}
"""
ALL = ("sum", "per_char", "pmi", "pmi_domain", "first_token")


@pytest.fixture(scope="module")
def lm():
    return tiny.lm("llama", "chatml")


def fitted(lm, kind="classify", **options):
    options = {
        "template": icl.Template.parse(PLAIN, "plain") if kind == "classify" else "default",
        "retriever": "random",
        "shots": 2,
        **options,
    }
    return icl.FewShot(lm, **options).fit(POOLS[kind](), labels=LABELS if kind == "classify" else (), kind=kind)


def token_values(lm, ids):
    """Log-likelihood of each token but the first, one plain pass."""
    import torch

    with torch.no_grad():
        logits = lm.model(torch.tensor([ids])).logits[0, :-1]
    return torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


def behind(lm, context, text):
    """Token values of a text behind a context, both encoded in one go; behind nothing, from BOS on."""
    own, joint = lm.codec.plain(context).ids, lm.codec.plain(context + text).ids
    if not context:
        own, joint = (lm.codec.tokens.bos,), (lm.codec.tokens.bos, *joint)
    assert joint[: len(own)] == own
    return token_values(lm, list(joint))[len(own) - 1 :]


def log_sum_exp(values):
    return math.log(sum(math.exp(v - max(values)) for v in values)) + max(values)


def slow(lm, context, domain, words):
    """{read-out: log-score per label} for a prompt."""
    found = {readout: [] for readout in ALL}
    for its in words:
        texts = [f" {word}" for word in its]
        whole, nothing, premise = ([behind(lm, c, text) for text in texts] for c in (context, "", domain))
        sums = [sum(values) for values in whole]
        found["sum"].append(log_sum_exp(sums))
        found["per_char"].append(log_sum_exp([total / len(word) for total, word in zip(sums, its, strict=True)]))
        found["pmi"].append(log_sum_exp(sums) - log_sum_exp([sum(values) for values in nothing]))
        found["pmi_domain"].append(log_sum_exp(sums) - log_sum_exp([sum(values) for values in premise]))
        firsts = {
            lm.codec.plain(context + text).ids[len(lm.codec.plain(context).ids)]: values[0]
            for text, values in zip(texts, whole, strict=True)
        }
        found["first_token"].append(log_sum_exp(list(firsts.values())))
    return found


@pytest.mark.parametrize("readout", ALL)
def test_classify_equals_the_definition(lm, readout):
    predictor = fitted(lm, readout=readout)
    queries = QUERIES["classify"]
    for prompt, prediction in zip(predictor.prompts(queries), predictor.predict(queries), strict=True):
        expected = slow(lm, prompt.text, "It is about", [WORDS[label] for label in LABELS])[readout]
        np.testing.assert_allclose(list(prediction.probabilities.values()), probabilities(np.array(expected)), atol=1e-4)
        if not prediction.tie:
            assert prediction.answer == LABELS[int(np.argmax(expected))]


def test_one_pass_serves_all(lm):
    """Asked for together, each is what it is alone; and neither the other queries nor their order change a premise by a bit."""
    together, queries = fitted(lm, readout=ALL), QUERIES["classify"]
    whole = together.predict(queries)
    assert together.readouts == ("sum", "per_token", "per_byte", "per_char", "first_token", "pmi", "pmi_domain")
    alone = fitted(lm, readout=ALL).predict(queries[:1])
    assert alone[0].scores.premise == whole[0].scores.premise
    assert alone[0].scores.domain_premise == whole[0].scores.domain_premise
    assert len({p.scores.premise for p in whole}) == len({p.scores.domain_premise for p in whole}) == 1
    assert whole[0].scores.groups == ((0, 1), (2,), (3, 4), (5,))
    backwards = fitted(lm, readout=ALL).predict(queries[::-1])[::-1]
    for a, b in zip(whole, backwards, strict=True):
        np.testing.assert_allclose(a.scores.first, b.scores.first, atol=1e-4)
        assert a.answer == b.answer
    for readout in ("pmi", "first_token"):
        own = fitted(lm, readout=readout).predict(queries)
        for prediction, one in zip(own, whole, strict=True):
            np.testing.assert_allclose(prediction.scores.sums, one.scores.sums, atol=1e-4)


def test_the_plan_is_what_is_computed_and_premises_are_asked_once(lm):
    queries = QUERIES["classify"]
    plain, predictor = fitted(lm), fitted(lm, readout=ALL)
    first, second = predictor.plan(queries), predictor.plan(queries)
    assert second == plain.plan(queries)
    n_words = [len(lm.codec.plain(f" {word}").ids) for its in WORDS.values() for word in its]
    assert first.naive - second.naive == sum(n_words) + sum(n_words) + len(n_words) * (len(lm.codec.plain("It is about").ids) - 1)
    for planned in (first, second):
        before = lm.totals.computed, lm.totals.naive
        predictor.predict(queries)
        assert (lm.totals.computed - before[0], lm.totals.naive - before[1]) == (planned.computed, planned.naive)


def test_choices_have_a_premise_of_their_own(lm):
    text = icl.Template.parse(
        "---\nkind: choose\ninput: [question]\nchoices: text\n---\n{% block example %}{{ question }}?\nAnswer:{% endblock %}\n"
        "{% block answer %} {{ answer }}{% endblock %}\n",
        "text",
    )
    predictor, queries = fitted(lm, "choose", template=text, readout=["pmi", "pmi_domain"]), QUERIES["choose"]
    planned, before = predictor.plan(queries), (lm.totals.computed, lm.totals.naive)
    predictions = predictor.predict(queries)
    assert (lm.totals.computed - before[0], lm.totals.naive - before[1]) == (planned.computed, planned.naive)
    assert predictor.plan(queries) == planned  # other items have other choices, so they are asked anew
    for prompt, query, prediction in zip(predictor.prompts(queries), queries, predictions, strict=True):
        choices = list(dict.fromkeys(query.choices))
        for name, context in (("premise", ""), ("domain_premise", "Answer:")):
            expected = [sum(behind(lm, context, f" {choice}")) for choice in choices]
            np.testing.assert_allclose(getattr(prediction.scores, name), expected, atol=1e-4)
        pmi = [sum(behind(lm, prompt.text, f" {c}")) - sum(behind(lm, "", f" {c}")) for c in choices]
        np.testing.assert_allclose(list(prediction.probabilities.values()), probabilities(np.array(pmi)), atol=1e-4)


def test_in_chat_the_domain_premise_is_the_users_turn(lm):
    prediction = fitted(lm, readout="pmi_domain", format="chat").predict(QUERIES["classify"][:1])[0]
    turn = lm.codec.chat([{"role": "user", "content": "It is about"}])
    for word, total in zip(prediction.scores.candidates, prediction.scores.domain_premise, strict=True):
        assert word == word.strip()
        joint = [*turn.ids, *lm.codec.tokens.literal([word], after_control=True)[0]]
        assert total == pytest.approx(sum(token_values(lm, joint)[len(turn.ids) - 1 :]), abs=1e-3)


def test_a_tie_is_judged_in_the_readouts_own_unit(lm, monkeypatch):
    """Sums that differ by 5e-4 nat over 10 characters: apart for `per_char` (tolerance 1e-5), though closer than 1e-4 in its unit."""
    plain = type(lm).score

    def close(self, contexts, continuations):
        sums = (-10.0005, -10.0, *[-20.0] * (len(LABELS) - 2))
        return [replace(each, sums=sums, n_chars=(10,) * len(LABELS)) for each in plain(self, contexts, continuations)]

    monkeypatch.setattr(type(lm), "score", close)
    (apart,) = fitted(lm, readout="per_char", template="default").predict(QUERIES["classify"][:1])
    assert (apart.answer, apart.tie) == (LABELS[1], False)


def test_labels_that_begin_alike_are_ties_of_the_first_token(lm):
    predictions = fitted(lm, readout="first_token").predict(QUERIES["classify"])
    assert all(p.scores.first_of[2] == p.scores.first_of[4] == 2 for p in predictions)  # " parcel" and " parcels"
    for p in predictions:
        assert p.tie == (p.answer in ("delivery", "login"))
    sums = fitted(lm).predict(QUERIES["classify"])
    assert not any(p.tie for p in sums)


# ── channel ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def channel_of(lm, **options):
    return fitted(lm, template=icl.Template.parse(CHANNEL, "channel"), readout="channel", **options)


def test_a_channel_scores_the_query_behind_every_label(lm):
    predictor, queries = channel_of(lm), QUERIES["classify"]
    for query, prompt, prediction in zip(queries, predictor.prompts(queries), predictor.predict(queries), strict=True):
        shown = [f"About {WORDS[d.example.target][0]}:\n{d.example.fields['text']}" for d in prompt.demonstrations]
        assert len(shown) == 2
        expected = []
        for label in LABELS:
            values = []
            for word in WORDS[label]:
                context = "\n\n".join(["Write messages.", *shown, f"About {word}:"])
                values.append(sum(behind(lm, context, f"\n{query.fields['text']}")))
            expected.append(log_sum_exp(values) - math.log(len(values)))
        np.testing.assert_allclose(list(prediction.probabilities.values()), probabilities(np.array(expected)), atol=1e-3)
        assert prediction.answer == LABELS[int(np.argmax(expected))]
        assert prediction.scores.conditioned == "answer"
        assert prompt.text == "\n\n".join(["Write messages.", *shown, "About parcels:"])  # the longest of the prompts


def test_a_channel_is_planned_and_does_not_depend_on_batch_or_order(lm):
    predictor, queries = channel_of(lm), QUERIES["classify"]
    planned, before = predictor.plan(queries), (lm.totals.computed, lm.totals.naive)
    whole = predictor.predict(queries)
    assert (lm.totals.computed - before[0], lm.totals.naive - before[1]) == (planned.computed, planned.naive)
    assert predictor.readouts == ("channel",)
    alone = [channel_of(lm).predict([query])[0] for query in queries[::-1]][::-1]
    for a, b in zip(whole, alone, strict=True):
        np.testing.assert_allclose(a.scores.sums, b.scores.sums, atol=1e-3)
        assert a.answer == b.answer


def test_a_channel_in_chat_answers_with_the_query(lm):
    predictor, (query, *_) = channel_of(lm, format="chat"), QUERIES["classify"]
    prompt, (prediction,) = predictor.prompt(query), predictor.predict([query])
    assert prompt.messages[-1] == {"role": "user", "content": "About parcels:"}
    assert prompt.messages[1]["content"].startswith("About ")
    assert prompt.messages[2] == {"role": "assistant", "content": prompt.demonstrations[0].example.fields["text"]}
    head = [dict(m) for m in prompt.messages[:-1]]
    for word, total in zip([w for its in WORDS.values() for w in its], prediction.scores.sums, strict=True):
        context = lm.codec.chat([*head, {"role": "user", "content": f"About {word}:"}])
        joint = [*context.ids, *lm.codec.tokens.literal([query.fields["text"]], after_control=True)[0]]
        assert total == pytest.approx(sum(token_values(lm, joint)[len(context.ids) - 1 :]), abs=1e-3)


def test_the_same_demonstrations_stand_before_every_label_of_a_channel(lm):
    pool, (query, *_) = POOLS["classify"](), QUERIES["classify"]
    predictor = channel_of(lm, shots=8)
    n_all = predictor.prompt(query).n_tokens + len(lm.codec.plain(f"\n{query.fields['text']}").ids)
    tight = channel_of(lm, shots=8, max_tokens=n_all)
    assert tight.prompt(query).dropped == ()
    smaller = channel_of(lm, shots=8, max_tokens=n_all - 1)
    made = smaller.prompt(query)
    assert len(made.demonstrations) == len(pool) - 1
    assert smaller.predict([query])[0].demonstrations == tuple(d.uid for d in made.demonstrations)
    assert channel_of(lm, shots=8, max_tokens=20).predict([query])[0].why.startswith("the query alone takes")


def test_the_default_template_turns_round(lm):
    predictor = icl.FewShot(lm, retriever="random", shots=1, readout="channel").fit(POOLS["classify"](), labels=LABELS)
    shown = predictor.prompt("where is it")
    (demonstration,) = shown.demonstrations
    assert (
        shown.text == f"Label: {demonstration.example.target}\nText: {demonstration.example.fields['text']}\n\nLabel: billing"
    )  # the most tokens
    assert predictor.predict(["where is it"])[0].answer in LABELS


def test_an_encoder_reads_premises_and_labels():
    """Of an encoder-decoder model the context goes into the encoder, whichever it is."""
    lm = tiny.lm("t5")
    query = QUERIES["classify"][0]
    predictor = fitted(lm, readout=["pmi_domain", "pmi", "first_token"], shots=1)
    (prediction,) = predictor.predict([query])
    words = [f" {word}" for its in WORDS.values() for word in its]
    expected = lm.loglikelihoods([predictor.prompt(query).text, "", "It is about"], [words] * 3)
    for found, wanted in zip((prediction.scores.sums, prediction.scores.premise, prediction.scores.domain_premise), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert len(prediction.scores.first) == len(words)
    turned = channel_of(lm, shots=1)
    (prediction,) = turned.predict([query])
    shown = turned.prompt(query).text.removesuffix("About parcels:")
    endings = [f"{shown}About{word}:" for word in words]
    expected = [values[0] for values in lm.loglikelihoods(endings, [[f"\n{query.fields['text']}"]] * len(endings))]
    np.testing.assert_allclose(prediction.scores.sums, expected, atol=1e-3)


# ── what does not go together ────────────────────────────────────────────────────────────────────────────────────────────


def test_readouts_and_templates_that_do_not_fit(lm):
    with pytest.raises(InputError, match="needs a template that begins with the answer"):
        fitted(lm, readout="channel")
    with pytest.raises(InputError, match="has no other read-out"):
        fitted(lm, template=icl.Template.parse(CHANNEL, "channel"))
    with pytest.raises(InputError, match="allow no other read-out"):
        icl.FewShot(lm, readout=["channel", "sum"])
    with pytest.raises(InputError, match="names a read-out twice"):
        icl.FewShot(lm, readout=["sum", "sum"])
    with pytest.raises(InputError, match="Did you mean 'pmi"):
        icl.FewShot(lm, readout=["sum", "pmy"])
    with pytest.raises(InputError, match="with samples labels are read out of text"):
        fitted(lm, readout="pmi", samples=3)
    with pytest.raises(InputError, match="answers are words"):
        fitted(lm, "answer", readout="pmi")
    with pytest.raises(InputError, match="of one prompt"):
        fitted(lm, readout="first_token", windows=2)
    bare = icl.Template.parse("{% block example %}{{ text }}{% endblock %}{% block answer %} {{ answer }}{% endblock %}", "bare")
    with pytest.raises(InputError, match="no domain premise"):
        fitted(lm, template=bare, readout="pmi_domain")
    assert fitted(lm, template=bare, readout="pmi").predict(["x"])[0].answer in LABELS


def test_windows_leave_out_what_they_cannot_have(lm):
    predictor = fitted(lm, readout=["sum", "pmi"], windows=2)
    prediction = predictor.predict(QUERIES["classify"][:1])[0]
    assert prediction.scores.premise == fitted(lm, readout="pmi").predict(QUERIES["classify"][:1])[0].scores.premise
    assert "first_token" not in predictor.readouts
    assert "pmi" in predictor.readouts


# ── kept, and calibrated ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("readout", [*ALL, "channel"])
@pytest.mark.parametrize("calibration", [None, "contextual", "temperature"])
def test_saved_and_calibrated(lm, readout, calibration, tmp_path):
    make = channel_of if readout == "channel" else lambda lm, **more: fitted(lm, readout=readout, **more)
    predictor, queries = make(lm, calibration=calibration), QUERIES["classify"]
    shares = [list(p.probabilities.values()) for p in predictor.predict(queries)]
    np.testing.assert_allclose(np.sum(shares, axis=1), 1)
    if calibration == "contextual":
        raw = np.array([list(p.probabilities.values()) for p in make(lm).predict(queries)])
        log_scores = make(lm).log_scores([icl.values.as_query({"text": t}, ("text",)) for t in ("N/A", "", "[MASK]")])
        mean = np.exp(log_scores - log_scores.max()).mean(axis=0)
        expected = raw / (mean / mean.sum())
        np.testing.assert_allclose(shares, expected / expected.sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-6)
    predictor.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "predictor.json").read_text())["settings"]["readout"] == readout
    again = icl.load(tmp_path / "saved", lm=lm)
    assert again.readouts == predictor.readouts
    np.testing.assert_allclose([list(p.probabilities.values()) for p in again.predict(queries)], shares, atol=1e-6)


def test_a_list_is_saved_whole(lm, tmp_path):
    fitted(lm, readout=ALL).save(tmp_path / "saved")
    again = icl.load(tmp_path / "saved", lm=lm)
    assert again.method.readouts == ALL
    assert again.predict(QUERIES["classify"][:1])[0].scores.premise


def test_the_settings_know_every_readout():
    from icl.evaluate.jsonschema import suite_schema

    text = json.dumps(suite_schema())
    assert all(f'"{readout}"' in text for readout in READOUTS)
    assert set(LENGTHS) < set(READOUTS)


def test_zero_shot_calibrates_by_what_needs_no_labels(lm):
    from icl.methods.zero_shot import Settings, build
    from icl.protocols import MethodContext

    context = MethodContext("classify", ("text",), LABELS, lm=lm, template=icl.Template.parse(PLAIN, "plain"))
    method = build(Settings(calibration="contextual"), context)
    plain = build(Settings(), context)
    queries = QUERIES["classify"]
    calibrated = [list(p.probabilities.values()) for p in method.fit((), labels=LABELS).predict(queries)]
    assert (
        np.abs(np.array(calibrated) - [list(p.probabilities.values()) for p in plain.fit((), labels=LABELS).predict(queries)]).max() > 0.01
    )
    for name in ("batch", "temperature", "domain_context"):
        with pytest.raises(InputError, match="labelled examples"):
            build(Settings(calibration=name), context)
    assert build(Settings(calibration={"batch": {"transductive": True}}), context).fit((), labels=LABELS).predict(queries)[0].answer
