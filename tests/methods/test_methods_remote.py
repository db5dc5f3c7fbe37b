"""Prompts to a server that only writes: labels are read out of its text, samples vote, and what the server lost is marked as lost."""

import dataclasses
import json
from dataclasses import replace

import pytest
import tiny
from openai_server import over, serve
from rule_server import Rules
from small_tasks import LABELS, POOLS, QUERIES, example

import icl
from icl.errors import CostLimitError, InputError
from icl.model import Failed, RemoteModel

WORDS = {"charged": "billing", "invoice": "billing", "parcel": "delivery", "courier": "delivery", "password": "login", "log": "login"}


def query_of(messages):
    return messages[-1]["content"]


def label_by_words(messages, j):
    """The label of the first word that has one, in a sentence; or nothing that could be read as one."""
    found = next((label for word, label in WORDS.items() if word in query_of(messages)), None)
    return f'The queue is "{found.title()}".' if found else "I would rather not say."


@pytest.fixture
def rules():
    return Rules(label_by_words)


@pytest.fixture
def server(rules):
    with serve(rules.respond) as served:
        yield served


@pytest.fixture
def lm(server):
    model = icl.load_model(f"{server.url}#rules", prices={"input": 1.0, "output": 10.0}, concurrency=4)
    patience = replace(model.options.patience, first_wait_s=0.01, attempts=2)
    model._wire.patience = patience
    return model


@pytest.fixture
def few_shot(lm):
    def make(kind="classify", pool=None, **options):
        method = icl.FewShot(lm, **{"retriever": "random", "shots": 2, **options})
        return method.fit(POOLS[kind]() if pool is None else pool, labels=LABELS if kind == "classify" else (), kind=kind)

    return make


def queries(*texts):
    return [example({"text": text}, None) for text in texts]


ASKED = queries("The invoice is wrong", "Where is the parcel", "Hello there", "Forgot my password")


def test_labels_are_read_out_of_what_is_written(few_shot, rules, lm):
    assert isinstance(lm, RemoteModel)
    assert lm.estimator == "generation"
    predictor = few_shot()
    rules.chats.clear()
    found = predictor.predict(ASKED)
    assert [p.answer for p in found] == ["billing", "delivery", None, "login"]
    assert [p.uid for p in found] == [q.uid for q in ASKED]
    assert all(p.probabilities is None for p in found)
    assert all(p.candidates == LABELS for p in found)
    assert found[0].text == 'The queue is "Billing".'
    assert "none of billing, delivery, login, other" in found[2].why
    assert not any(p.lost for p in found)  # it did answer, so asking again would not help
    assert predictor.estimator == "generation"
    # A server that takes only chat gets turns: two demonstrations, then the query.
    assert all([m["role"] for m in messages] == ["user", "assistant", "user", "assistant", "user"] for messages in rules.chats)
    assert {len(p.demonstrations) for p in found} == {2}


def test_samples_vote_and_their_shares_are_the_probabilities(few_shot, rules):
    written = ["billing", "Delivery!", "billing", "who knows", "billing.", "login"]
    rules.answer = lambda messages, j: written[j % 6]
    (found,) = few_shot(samples=6, temperature=0.9).predict(ASKED[:1])
    assert found.answer == "billing"
    assert found.probabilities == {"billing": 3 / 5, "delivery": 1 / 5, "login": 1 / 5, "other": 0.0}
    assert not found.tie
    assert json.loads(found.text) == written
    rules.answer = lambda messages, j: ["login", "delivery"][j % 2]
    (tied,) = few_shot(samples=2).predict(ASKED[:1])
    assert (tied.answer, tied.tie) == ("delivery", True)  # the first in label order
    rules.answer = lambda messages, j: "who knows"
    (unread,) = few_shot(samples=3).predict(ASKED[:1])
    assert unread.answer is None
    assert unread.probabilities is None


def test_samples_work_with_a_model_here(tiny_lm):
    predictor = icl.FewShot(tiny_lm, retriever="random", shots=1, samples=3, max_new_tokens=4).fit(POOLS["classify"](), labels=LABELS)
    found = predictor.predict(QUERIES["classify"])
    assert predictor.estimator == "generation"
    assert all(len(json.loads(p.text)) == 3 for p in found)
    assert all(p.answer is None or sum(p.probabilities.values()) == pytest.approx(1) for p in found)
    n = len(QUERIES["classify"])
    assert predictor.plan(QUERIES["classify"]).generated == n * 3 * 3  # the fourth token is read by nobody


def test_choices_by_letter_and_by_text(few_shot, rules):
    query = example({"question": "What is white"}, None, ("coal", "snow", "blood"))
    rules.answer = lambda messages, j: "Snow, of course."
    assert few_shot("choose").predict([query])[0].answer == "snow"
    by_letter = icl.Template.parse(
        "---\nkind: choose\ninput: [question]\nchoices: letter\n---\n{% block example %}{{ question }}\n"
        "{% for choice in choices %}{{ letters[loop.index0] }}. {{ choice }}\n{% endfor %}Answer:{% endblock %}"
        "{% block answer %} {{ answer }}{% endblock %}",
        "letters",
    )
    rules.answer = lambda messages, j: "B" if "B. snow" in query_of(messages) else "?"
    (found,) = few_shot("choose", template=by_letter).predict([query])
    assert found.answer == "snow"
    assert found.candidates == ("coal", "snow", "blood")


def test_answers_in_words_and_rationales(few_shot, rules):
    rules.answer = lambda messages, j: " Lisbon. "
    (found,) = few_shot("answer").predict([example({"question": "Capital of Portugal"}, None)])
    assert (found.answer, found.why) == ("Lisbon.", None)
    reasoned = icl.Template.parse(
        "---\ninput: [text]\n---\n{% block example %}Message: {{ text }}{% endblock %}"
        "{% block rationale %}\nThought: {{ rationale }}{% endblock %}{% block answer %}\nSo the queue is {{ answer }}{% endblock %}",
        "reasoned",
    )
    pool = [replace(e, rationale=f"a message about {e.target}") for e in POOLS["classify"]()]
    # The label named in the thought must not be taken for the answer.
    rules.answer = lambda messages, j: "Thought: it looks like delivery, but money is the point\nSo the queue is billing"
    (found,) = few_shot(pool=pool, template=reasoned).predict(ASKED[:1])
    assert found.answer == "billing"
    assert "Thought: a message about" in rules.chats[-1][1]["content"]


def test_what_the_server_fails_on_is_lost_and_takes_nothing_with_it(few_shot, rules):
    rules.fails = lambda messages: 500 if "parcel" in query_of(messages) else None
    found = few_shot().predict(ASKED)
    assert [p.answer for p in found] == ["billing", None, None, "login"]
    assert [p.lost for p in found] == [False, True, False, False]
    assert "HTTP 500" in found[1].why
    assert found[1].demonstrations


def test_the_cost_limit_keeps_what_was_paid_for(few_shot, lm, rules):
    predictor = few_shot(max_new_tokens=10)
    predictor.predict(ASKED[:1])
    many = queries(*(f"The invoice {i} is wrong" for i in range(40)))
    paid = lm.usage.cost
    lm.max_cost = paid + 0.002
    with pytest.raises(CostLimitError) as caught:
        predictor.predict(many)
    done = [p for p in caught.value.results if p is not None]
    assert len(caught.value.results) == 40
    assert 0 < len(done) < 40
    assert {p.answer for p in done} == {"billing"}
    assert [p.uid for p in done] == [q.uid for q, p in zip(many, caught.value.results, strict=True) if p is not None]
    assert lm.usage.cost <= lm.max_cost
    assert lm.usage.cost - paid > 0.001


def test_a_plan_is_an_upper_bound_of_what_is_used(few_shot, lm, rules):
    for options in ({}, {"samples": 3}):
        predictor = few_shot(max_new_tokens=12, **options)
        plan = predictor.plan(ASKED)
        assert plan.generated == len(ASKED) * 12 * options.get("samples", 1)
        before = lm.usage
        predictor.predict(ASKED)
        assert lm.usage.input_tokens - before.input_tokens <= plan.computed - plan.generated
        assert lm.usage.output_tokens - before.output_tokens <= plan.generated


def test_a_server_that_ignores_n_reads_the_prompt_for_every_sample(server, rules):
    rules.acts_on_n = False
    rules.answer = lambda messages, j: "billing"
    lm = icl.load_model(f"{server.url}#rules")
    predictor = icl.FewShot(lm, retriever="random", shots=2, samples=3, max_new_tokens=12).fit(POOLS["classify"](), labels=LABELS)
    one = icl.FewShot(lm, retriever="random", shots=2, max_new_tokens=12).fit(POOLS["classify"](), labels=LABELS)
    assert predictor.plan(ASKED).computed == 3 * one.plan(ASKED).computed
    rules.chats.clear()
    predictor.predict(ASKED)
    assert len(rules.chats) == 3 * len(ASKED)


def test_what_needs_log_probabilities_is_refused(few_shot):
    with pytest.raises(InputError, match=r"read-out 'per_token' needs a label's whole log-likelihood.*text only"):
        few_shot(readout="per_token")
    with pytest.raises(InputError, match="takes chat messages only"):
        few_shot(format="plain")
    with pytest.raises(InputError) as caught:
        icl.FewShot(None, samples=0, temperature=0.0)
    assert {p.field for p in caught.value.problems} == {"samples", "temperature"}


def test_a_saved_predictor_names_the_address_and_never_the_key(server, rules, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-canary-0123456789")
    lm = icl.load_model(f"{server.url}#rules", api_key_env="MY_KEY", prices={"input": 1.0, "output": 2.0})
    predictor = icl.FewShot(lm, retriever="random", shots=2, samples=2, temperature=0.5).fit(POOLS["classify"](), labels=LABELS)
    first = predictor.predict(ASKED)
    predictor.save(tmp_path / "saved")
    for path in (tmp_path / "saved").rglob("*"):
        assert not path.is_file() or b"canary" not in path.read_bytes()
    state = json.loads((tmp_path / "saved" / "predictor.json").read_text())
    assert state["model"]["reference"] == {"name": f"{server.url}#rules", "api_key_env": "MY_KEY", "prices": {"input": 1.0, "output": 2.0}}
    again = icl.load(tmp_path / "saved", device="cpu")
    assert again.prompt("Where is the parcel").messages == predictor.prompt("Where is the parcel").messages
    assert (again.method.samples, again.method.temperature) == (2, 0.5)
    assert [dataclasses.astuple(p) for p in again.predict(ASKED)] == [dataclasses.astuple(p) for p in first]
    assert {h.get("Authorization") for h in server.headers} == {"Bearer sk-canary-0123456789"}


# ── servers that score ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def here():
    return tiny.lm("llama", "chatml")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("model"), "llama", "chatml")


WORDED = {"billing": ("money", "bill"), "delivery": ("parcel",), "login": ("password",), "other": ("x",)}


def both(lm, here, **options):
    """The same method with the model behind the address and with the one here, on the same queries."""
    options = {"retriever": "random", "shots": 1, "words": WORDED, **options}
    predictors = [icl.FewShot(model, **options).fit(POOLS["classify"](), labels=LABELS) for model in (lm, here)]
    return [predictor.predict(ASKED) for predictor in predictors], predictors


def test_a_scoring_server_gives_what_the_model_gives_here(here, tokenizer):
    with serve(over(here).respond) as served:
        lm = icl.load_model(f"{served.url}#tiny", tokenizer=tokenizer)
        (remote, local), predictors = both(lm, here)
        assert predictors[0].estimator == "loglikelihood"
        before = lm.usage.input_tokens
        predictors[0].predict(ASKED)
        # Every continuation is sent with its prompt, its last token included, which nothing has to be computed for here.
        assert lm.usage.input_tokens - before == predictors[0].plan(ASKED).computed == predictors[1].plan(ASKED).naive + 5 * len(ASKED)
        for ours, theirs in zip(local, remote, strict=True):
            assert (theirs.answer, theirs.demonstrations, theirs.tie) == (ours.answer, ours.demonstrations, ours.tie)
            assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-4)
        (remote, local), _ = both(lm, here, readout="per_byte", format="chat")
        assert [p.answer for p in remote] == [p.answer for p in local]


@pytest.mark.parametrize("readout", [["pmi_domain", "pmi", "first_token"], "first_token", "channel"], ids=str)
def test_every_readout_of_a_scoring_server_is_that_of_the_model_here(here, tokenizer, readout):
    with serve(over(here).respond) as served:
        lm = icl.load_model(f"{served.url}#tiny", tokenizer=tokenizer)
        predictor = icl.FewShot(lm, retriever="random", shots=1, words=WORDED, readout=readout).fit(POOLS["classify"](), labels=LABELS)
        planned, before = predictor.plan(ASKED), lm.usage.input_tokens
        predictor.predict(ASKED)
        assert lm.usage.input_tokens - before == planned.computed
        (remote, local), predictors = both(lm, here, readout=readout)
        assert predictors[0].readouts == predictors[1].readouts
        for ours, theirs in zip(local, remote, strict=True):
            assert (theirs.answer, theirs.tie) == (ours.answer, ours.tie)
            assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-4)
            for name in ("premise", "domain_premise", "first"):
                assert getattr(theirs.scores, name) == pytest.approx(getattr(ours.scores, name), abs=1e-4)


def test_a_premise_that_is_lost_loses_its_items_and_is_asked_again(here, tokenizer, monkeypatch):
    with serve(over(here).respond) as served:
        lm = icl.load_model(f"{served.url}#tiny", tokenizer=tokenizer)
        predictor = icl.FewShot(lm, retriever="random", shots=1, words=WORDED, readout="pmi").fit(POOLS["classify"](), labels=LABELS)
        asked, plain = [], RemoteModel.scores

        def scores(self, contexts, continuations):
            asked.append([str(context) for context in contexts])
            if asked == [[""]]:
                return [Failed("the connection was reset", True)]
            return plain(self, contexts, continuations)

        monkeypatch.setattr(RemoteModel, "scores", scores)
        assert all(p.answer is None and p.lost and "reset" in p.why for p in predictor.predict(ASKED))
        assert asked == [[""]]  # the items, which nothing could be read out of, were not paid for
        assert all(p.answer is not None for p in predictor.predict(ASKED))
        predictor.predict(ASKED)
        assert asked.count([""]) == 2


def test_first_tokens_are_an_estimator_of_their_own(here, tokenizer):
    with serve(over(here, refuses=frozenset({"echo", "prompt_logprobs"}), top_k=1000).respond) as served:
        lm = icl.load_model(f"{served.url}#tiny", tokenizer=tokenizer)
        assert lm.estimator == "first_token"
        (remote, _), predictors = both(lm, here)
        assert predictors[0].estimator == "first_token"
        scored = [p for p in remote if p.answer is not None]
        assert all(p.probabilities and p.scores.n_tokens == (1,) * 5 for p in scored)
        assert all("first token" in p.why and not p.lost for p in remote if p.answer is None)
        for readout in ("per_token", "pmi", ["sum", "pmi_domain"]):
            with pytest.raises(InputError, match="that of its first token only"):
                both(lm, here, readout=readout)
        (named, local), predictors = both(lm, here, readout="first_token")
        assert predictors[0].readouts == ("first_token",)
        assert [p.answer for p in named] == [p.answer for p in remote]
        for ours, theirs in zip(local, named, strict=True):
            if theirs.answer is not None:  # what it says of first tokens is what the model here says of them
                assert theirs.scores.first == pytest.approx(ours.scores.first, abs=1e-3)


# ── caches of beginnings ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def chat_model():
    return tiny.lm("llama", "chatml")


def marked_messages(served):
    """(messages, places of marked ones) of every chat request."""
    found = []
    for path, body in served.bodies:
        if path == "/v1/chat/completions":
            messages = body["messages"]
            found.append((messages, [n for n, m in enumerate(messages) if not isinstance(m["content"], str)]))
    return found


def ask(url, **options):
    lm = icl.load_model(
        f"{url}#tiny", estimator="generation", concurrency=1, prices={"input": 1.0, "output": 1.0, "cached": 0.1}, **options
    )
    spent = lm.capabilities and lm.usage
    method = icl.FewShot(lm, retriever="balanced", shots=2, format="chat", max_new_tokens=3)
    predictor = method.fit(POOLS["classify"](), labels=LABELS)
    asked = queries(*(f"where is parcel {n}" for n in range(5)))
    return predictor, asked, predictor.predict(asked), lm.usage, spent


def test_the_shared_beginning_is_marked_where_the_user_says_so(chat_model):
    with serve(over(chat_model, completions=False, marks=True).respond) as served:
        predictor, asked, marked, usage, spent = ask(served.url, mark_cache=True)
        requests = marked_messages(served)[-5:]
        prompts = predictor.prompts(asked)
        for prompt, (messages, places) in zip(prompts, requests, strict=True):
            assert places == [prompt.cache_break - 1]
            (part,) = messages[places[0]]["content"]
            assert part == {"type": "text", "text": prompt.messages[places[0]]["content"], "cache_control": {"type": "ephemeral"}}
            assert [m for n, m in enumerate(messages) if n not in places] == [
                dict(m) for n, m in enumerate(prompt.messages) if n not in places
            ]
        cached = len(chat_model.codec.chat(prompts[0].messages[: prompts[0].cache_break]).ids)
        assert usage.cached_tokens - spent.cached_tokens == 4 * cached  # of five requests the first fills the cache
        assert usage.saved - spent.saved == pytest.approx(4 * cached * 0.9 / 1e6)
        assert predictor.lm.reference["mark_cache"] is True
    with serve(over(chat_model, completions=False, marks=True).respond) as served:
        _, _, plain, usage, _ = ask(served.url)
        assert usage.cached_tokens == 0
        assert not any(places for _, places in marked_messages(served))
    assert [(p.answer, p.text) for p in marked] == [(p.answer, p.text) for p in plain]


def test_an_ordinary_server_never_sees_the_mark_unasked_and_its_refusal_is_told(chat_model):
    with serve(over(chat_model, completions=False).respond) as served:
        assert not any(p.lost for p in ask(served.url)[2])
        assert not any(places for _, places in marked_messages(served))
        refused = ask(served.url, mark_cache=True)[2]
        assert all("cache_control: Extra inputs are not permitted" in str(p.why) for p in refused)
    with pytest.raises(InputError, match="mark_cache is 'yes'"):
        icl.load_model("http://127.0.0.1:1/v1#tiny", mark_cache="yes")
