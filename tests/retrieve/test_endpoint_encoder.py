"""Vectors from an embeddings endpoint: the right one for every text, of length 1, asked for once, and never made up."""

import threading

import numpy as np
import pytest
from openai_server import Refused, serve
from rule_server import Rules, letters

import icl
from icl.endpoint.wire import Patience
from icl.errors import IclError, InputError
from icl.retrieve import EndpointEncoder, load_encoder, same_encoder

TEXTS = [f"{word} number {i}" for i in range(50) for word in ("apple", "bread", "cheese")]
QUICK = Patience(attempts=3, attempt_s=5, first_wait_s=0.01)


def unit(text):
    vector = np.array(letters(text))
    return vector / np.linalg.norm(vector)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def rules():
    return Rules(lambda messages, j: "")


@pytest.fixture
def served(rules):
    with serve(rules.respond) as served:
        yield served


def test_every_text_gets_its_own_vector(rules, served):
    encoder = load_encoder(f"{served.url}#letters")
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (150, encoder.dimensions) == (150, 27)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors, [unit(text) for text in TEXTS], atol=1e-6)  # although every answer came in another order
    assert max(map(len, rules.embedded)) <= 64
    assert encoder.cut(TEXTS[:2]) == [False, False]
    assert encoder.encode([]).shape == (0, 27)


def test_a_text_is_asked_for_once(rules, served):
    load_encoder(f"{served.url}#letters").encode(TEXTS)
    rules.embedded.clear()
    again = load_encoder(f"{served.url}#letters")
    np.testing.assert_array_equal(again.encode(TEXTS[::-1])[::-1], again.encode(TEXTS))
    again.encode(["apple number 1", "something new"])
    assert rules.embedded == [["dimensions"], ["something new"]]
    assert same_encoder(again.fingerprint, EndpointEncoder(f"{served.url}#letters").fingerprint)
    assert again.fingerprint != EndpointEncoder(f"{served.url}#rules").fingerprint
    rules.embedded.clear()
    again.uncached().encode(["apple number 1"])
    assert rules.embedded[-1] == ["apple number 1"]


def test_an_index_over_an_endpoint_is_saved_and_opened(served, tmp_path):
    examples = icl.Task.load([{"text": text, "label": text.split()[0]} for text in TEXTS], holdout=0.2).train
    index = icl.DemoIndex.build(examples, encoder=f"{served.url}#letters")
    (hits,) = index.search(["some cheese, please"], 5)
    assert {hit.example.target for hit in hits} == {"cheese"}
    index.save(tmp_path / "index")
    opened = icl.DemoIndex.open(tmp_path / "index")
    assert [hit.uid for hit in opened.search(["some cheese, please"], 5)[0]] == [hit.uid for hit in hits]
    opened.verify()


def test_odd_texts_are_sent_as_text(rules, served):
    vectors = load_encoder(f"{served.url}#letters").encode(["", "half \ud83d a pair", "\ud83d\ude00"])
    assert vectors.shape == (3, 27)
    assert rules.embedded[-1] == [" ", "half \ufffd a pair", "😀"]


def lacking(answer):
    return {**answer, "data": answer["data"][1:]}


def twice(answer):
    return {**answer, "data": [answer["data"][0]] * len(answer["data"])}


def numberless(answer):
    return {**answer, "data": [{k: v for k, v in row.items() if k != "index"} for row in answer["data"]]}


def with_first(value):
    def changed(answer):
        answer["data"][0]["embedding"] = value
        return answer

    return changed


BAD = [lacking, twice, numberless, with_first([0.0] * 27), with_first([1.0] * 26), with_first(["1"] * 27), with_first(None), lambda a: []]


@pytest.mark.parametrize("spoil", BAD)
def test_a_broken_answer_is_asked_for_again_and_never_used(rules, served, spoil):
    encoder = EndpointEncoder(f"{served.url}#letters", patience=QUICK)
    assert encoder.dimensions == 27
    left = [2]
    lock = threading.Lock()

    def twice_broken(answer):
        with lock:
            left[0] -= 1
            return spoil(answer) if left[0] >= 0 else answer

    rules.spoil = twice_broken
    np.testing.assert_allclose(encoder.encode(TEXTS[:3]), [unit(text) for text in TEXTS[:3]], atol=1e-6)
    assert encoder.usage.retries == 2
    rules.spoil = spoil
    with pytest.raises(IclError, match=r"gave no vector for 2 of 2 texts.*3 attempts"):
        encoder.encode(["another text", "and one more"])


def test_what_one_text_is_refused_for_takes_no_other_with_it(rules, served):
    respond = rules._embeddings

    def refusing(body):
        if any(len(text) > 100 for text in body["input"]):
            raise Refused(400, "maximum context length exceeded")
        return respond(body)

    rules._embeddings = refusing
    encoder = EndpointEncoder(f"{served.url}#letters", patience=QUICK)
    with pytest.raises(IclError, match=r"1 of 151 texts, among them 'long long.* …': HTTP 400: maximum context length"):
        encoder.encode([*TEXTS, "long " * 30])
    rules.embedded.clear()
    assert encoder.encode(TEXTS).shape == (150, 27)
    assert rules.embedded == []  # the others were kept


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(served, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")
    encoder = load_encoder(f"{served.url}#letters")
    encoder.encode(["one"])
    assert {headers.get("Authorization") for headers in served.headers} == {"Bearer sk-canary-0123456789"}
    assert "canary" not in repr(encoder) + encoder.name + encoder.fingerprint
    assert all(b"canary" not in path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())
    with pytest.raises(InputError, match="MY_KEY is not set"):
        EndpointEncoder(f"{served.url}#letters", api_key_env="MY_KEY")


def test_addresses_that_are_none(served):
    with pytest.raises(InputError, match="names no model"):
        load_encoder(served.url)
    with pytest.raises(InputError, match="user name or a key") as caught:
        load_encoder("https://me:sk-canary@host/v1#letters")
    assert "canary" not in str(caught.value)
    with pytest.raises(InputError, match="gives no vectors"):
        _ = EndpointEncoder("http://127.0.0.1:9/v1#letters", patience=QUICK).dimensions
