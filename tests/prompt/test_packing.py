"""The token budget: whole demonstrations go, least useful first; what is left fits with its longest continuation."""

import random
import re
import time

import pytest

from icl.errors import InputError
from icl.prompt import Template, Unfit, bind, pack
from icl.protocols import Encoded
from icl.values import Example, Hit

SOURCE = """---
input: [text]
---
{% block instruction %}Name the topic of each text.{% endblock %}
{% block example %}Text: {{ text }}
Topic:{% endblock %}
{% block answer %} {{ answer }}{% endblock %}
"""
LABELS = ["sport", "world politics and everything else that happens", "tech"]
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "Eta", "THETA", "iota-kappa", "naïve", "12,345", "ß"]
PIECE = re.compile(r"\s?\w{1,4}|\s|[^\w\s]")


class Pieces:
    """A codec whose tokens cross the border between texts, as those of real tokenizers do: counts of parts do not add up."""

    def __init__(self, has_chat=True):
        self.has_chat = has_chat
        self.n_encoded = 0

    def split(self, text):
        self.n_encoded += 1
        return [f"{piece}" for piece in PIECE.findall(text)]

    def encoded(self, text, head=0):
        ids = (0,) * head + tuple(len(p) for p in self.split(text))
        return Encoded(ids, len(ids), text, text, head)

    def plain(self, text):
        return self.encoded(text)

    def chat(self, messages):
        return self.encoded("".join(f"<|{m['role']}|>{m['content']}<|end|>\n" for m in messages) + "<|assistant|>\n", head=3)

    def extended(self, encoded, continuation):
        return encoded.n_head + len(self.split(encoded.tail + continuation))

    def count(self, text):
        return len(self.split(text))


def bound(**more):
    return bind(Template.parse(SOURCE, "t"), kind="classify", inputs=["text"], labels=LABELS, **more)


def example(rng, i, n_words=None):
    text = " ".join(rng.choice(WORDS) for _ in range(n_words or rng.randint(1, 60)))
    return Example(f"p{i}", {"text": text}, rng.choice(LABELS))


def hits_of(examples):
    return [Hit(e.uid, 1.0 / (i + 1), e) for i, e in enumerate(examples)]


@pytest.mark.parametrize("format", ["plain", "chat"])
@pytest.mark.parametrize("seed", range(6))
def test_what_is_packed_fits_and_is_whole_and_is_all_that_fits(format, seed):
    rng = random.Random(seed)
    template, codec = bound(), Pieces()
    for limit in [64, 65, 70, 80, *rng.sample(range(64, 1024), 12), 1024, 2048, 4096]:
        reserve = rng.choice([0, 0, 10])
        ranked = hits_of([example(rng, i) for i in range(rng.randint(0, 24))])
        ordered = list(ranked)
        rng.shuffle(ordered)
        query = example(rng, "q")
        useful = [hit.uid for hit in ranked]
        prompt = pack(template, query, ordered, useful, codec=codec, format=format, max_tokens=limit, reserve=reserve)

        def longest(demonstrations, query=query):
            encoded = (
                codec.plain(template.plain(demonstrations, query))
                if format == "plain"
                else codec.chat(template.messages(demonstrations, query))
            )
            return max(codec.extended(encoded, c) for _, each in template.continuations(query, format) for c in each), encoded

        if isinstance(prompt, Unfit):
            n, _ = longest([])
            assert n + reserve > limit
            assert f"the query alone takes {n} tokens, the budget is {limit}" in prompt.why
            continue
        kept = [d.example for d in prompt.demonstrations]
        n, encoded = longest(kept)
        assert n + reserve <= limit
        assert (prompt.text, prompt.token_ids, prompt.n_tokens) == (encoded.text, encoded.ids, encoded.n_tokens)
        assert prompt.messages == template.messages(kept, query)
        # the most useful ones, in prompt order, and nothing else
        assert {d.uid for d in prompt.demonstrations} == set(useful[: len(kept)])
        assert [d.uid for d in prompt.demonstrations] == [h.uid for h in ordered if h.uid in set(useful[: len(kept)])]
        assert [d.shot for d in prompt.demonstrations] == list(range(len(kept)))
        assert list(prompt.dropped) == list(reversed(useful[len(kept) :]))
        if prompt.dropped:
            one_more = [h.example for h in ordered if h.uid in set(useful[: len(kept) + 1])]
            assert longest(one_more)[0] + reserve > limit


def test_without_a_codec_nothing_is_dropped_or_counted():
    rng = random.Random(0)
    hits = hits_of([example(rng, i) for i in range(30)])
    query = example(rng, "q")
    prompt = pack(bound(), query, hits, [h.uid for h in hits], max_tokens=64)
    assert len(prompt.demonstrations) == 30
    assert (prompt.n_tokens, prompt.token_ids, prompt.dropped) == (None, (), ())
    assert prompt.text == prompt.tail == bound().plain([h.example for h in hits], query)
    assert prompt.messages[-1]["role"] == "user"
    assert prompt.query is query


def test_a_query_that_cannot_fit_says_why():
    query = Example("q", {"text": "word " * 500}, None)
    found = pack(bound(), query, [], [], codec=Pieces(), max_tokens=100, reserve=20)
    assert isinstance(found, Unfit)
    assert re.fullmatch(r"the query alone takes \d+ tokens, the budget is 100, of which 20 are kept for the answer", found.why)


def test_the_format_is_chosen_as_the_issue_says():
    query = Example("q", {"question": "why"}, None)
    answer = bind(Template.default(["question"], "answer"), kind="answer", inputs=["question"])
    assert pack(answer, query, [], [], codec=Pieces()).format == "chat"
    assert pack(answer, query, [], [], codec=Pieces(has_chat=False)).format == "plain"
    assert pack(answer, query, [], []).format == "plain"
    assert pack(answer, query, [], [], format="plain", codec=Pieces()).text == "Question: why\nAnswer:"
    text = Example("q", {"text": "x"}, None)
    assert pack(bound(), text, [], [], codec=Pieces()).format == "plain"
    assert pack(bound(), text, [], [], codec=Pieces(), format="chat").format == "chat"
    own = bind(Template.parse(SOURCE.replace("input:", "format: chat\ninput:"), "t"), kind="classify", inputs=["text"], labels=LABELS)
    assert pack(own, text, [], [], codec=Pieces()).format == "chat"
    with pytest.raises(InputError, match="no chat template"):
        pack(bound(), text, [], [], codec=Pieces(has_chat=False), format="chat")
    with pytest.raises(InputError, match="no format 'chatty'"):
        pack(bound(), text, [], [], format="chatty")


def test_one_encoding_a_query_where_the_budget_is_ample():
    rng = random.Random(1)
    template, codec = bound(), Pieces()
    pool = [example(rng, i, 50) for i in range(50)]
    for i in range(100):
        hits = hits_of(rng.sample(pool, 8))
        pack(template, example(rng, f"q{i}", 50), hits, [h.uid for h in hits], codec=codec, max_tokens=100_000)
    # each demonstration and each continuation is counted once at most, and each prompt encoded once
    assert codec.n_encoded <= 100 + len(pool) + len(LABELS)


def test_ten_thousand_queries_pack_quickly():
    rng = random.Random(2)
    template = bound()
    pool = [example(rng, i, 50) for i in range(500)]
    queries = [example(rng, f"q{i}", 50) for i in range(10_000)]
    started = time.process_time()
    for query in queries:
        hits = hits_of(rng.sample(pool, 8))
        pack(template, query, hits, [h.uid for h in hits])
    assert time.process_time() - started < 15


class Counted:
    """A codec that counts how often a whole prompt is encoded, and one token too few for each text by itself."""

    has_chat = False

    def __init__(self):
        self.encodes = 0

    def plain(self, text):
        self.encodes += 1
        n = len(text.split())
        return Encoded((), n, text, text, 0)

    def extended(self, encoded, continuation):
        return len((encoded.text + continuation).split())

    def count(self, text):
        return max(len(text.split()) + self.wrong_by, 1)


@pytest.mark.parametrize("wrong_by", [-1, 0, 1, 2])
def test_many_demonstrations_are_packed_in_a_few_tries(wrong_by):
    """However wrong the estimate is at every demonstration, nothing is done once for each of them."""
    bound = bind(Template.load("default"), kind="classify", inputs=("text",), labels=("a", "b"))
    codec = Counted()
    codec.wrong_by = wrong_by
    rows = [Example(f"{i}-0", {"text": "word " * (3 + i % 7)}, "ab"[i % 2]) for i in range(2000)]
    hits = [Hit(e.uid, 0.0, e) for e in rows]
    query = Example("q", {"text": "what is it"}, None)
    most = len(bound.plain(rows[:1200], query).split()) + 1  # and a label
    made = pack(bound, query, hits, [h.uid for h in hits], codec=codec, max_tokens=most)
    assert len(made.demonstrations) == 1200
    assert made.dropped == tuple(h.uid for h in reversed(hits[1200:]))
    assert codec.encodes <= 12
