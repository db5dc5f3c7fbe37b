"""Customer service as the docs tell it: conversations in turns, slots that only given fields fill, intents that are held back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tasks import example

import icl
from icl.errors import InputError
from icl.prompt import Template
from icl.prompt.slots import emptied, filled

TURNS = [
    {"role": "customer", "text": "My parcel should have come."},
    {"role": "agent", "text": "May I have your order number?"},
    {"role": "customer", "text": "49110"},
]
TICKETS = [
    example({"conversation": "Where is order 7?", "order": "7", "day": "Friday"}, "Order 7 comes on Friday, not later."),
    example({"conversation": TURNS, "order": "49110", "day": "Monday"}, "Thank you. Order 49110 comes on Monday."),
]
SLOTTED = """---
kind: answer
input: [conversation, order, day]
slots: [order, day]
stop: ["\\n"]
---
{% block example %}{{ conversation }} ({order}, {day})
Reply:{% endblock %}
{% block answer %} {{ answer }}{% endblock %}
"""


def replies(lm=None, template=None, **options):
    return icl.FewShot(lm, template=template or Template.parse(SLOTTED, "slotted"), retriever="random", shots=1, format="plain", **options)


def test_a_conversation_is_shown_turn_by_turn_and_facts_only_where_they_are_given():
    rows = [example({"conversation": TURNS, "facts": "delivery: tomorrow"}, "It comes tomorrow.")]
    prompt = replies(template="support_reply").fit(rows).prompt({"conversation": TURNS[:1], "facts": "stock: none"}).text
    turns = (
        "Customer: My parcel should have come.\nAgent: May I have your order number?\nCustomer: 49110\nFacts: delivery: tomorrow\nReply: It"
    )
    assert turns in prompt
    assert prompt.endswith("Customer: My parcel should have come.\nFacts: stock: none\nReply:")
    bare = replies(template="support_reply").fit([example({"conversation": TURNS}, "Soon.")]).prompt({"conversation": "Hello?"}).text
    assert "Facts" not in bare
    assert "those that are given" not in bare


def test_demonstrations_have_slots_where_a_field_stands():
    prompt = replies().fit(TICKETS[:1]).prompt({"conversation": "And mine?", "order": "8", "day": "Monday"})
    assert "Reply: Order {order} comes on {day}, not later." in prompt.text
    assert "Friday" not in prompt.text


def test_what_is_written_is_filled_from_the_items_own_fields(tiny_lm):
    predictor = replies(tiny_lm).fit(TICKETS[:1])
    query = {"conversation": "And mine?", "order": "81", "day": "Sunday"}
    assert predictor.read(query, " Order {order} comes on {day}.").answer == "Order 81 comes on Sunday."
    assert predictor.read(query, " Sorry, I do not know.").answer == "Sorry, I do not know."
    for wrong in ("{price}", "{orders}"):
        got = predictor.read(query, f" It costs {wrong}.")
        assert (got.answer, got.why) == (None, f"the answer has the slot {wrong}, for which nothing is given")
    got = predictor.read({**query, "day": " "}, " It comes on {day}.")
    assert (got.answer, got.why) == (None, "the answer has the slot {day}, for which nothing is given")


def test_a_saved_predictor_fills_them_too(tiny_lm, tmp_path):
    replies(tiny_lm).fit(TICKETS).save(tmp_path / "saved")
    assert icl.load(tmp_path / "saved", lm=tiny_lm).read(TICKETS[0], "On {day}.").answer == "On Friday."


@settings(deadline=None, max_examples=100)
@given(st.text(), st.dictionaries(st.sampled_from(["order", "day"]), st.text(min_size=1, max_size=5)))
def test_an_emptied_answer_is_filled_to_what_it_was(answer, fields):
    answer = answer.replace("{", "(")
    shown = emptied(answer, fields, ("order", "day"))
    assert filled(shown, {name: value.strip() for name, value in fields.items()}, ("order", "day")) == (answer, None)


def test_the_longest_value_counts_and_parts_of_words_do_not():
    fields = {"order": "12", "day": "12 May"}
    assert emptied("12 on 12 May, 120 or 512", fields, ("order", "day")) == "{order} on {day}, 120 or 512"
    numbers = "12: 12.50, 3.12, 1,12 at 10:12, 12,000, May:12.5; but 12, 12."
    shown = "{order}: 12.50, 3.12, 1,12 at 10:12, 12,000, May:12.5; but {order}, {order}."
    assert emptied(numbers, {"order": "12"}, ("order",)) == shown  # the 12 of 12.50 is no order
    assert emptied("on May:5", {"day": "May"}, ("day",)) == "on {day}:5"


@pytest.mark.parametrize(("old", "new", "says"), [
    ("slots: [order, day]", "slots: [prize]", "no input field 'prize'"),
    ("kind: answer", "kind: classify", "'slots' is for kind answer"),
])  # fmt: skip
def test_slots_that_cannot_be_filled_are_refused(old, new, says):
    with pytest.raises(InputError, match=says):
        Template.parse(SLOTTED.replace(old, new), "slotted")


def test_an_intent_that_is_not_sure_goes_to_a_person(tiny_lm):
    rows = [example({"text": f"{text} {i}"}, label) for i, (text, label) in enumerate([("oil", "billing"), ("cup", "returns")] * 4)]
    asked = icl.FewShot(tiny_lm, template="support_intent", retriever="random", shots=2)
    sure = asked.fit(rows).predict(["oil 9", "cup 9"])
    assert all(p.answer in ("billing", "returns") for p in sure)
    top = [max(p.probabilities.values()) for p in sure]
    threshold = (min(top) + max(top)) / 2 if len(set(top)) > 1 else 1.0
    held = icl.FewShot(
        tiny_lm, template="support_intent", retriever="random", shots=2, abstain={"threshold": threshold, "label": "a person"}
    )
    for p, share, before in zip(held.fit(rows).predict(["oil 9", "cup 9"]), top, sure, strict=True):
        assert p.answer == ("a person" if share < threshold else before.answer)
