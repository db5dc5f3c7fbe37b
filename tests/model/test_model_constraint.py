"""Text that can only be what was asked for."""

import json
import re
import sys

import pytest
import tiny

from icl.errors import IclError, InputError, MissingExtraError
from icl.model import TorchModel
from icl.model.writing import Chance
from icl.values import Prompt

PROMPTS = ["Review: a moving film.\nSentiment:", "x", "Question: What is the capital of France?\nAnswer:", "the plot is a mess"]
LABELS = [" positive", " negative", " very positive", " very negative indeed", " neutral"]
SCHEMA = {
    "type": "object",
    "properties": {"topic": {"enum": ["sports", "business"]}, "score": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["topic", "score"],
    "additionalProperties": False,
}


def chat(lm, text):
    messages = ({"role": "user", "content": text},)
    encoded = lm.codec.chat(messages)
    return Prompt(encoded.text, messages, encoded.ids, tail=encoded.tail, n_head=encoded.n_head, format="chat")


def greedy_choice(lm, prompt, texts):
    """Token by token by log-likelihood, from joint encodings of single choices."""
    splits = lm._splits([prompt], [texts])[0]
    open_, n = dict(zip(texts, splits.continuations, strict=True)), 0
    while len({ids[n:] for ids in open_.values()}) > 1:
        nexts = sorted({ids[n] for ids in open_.values()})
        scored = lm.scoring  # the same model, asked for one token at a time
        from icl.model.tree import Item

        prefix = (*splits.prefix, *next(iter(open_.values()))[:n])
        sums = scored.sums([Item(0, prefix, tuple((i,) for i in nexts))])
        best = max(range(len(nexts)), key=lambda i: sums[0, i])
        open_ = {text: ids for text, ids in open_.items() if ids[n] == nexts[best]}
        n += 1
    return next(iter(open_))


@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon", "mamba"])
def test_choices_are_followed_greedily(name):
    lm = tiny.lm(name)
    found = lm.generate(PROMPTS, constraint=LABELS)
    assert found == [greedy_choice(lm, p, LABELS) for p in PROMPTS]
    assert found == [lm.generate([p], constraint=LABELS)[0] for p in PROMPTS]


def test_every_prompt_can_have_choices_of_its_own():
    lm = tiny.lm("llama")
    choices = [[" a", " b"], [" one", " two", " three"], [" Paris"], LABELS]
    together = lm.generate(PROMPTS, max_new_tokens=1, constraint=choices)
    assert all(text in texts for text, texts in zip(together, choices, strict=True))
    assert together == [lm.generate([p], constraint=texts)[0] for p, texts in zip(PROMPTS, choices, strict=True)]


@pytest.mark.parametrize("kind", ["prepend", "always", "first", "never"])
def test_choices_behind_marked_word_starts(kind):
    lm = TorchModel(tiny.model("llama"), tiny.sentencepiece_like(kind), name="x")
    labels = [" positive", "positive", " news", "s", "ätzend", "\n"]
    for prompt in ("Sentiment:", "Sentiment: ", chat(lm, "Hello"), chat(lm, "words and words")):
        reached = {lm.generate([prompt], constraint=[label])[0] for label in labels}
        assert reached == set(labels)
        assert lm.generate([prompt], constraint=labels)[0] in labels


def test_samples_of_choices():
    lm = tiny.lm("llama", "chatml")
    prompt = chat(lm, "Hello there!")
    [found] = lm.write([prompt], Chance(40, 1.5), constraint=LABELS)
    assert {w.text for w in found} <= set(LABELS)
    assert len({w.text for w in found}) > 1
    assert lm.sample([prompt], n=5, temperature=1.5, constraint=LABELS)[0] == [w.text for w in found[:5]]


def test_a_choice_that_begins_another_can_be_reached():
    lm = tiny.lm("llama")
    found = {text for texts in lm.sample(PROMPTS, n=60, temperature=3.0, constraint=["a", "ab", "abc"]) for text in texts}
    assert found == {"a", "ab", "abc"}


def test_what_is_no_constraint_is_refused():
    lm = tiny.lm("llama")
    for wrong in ([], [[" a"], " b", [], [" c"]], [[" a"]], [""]):
        with pytest.raises(InputError):
            lm.generate(PROMPTS, constraint=wrong)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match=r"icl\[constrain\]"):
        tiny.lm("llama").generate(PROMPTS, constraint=re.compile("a+"))


ALL = [r" [a-z]{2,5}", r"(?:yes|no)(?:, (?:yes|no)){2}", r"\d{3}-\d{2}", r"ä+ß", r"[A-F]{4}\n?"]
WRITABLE = [r" [a-z]{2,5}", r"(?:yes|no)(?:, (?:yes|no)){2}", r"\d{3} \d{2}", r"a+s", r" ?(?:words? ?){2,4}"]
"""With the characters of small vocabularies that have no bytes to fall back on."""


def made(kind):
    if kind == "llama" or kind == "falcon":
        return tiny.lm(kind, "chatml")
    return TorchModel(tiny.model("llama"), tiny.sentencepiece_like(kind), name="x")


@pytest.mark.parametrize("kind", ["llama", "falcon", "prepend", "always", "never"])
def test_expressions_are_matched(kind):
    pytest.importorskip("llguidance")
    lm = made(kind)
    prompts = [*PROMPTS, chat(lm, "Hello there!")]
    patterns = WRITABLE if kind in ("prepend", "always", "never") else ALL
    for sampled in (False, True):
        found = lm.write(prompts, Chance(4, 1.0, 3) if sampled else Chance(), 40, constraint=[re.compile(p) for p in patterns])
        for pattern, texts in zip(patterns, found, strict=True):
            for written in texts:
                assert re.fullmatch(pattern, written.text) or written.ended == "length", (pattern, written)
        assert sum(w.ended != "length" for texts in found for w in texts) >= 4
    assert [t[0].text for t in found] == [
        lm.sample([p], n=1, temperature=1.0, seed=3, max_new_tokens=40, constraint=re.compile(r))[0][0]
        for p, r in zip(prompts, patterns, strict=True)
    ]
    loud = lm.generate(["x"], constraint=re.compile("yes|no", re.IGNORECASE))[0]
    assert loud.lower() in ("yes", "no")


def test_json_follows_its_schema():
    pytest.importorskip("llguidance")
    lm = tiny.lm("llama")
    texts = [t for found in lm.sample(PROMPTS, n=4, temperature=1.0, max_new_tokens=60, constraint=SCHEMA) for t in found]
    assert len(texts) == 16
    for text in texts:
        value = json.loads(text)
        assert list(value) == ["topic", "score"]
        assert value["topic"] in ("sports", "business")
        assert 0 <= value["score"] <= 99
    cut = lm.write(PROMPTS, max_new_tokens=3, constraint=SCHEMA)
    assert [w.ended for [w] in cut] == ["length"] * 4
    assert all(w.text.startswith("{") for [w] in cut)


def test_what_cannot_be_followed_is_refused():
    pytest.importorskip("llguidance")
    with pytest.raises(IclError, match="leaves no token"):  # this vocabulary has no braces
        made("prepend").generate(PROMPTS, constraint=SCHEMA)
    lm = tiny.lm("llama")
    for wrong in (re.compile(r"(?=a)ab"), re.compile(r"(a)\1"), re.compile(r" a b ", re.VERBOSE), {"type": "no such type"}):
        with pytest.raises(InputError):
            lm.generate(PROMPTS, constraint=wrong)
