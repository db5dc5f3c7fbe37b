"""What generating models write, read as labels and answers."""

import json

import pytest

from icl import patterns
from icl.errors import InputError
from icl.readout import cut_thoughts, numbers_in, read_answer, read_label
from icl.readout.text import READ_AGAIN, _json_values

SENTIMENT = {"negative": ("terrible", "bad"), "positive": ("great",)}
LETTERS = {"a dog": ("A", "a dog"), "Paris": ("B", "Paris"), "two": ("C", "two")}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" great", "positive"),
        ("Great!", "positive"),
        ("**Terrible**, sadly", "negative"),
        ("\n\n'bad'", "negative"),
        ("greatly", None),
        ("badminton", None),
        ("The film is bad.", "negative"),
        ("It is not great, it is terrible", None),
        ("no idea", None),
        ("", None),
    ],
)
def test_labels(text, label):
    assert read_label(text, SENTIMENT) == label


def test_the_longest_word_wins():
    words = {"card": ("card",), "lost": ("card lost",), "late": ("card late",)}
    assert read_label("card lost in the post", words) == "lost"
    assert read_label("I think: card late", words) == "late"
    assert read_label("card", words) == "card"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("B", "Paris"), ("b.", "Paris"), ("(B) Paris", "Paris"), ("B: it is", "Paris"), ("Answer: B", "Paris"),
        ("A", "a dog"), ("A dog is what I see in B", "a dog"), ("A good answer is C", None), ("Paris", "Paris"), ("A\nbecause", "a dog"),
    ],
)  # fmt: skip
def test_choices_by_letter(text, choice):
    assert read_label(text, LETTERS) == choice


def test_scripts_without_spaces_have_no_word_borders():
    assert read_label("正面的评价", {"negative": ("负面",), "positive": ("正面",)}) == "positive"


def test_labels_of_signs_and_labels_within_labels():
    assert read_label("+1", {"minus": ("-1",), "plus": ("+1",)}) == "plus"
    assert read_label("It is C++ code", {"c": ("c",), "cpp": ("C++",)}) == "cpp"


def test_thoughts_are_cut_and_open_ones_are_not_read():
    assert cut_thoughts("<think>great?</think> bad") == (" bad", None)
    assert cut_thoughts("hm, great</think>bad<think>x</think>!") == ("bad!", None)
    text, why = cut_thoughts("<think>it is great")
    assert text == ""
    assert "do not end" in why
    assert read_answer("<think>42") == (None, why)


def test_the_answer_ends_at_the_first_stop_string():
    assert read_answer("\n\nParis\n\nQuestion: next", stop=("\n\n", "Question:")) == ("Paris", None)
    assert read_answer("   ") == (None, "the model wrote nothing")


@pytest.mark.parametrize(
    ("extract", "text", "answer"),
    [
        ("first_line", "\nParis\nbecause", "Paris"),
        ("last_number", "3 apples at 1,250.50 make -7", "-7"),
        ("last_number", "It costs 1,250.50 in all.", "1250.50"),
        ("last_number", "none", None),
        ("code_block", "Here:\n```python\nx = 1\n```\nDone", "x = 1"),
        ("code_block", "```\nx = 1\ny = 2", "x = 1\ny = 2"),
        ("code_block", "x = 1", "x = 1"),
        ("choice_letter", "(b) Paris", "B"),
        ("choice_letter", "I would say the answer is D.", "D"),
        ("choice_letter", "no letter", None),
        ("json", 'Sure: {"answer": "Paris", "sure": true}', "Paris"),
        ("json", 'x {broken} [1, {"b": 2}]', '[1,{"b":2}]'),
        ("json", "nothing", None),
        ("json:price", 'It is {"name": "tea", "price": 3.5}', "3.5"),
        ("json:items.1.name", '{"items": [1, {"name": " tea "}]}', "tea"),
        ("json:price", '{"price": null}', None),
        ("json:items.7", '{"items": []}', None),
        (r"#### *(.+)", "sum\n#### 42", "42"),
        (r"^A: (.+)$", "Q\nA: yes", "yes"),
    ],
)
def test_extractors(extract, text, answer):
    found, why = read_answer(text, extract=extract)
    assert found == answer
    assert (why is None) == (answer is not None)


@pytest.mark.parametrize(
    ("extract", "text", "why"),
    [
        ("last_number", "ten", "no number"),
        ("choice_letter", "none", "no letter"),
        ("json", "{", "no whole JSON"),
        ("json:price", "{", "no whole JSON"),
        ("json:price", "{}", "no field 'price'"),
        ("code_block", "```\n\n```", "empty"),
        ("####(.*)", "42", "matches nothing"),
    ],
)
def test_what_cannot_be_read_says_why(extract, text, why):
    answer, reason = read_answer(text, extract=extract)
    assert answer is None
    assert why in reason


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("12-9 = 3", ["12", "9", "3"]),
        ("f(x)-2", ["2"]),
        ("-7, +2 and \u22121,000", ["-7", "+2", "-1000"]),
        ("v1.2.3", ["1.2", "3"]),
        (".5 or 0.5", [".5", "0.5"]),
        ("1,23", ["1", "23"]),
    ],
)
def test_numbers_in_a_text(text, numbers):
    assert numbers_in(text) == numbers


@pytest.mark.parametrize("extract", ["first-line", "(", "no group", "(a)(b)", "json:"])
def test_an_unusable_extractor_is_refused(extract):
    with pytest.raises(InputError, match="first_line"):
        read_answer("x", extract=extract)


def test_an_expression_that_never_ends_is_given_up(monkeypatch):
    """Counted with its reason, and the next text is read."""
    monkeypatch.setattr(patterns, "SECONDS", 0.05)
    answer, why = read_answer("a" * 5000 + "!", extract="(a+)+$")
    assert answer is None
    assert "took longer than 0.05 s" in why
    assert read_answer("baa", extract="b(a+)+$") == ("aa", None)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("[" * 3000, None),
        ('{"a": [1, ' * 1000, None),
        ('{"a": ' * 1000 + "1", None),
        ("\\frac{a}{b} " * 500 + '{"a": 1}', {"a": 1}),
        ('{"items": [{"a": 1}, {"b": ', {"a": 1}),
        ('{"say": "no [brackets] here", oops [1]', [1]),
    ],
)
def test_json_is_looked_for_with_little_work(text, first):
    """Characters read in vain are counted: a text of brackets that never close would be read again from each of them."""
    work = 0

    def decode(text, start):
        nonlocal work
        try:
            return json.JSONDecoder().raw_decode(text, start)
        except json.JSONDecodeError as error:
            work += error.pos - start + 1
            raise
        except RecursionError:
            work += len(text) - start
            raise

    assert next(_json_values(text, "{[", decode), None) == first
    assert work <= (READ_AGAIN + 1) * len(text)
