"""Examples to text: plain and chat from one file, labels, choices, rationales, conversations, the default template."""

import subprocess
import sys
from pathlib import Path

import pytest

from icl.errors import InputError
from icl.prompt import Template, bind
from icl.prompt.bind import letters
from icl.prompt.template import split_label
from icl.values import Example

SENTIMENT = """---
input: [text]
labels: {negative: [terrible, awful], positive: [great]}
---
{% block instruction %}Decide: {{ labels | join(" or ") }}.{% endblock %}
{% block example %}Review: {{ text }}
Sentiment:{% endblock %}
{% block answer %} {{ answer }}{% endblock %}
"""
CHOICE = """---
kind: choose
input: [question]
choices: letter
---
{% block example %}Question: {{ question }}
{% for choice in choices %}{{ letters[loop.index0] }}. {{ choice }}
{% endfor %}Answer:{% endblock %}
{% block answer %} {{ answer }}{% endblock %}
"""
REASONED = """---
kind: answer
input: [question]
---
{% block example %}Q: {{ question }}
A:{% endblock %}
{% block rationale %} {{ rationale }}{% endblock %}
{% block answer %} So it is {{ answer }}.{% endblock %}
"""


def review(text, label=None, uid=None, **more):
    return Example(uid or f"r-{text}", {"text": text}, label, **more)


def sentiment(source=SENTIMENT, **more):
    return bind(Template.parse(source, "t"), kind="classify", inputs=["text"], labels=["negative", "positive"], **more)


GOOD, BAD = review("fine", "positive"), review("poor", "negative")


def test_plain_text_is_instruction_demonstrations_query():
    assert sentiment().plain([GOOD, BAD], review("so so")) == (
        "Decide: terrible or great.\n\nReview: fine\nSentiment: great\n\nReview: poor\nSentiment: terrible\n\nReview: so so\nSentiment:"
    )


def test_chat_is_the_same_file_in_turns():
    assert sentiment().messages([GOOD], review("so so")) == (
        {"role": "system", "content": "Decide: terrible or great."},
        {"role": "user", "content": "Review: fine\nSentiment:"},
        {"role": "assistant", "content": "great"},
        {"role": "user", "content": "Review: so so\nSentiment:"},
    )


def test_a_continuation_is_the_answer_block_with_each_word():
    bound = sentiment()
    assert bound.continuations(GOOD) == (("negative", (" terrible", " awful")), ("positive", (" great",)))
    assert bound.continuations(GOOD, "chat") == (("negative", ("terrible", "awful")), ("positive", ("great",)))
    for label, (first, *_) in bound.continuations(GOOD):  # demonstrations and query cannot drift apart
        example = review("x", label)
        assert bound.demonstration(example) == bound.query(example) + first


def test_the_tasks_words_go_before_the_templates():
    bound = sentiment(words={"negative": "no", "positive": ["yes", "sure"]})
    assert bound.continuations(GOOD) == (("negative", (" no",)), ("positive", (" yes", " sure")))
    assert bound.plain([], GOOD).startswith("Decide: no or yes.")


@pytest.mark.parametrize(
    "instruction", ["", "{% block instruction %}{% endblock %}", "{% block instruction %}{% if false %}x{% endif %}{% endblock %}"]
)
def test_an_empty_block_takes_its_separator_with_it(instruction):
    source = SENTIMENT.replace('{% block instruction %}Decide: {{ labels | join(" or ") }}.{% endblock %}', instruction)
    bound = sentiment(source)
    assert bound.plain([], review("x")) == "Review: x\nSentiment:"
    assert [m["role"] for m in bound.messages([GOOD], review("x"))] == ["user", "assistant", "user"]


def test_nothing_is_trimmed_and_values_are_not_templates():
    source = (
        "{% block example %}\n  {{ text }} \n{% if true %}\n x\n{% endif %}\n{% endblock %}{% block answer %}{{ answer }}\n{% endblock %}"
    )
    text = "{{ 1 + 1 }} <b> & {% raw %} {{ answer }}\r\n"
    assert sentiment(source, words=None).query(review(text)) == f"\n  {text} \n\n x\n\n"
    assert sentiment(source).demonstration(review("a", "positive")) == "\n  a \n\n x\n\npositive\n"


def test_the_end_is_scored_where_the_template_says_so():
    with_end = SENTIMENT.replace("input:", "end: true\ninput:")
    assert sentiment(with_end).continuations(GOOD)[1] == ("positive", (" great\n\n",))
    assert sentiment(with_end).continuations(GOOD, "chat")[1] == ("positive", ("great",))
    hashes = with_end.replace("input:", 'separator: "### next\\n"\ninput:')
    assert sentiment(hashes).continuations(GOOD)[1] == ("positive", (" great###",))
    assert sentiment(with_end).plain([GOOD], BAD) == sentiment().plain([GOOD], BAD)


def test_choices_by_letter_and_by_text():
    row = Example("q-0", {"question": "Which?"}, "blue", ("red", "blue", "red"))
    by_letter = bind(Template.parse(CHOICE, "t"), kind="choose", inputs=["question"])
    assert by_letter.demonstration(row) == "Question: Which?\nA. red\nB. blue\nC. red\nAnswer: B"
    assert by_letter.continuations(row) == (("red", (" A",)), ("blue", (" B",)), ("red", (" C",)))
    by_text = bind(Template.parse(CHOICE.replace("letter\n", "text\n"), "t"), kind="choose", inputs=["question"])
    assert by_text.continuations(row) == (("red", (" red",)), ("blue", (" blue",)), ("red", (" red",)))
    with pytest.raises(InputError, match="none of its choices"):
        by_letter.demonstration(Example("q-1", {"question": "?"}, "green", ("red", "blue")))
    assert letters(54)[24:] == [*"YZ", *(f"A{c}" for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"), "BA", "BB"]


def test_a_rationale_stands_before_the_answer_where_there_is_one():
    bound = bind(Template.parse(REASONED, "t"), kind="answer", inputs=["question"])
    with_one = Example("a", {"question": "1+1?"}, "2", rationale="Two ones.")
    assert bound.template.has_rationale
    assert bound.demonstration(with_one) == "Q: 1+1?\nA: Two ones. So it is 2."
    assert bound.demonstration(Example("b", {"question": "1+1?"}, "2")) == "Q: 1+1?\nA: So it is 2."
    assert bound.messages([with_one], with_one)[1] == {"role": "assistant", "content": "Two ones. So it is 2."}
    assert bound.query(with_one) == "Q: 1+1?\nA:"
    assert bound.continuations(with_one) == ()


def test_the_cache_never_shows_another_example_of_the_same_uid():
    bound = sentiment()
    assert bound.demonstration(review("a", "positive", "u")) == "Review: a\nSentiment: great"
    assert bound.demonstration(review("a", "negative", "u")) == "Review: a\nSentiment: terrible"
    assert bound.demonstration(review("b", "negative", "u")) == "Review: b\nSentiment: terrible"


def test_a_template_sees_plain_copies_only():
    class Text(str):
        secret = "x"

    turns = ({"role": "user", "text": "hi"},)
    source = "---\nkind: answer\n---\n{% block example %}{{ text }}|{{ n + 1 }}|{% for t in c %}{{ t.role }}={{ t['text'] }}{% endfor %}{% endblock %}"
    source += "{% block answer %}{{ answer }}{% endblock %}"
    bound = bind(Template.parse(source, "t"), kind="answer", inputs=["text", "n", "c"])
    assert bound.query(Example("x", {"text": Text("y"), "n": 2, "c": turns}, None)) == "y|3|user=hi"
    leaky = bind(Template.parse(source.replace("{{ text }}", "{{ text.secret }}"), "t"), kind="answer", inputs=["text", "n", "c"])
    with pytest.raises(InputError, match="secret"):
        leaky.query(Example("x", {"text": Text("y"), "n": 2, "c": turns}, None))
    with pytest.raises(InputError, match="the field 'c' is a set"):
        bound.query(Example("x", {"text": "y", "n": 2, "c": {1}}, None))


def test_macros_and_top_level_variables_are_the_templates_own():
    source = """{% set mark = "*" %}{% macro show(t) %}{{ mark }}{{ t }}{{ mark }}{% endmacro %}
{% block example %}{{ show(text) }}{% endblock %}{% block answer %} {{ answer }}{% endblock %}"""
    assert sentiment(source).demonstration(GOOD) == "*fine* positive"


def test_a_large_row_is_no_error():
    text = "word " * 1_000_000
    assert len(sentiment().query(review(text))) > 5_000_000


@pytest.mark.parametrize(
    ("kind", "inputs", "expected"),
    [
        ("classify", ["text"], "Text: hello\nLabel:"),
        ("classify", ["review_body", "stars"], "Review body: good\nStars: 4\nLabel:"),
        ("answer", ["question"], "Question: why\nAnswer:"),
        ("choose", ["question"], "Question: why\nA. yes\nB. no\nAnswer:"),
        ("classify", ["conversation"], "Conversation:\ncustomer: hello\nagent: hi\nLabel:"),
        ("classify", ["Review Text", "answer", "if"], "Review Text: a\nAnswer: b\nIf: c\nLabel:"),
        ("classify", ['{{ x }} "\\', "größe", "1st"], '{{ x }} "\\: a\nGröße: b\n1st: c\nLabel:'),
    ],
)
def test_the_default_template_captions_any_field(kind, inputs, expected):
    values = {
        "text": "hello", "review_body": "good", "stars": 4, "question": "why", "Review Text": "a", "answer": "b", "if": "c",
        '{{ x }} "\\': "a", "größe": "b", "1st": "c", "conversation": [{"role": "customer", "text": "hello"}, {"role": "agent", "text": "hi"}],
    }  # fmt: skip
    bound = bind(Template.load("default"), kind=kind, inputs=inputs, labels=["x"] if kind == "classify" else ())
    assert bound.template.inputs == tuple(inputs)
    assert bound.query(Example("x", {n: values[n] for n in inputs}, None, ("yes", "no"))) == expected


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("card_arrival", "card arrival"), ("not-spam", "not spam"), ("orderStatus", "order Status"), ("Sci/Tech", "Sci/Tech"), ("-1", "-1"),
        ("4-5", "4-5"), ("_x", "_x"), ("HTTP", "HTTP"), ("", ""), ("a__b", "a b"), ("covid-19", "covid 19"), ("no", "no"),
    ],
)  # fmt: skip
def test_default_splits_labels_into_words(label, words):
    assert split_label(label) == words
    bound = bind(Template.load("default"), kind="classify", inputs=["text"], labels=[label, "other"])
    assert bound.continuations(GOOD)[0] == (label, (f" {words}",))


def test_labels_stand_for_themselves_byte_for_byte_elsewhere_and_where_splitting_would_join_two():
    labels = ["a_b", "a-b", "a b", "cD", "x_y"]
    own = bind(
        Template.parse(SENTIMENT.replace("labels: {negative: [terrible, awful], positive: [great]}\n", ""), "t"),
        kind="classify",
        inputs=["text"],
        labels=labels,
    )
    assert [words for _, words in own.continuations(GOOD)] == [(f" {label}",) for label in labels]
    default = bind(Template.load("default"), kind="classify", inputs=["text"], labels=labels)
    assert [words for _, (words,) in default.continuations(GOOD)] == [" a_b", " a-b", " a b", " c D", " x y"]


def test_rendering_is_the_same_in_every_process():
    root = Path(__file__).resolve().parents[2]
    code = (
        "from icl.prompt import *; from icl.values import Example\n"
        "s='''{% block example %}{{ text|upper }} {{ {'a': 1, 'b': text}|tojson }} {{ [3, 1, 2]|unique|list|join }}"
        "{% for k, v in {'x': 1, 'y': 2}.items() %}{{ k }}{{ v }}{% endfor %}{% endblock %}{% block answer %} {{ answer }}{% endblock %}'''\n"
        "b=bind(Template.parse(s,'t'),kind='classify',inputs=['text'],labels=['a','b'])\n"
        "e=Example('u',{'text':'é x'},'a'); print(b.template.digest, ascii(b.plain([e],e)), b.messages([e],e), b.continuations(e))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(outputs) == 1
    assert outputs.pop()
