"""Under faults of every kind no item is lost, none gets another's answer, none becomes a zero; a dead server is given up in time."""

import contextlib
import logging
import os
import time
from dataclasses import replace

import pytest
from fault_server import KINDS, Faults, respond, score, written
from openai_server import Refused, serve

from icl import load_model
from icl.endpoint.wire import retry_after
from icl.errors import CostLimitError, IclError, InputError
from icl.model import Answer, Failed, RemoteModel
from icl.model.remote.probe import Capabilities
from icl.values import LabelScores

KEY = "sk-canary-0123456789abcdef/+="
KNOWN: list[Capabilities] = []


def load(served, *, timeout=0.6, wait=0.01, attempts=12, in_a_row=10, **options) -> RemoteModel:
    """A model with waits scaled down, so that a test takes seconds."""
    model = load_model(f"{served.url}#hash", **options)
    patience = replace(
        model.options.patience, attempt_s=timeout, first_wait_s=wait, longest_wait_s=0.2, attempts=attempts, in_a_row=in_a_row
    )
    model._wire.patience = model._probing.patience = patience
    return model


def probed(served, **options) -> RemoteModel:
    """As `load`, with what a probe found on the same server before: probing it anew in every test takes a second each."""
    model = load(served, **options)
    if not KNOWN:
        KNOWN.append(model.capabilities)
    vars(model)["capabilities"] = KNOWN[0]
    return model


def check(served, faults, model, n):
    prompts = [f"item number {i} says:" for i in range(n)]
    labels = [[" yes", " no", f" item {i}"] for i in range(n)]
    found = model.scores(prompts, labels)
    for prompt, texts, scores in zip(prompts, labels, found, strict=True):
        if isinstance(scores, LabelScores):
            assert scores.candidates == tuple(texts)
            assert scores.sums == pytest.approx([score(prompt, text) for text in texts], abs=1e-9)
        else:
            assert scores.why
    answers = model.answers(prompts, max_new_tokens=8)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer == Answer((written(prompt),)) if answer.why is None else not answer.texts
    assert sum(isinstance(each, Failed) for each in found) + sum(answer.why is not None for answer in answers) == model.usage.failed
    assert model.usage.failed <= n // 100  # 12 attempts at 30 %: one in two million, but chance must not fail a test
    assert served.most <= model.options.concurrency
    assert set(faults.seen) == set(KINDS)


def test_a_third_of_faults_changes_no_result():
    faults = Faults(0.0)
    with serve(respond, faults) as served:
        model = probed(served, concurrency=16)
        faults.rate = 0.3
        check(served, faults, model, 200)
    assert model.usage.retries > 50


@pytest.mark.slow
def test_a_third_of_faults_from_the_first_request_on_changes_no_result_of_2000_items():
    faults = Faults(0.3, seed=1)
    with serve(respond, faults) as served:
        model = load(served, concurrency=24)
        check(served, faults, model, 2000)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"reordered"}))
def test_an_item_that_always_fails_says_so_and_is_no_zero(kind):
    faults = Faults(0.0, only=(kind,), hang_s=0.3)
    with serve(respond, faults) as served:
        model = probed(served, timeout=0.15, attempts=2)
        faults.rate = 1.0
        (scores,) = model.scores(["item number 1 says:"], [[" yes", " no"]])
        (answer,) = model.answers(["item number 1 says:"])
        assert isinstance(scores, Failed)
        assert answer.texts == ()
        assert answer.why
        assert scores.lost
        assert answer.lost
        with pytest.raises(IclError, match="1 of 1 items failed"):
            model.generate(["item number 1 says:"])
        faults.rate = 0.0
        assert model.generate(["item number 1 says:"]) == [written("item number 1 says:")]  # what failed can be asked again


def test_reordered_choices_are_put_in_order():
    faults = Faults(0.0, only=("reordered",))
    with serve(respond, faults) as served:
        model = probed(served)
        faults.rate = 1.0
        (scores,) = model.scores(["a b"], [[" yes", " no", " maybe so"]])
    assert scores.sums == pytest.approx([score("a b", text) for text in (" yes", " no", " maybe so")])


def test_a_dead_server_is_given_up_and_the_rest_is_not_sent():
    faults = Faults(0.0, only=("500",))
    with serve(respond, faults) as served:
        model = probed(served, attempts=2, in_a_row=5, concurrency=2)
        faults.rate = 1.0
        before = len(served.bodies)
        answers = model.answers([f"item {i}" for i in range(500)])
        assert len(served.bodies) - before <= 2 * 7
        assert all(answer.why for answer in answers)
        assert "stopped after 5 failures in a row" in answers[-1].why
        assert "HTTP 500: internal error" in answers[-1].why
        before = len(served.bodies)
        model.answers([f"item {i}" for i in range(500)])
        assert len(served.bodies) - before <= 4  # known to be down: one failure is enough
        faults.rate = 0.0
        assert all(answer.why is None for answer in model.answers([f"item {i}" for i in range(20)]))


def test_a_dead_server_leaves_nothing_reserved_under_a_cost_limit():
    faults = Faults(0.0, only=("reset",))
    with serve(respond, faults) as served:
        model = probed(served, attempts=2, in_a_row=3, concurrency=6, prices={"input": 0, "output": 10.0})
        spent = model.usage.cost
        model.max_cost = spent + 0.0025  # 250 tokens: 3 requests at once, 6 want to go
        faults.rate = 1.0
        with contextlib.suppress(CostLimitError):
            model.answers([f"item {i}" for i in range(50)], max_new_tokens=80)
        lost = model.usage.cost - spent
        assert 0 < lost <= 0.0025 + 1e-9  # what broke off may have been billed
        faults.rate = 0.0
        model.max_cost += 0.1
        assert all(answer.why is None for answer in model.answers([f"item {i}" for i in range(20)], max_new_tokens=80))


def test_what_is_wrong_with_an_item_is_not_tried_again():
    asked = []

    def strict(path, body):
        if body and body.get("max_tokens") == 7:
            asked.append(body)
            raise Refused(400, "this prompt is not allowed")
        return respond(path, body)

    with serve(strict) as served:
        model = load(served)
        answers = model.answers([f"item {i}" for i in range(30)], max_new_tokens=7)
    assert len(asked) == 30  # nor do bad items stop the good ones
    assert {(answer.why, answer.lost) for answer in answers} == {("HTTP 400: this prompt is not allowed", False)}


def test_time_for_one_request_is_bounded():
    faults = Faults(0.0, only=("slow drip",), hang_s=5.0)
    with serve(respond, faults) as served:
        model = probed(served, timeout=0.2, attempts=100)
        model._wire.patience = replace(model._wire.patience, total_s=0.7)
        faults.rate = 1.0
        started = time.monotonic()
        (answer,) = model.answers(["item"])
        assert time.monotonic() - started < 2.0
    assert "no whole answer within" in answer.why


def test_a_server_that_asks_to_wait_is_waited_for():
    asked = []

    def busy(path, body):
        if body and body.get("max_tokens") == 7:
            asked.append(time.monotonic())
        return respond(path, body)

    class Once:
        done = False

        def __call__(self, handler, raw, body):
            if body.get("max_tokens") != 7 or self.done:
                return False
            self.done = True
            handler.reply(429, b"{}", Retry_After="0.5")
            return True

    with serve(busy, Once()) as served:
        model = probed(served, concurrency=4)
        model._wire.patience = replace(model._wire.patience, longest_wait_s=5.0)
        assert all(answer.why is None for answer in model.answers([f"item {i}" for i in range(4)], max_new_tokens=7))
    assert asked[-1] - asked[0] >= 0.45


def test_retry_after_is_read_in_both_forms():
    from email.utils import formatdate

    assert retry_after("3") == 3.0
    assert retry_after(formatdate(time.time() + 30, usegmt=True)) == pytest.approx(30, abs=2)
    assert retry_after(formatdate(time.time() - 30, usegmt=True)) == 0.0
    assert [retry_after(each) for each in (None, "soon", "nan", "inf")] == [None] * 4


def test_a_redirect_is_not_followed():
    elsewhere = []

    def disturb(handler, raw, body):
        if not body:
            return False
        handler.reply(307, b"", Location=f"{other.url}/completions")
        return True

    with serve(lambda path, body: elsewhere.append(path) or respond(path, body)) as other, serve(respond, disturb) as served:
        with pytest.raises(InputError, match="redirects to"):
            _ = load(served).capabilities
        assert elsewhere == []


def test_an_answer_without_end_is_cut_off(monkeypatch):
    monkeypatch.setattr("icl.endpoint.wire._LARGEST", 1000)

    def disturb(handler, raw, body):
        if body.get("max_tokens") != 7:
            return False
        handler.reply(200, b'{"x": "' + b"a" * 100_000 + b'"}')
        return True

    with serve(respond, disturb) as served:
        (answer,) = load(served).answers(["item"], max_new_tokens=7)
    assert "larger than" in answer.why


# ── addresses and keys ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_absent_server_or_model_is_said_at_once():
    started = time.monotonic()
    with pytest.raises(InputError, match="no connection to 127"):
        load_model("http://127.0.0.1:9/v1#hash")
    assert time.monotonic() - started < 5
    with serve(respond) as served:
        with pytest.raises(InputError, match="serves no model 'hush'") as error:
            load_model(f"{served.url}#hush")
        assert "Did you mean 'hash'? Known: hash." in str(error.value)
        with pytest.raises(InputError, match="names no model"):
            load_model(served.url)
    with serve(lambda path, body: {"hello": "world"}) as served, pytest.raises(InputError, match="no list of models"):
        load_model(f"{served.url}#hash")


def test_options_are_checked_together(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(InputError) as error:
        load_model("http://127.0.0.1:9/v1#m", dtype="float32", concurency=3, prices={"input": -1}, max_cost=0, concurrency=0)
    text = str(error.value)
    for part in ("dtype", "Did you mean 'concurrency'?", "-1 is no price", "the price is missing", "max_cost is 0", "concurrency is 0"):
        assert part in text, part
    with pytest.raises(InputError, match="option of remote models"):
        load_model("smollm2", concurrency=3)
    with pytest.raises(InputError, match="MY_KEY is not set"):
        load_model("https://example.org/v1#m", api_key_env="MY_KEY")
    monkeypatch.setenv("MY_KEY", KEY)
    with pytest.raises(InputError, match=r"would go to example\.org unencrypted"):
        load_model("http://example.org/v1#m", api_key_env="MY_KEY")
    for address in (f"https://user:{KEY}@example.org/v1#m", f"https://example.org/v1?key={KEY}#m"):
        with pytest.raises(InputError, match="Put the key into an environment variable") as error:
            load_model(address)
        assert KEY not in str(error.value)
    with pytest.raises(InputError, match="names no host"):
        load_model("https://#m")


def test_the_key_is_sent_and_written_nowhere(monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)

    def strict(path, body):
        if body and body.get("max_tokens") == 7:
            raise Refused(401, f"Incorrect API key provided: {KEY}. It begins with {KEY[:12]}***. Bearer {KEY}")
        return respond(path, body)

    with serve(strict) as served:
        model = load(served, api_key_env="MY_KEY")
        (answer,) = model.answers(["item"], max_new_tokens=7)
        assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in served.headers)
    assert "HTTP 401" in answer.why
    shown = [answer.why, repr(model), str(vars(model)), model.name, model.fingerprint, str(model.reference), caplog.text]
    assert not [text for text in shown if KEY[:8] in text or KEY[8:] in text]


def test_a_key_of_the_environment_is_not_sent_in_the_clear_to_strangers(monkeypatch):
    from icl.endpoint.address import key_for, parse

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert key_for(parse("http://example.org/v1#m"), None).headers() == {}
    for address in ("https://example.org/v1#m", "http://localhost:8000/v1#m", "http://10.0.0.5:8000/v1#m", "http://[::1]:8000/v1#m"):
        assert key_for(parse(address), None).headers() == {"Authorization": f"Bearer {KEY}"}
    assert os.environ["OPENAI_API_KEY"] == KEY


def test_it_works_inside_a_running_event_loop():
    import asyncio

    async def inside() -> list[str]:
        return model.generate(["item 1"])

    with serve(respond) as served:
        model = load(served)
        assert asyncio.run(inside()) == [written("item 1")]
