"""Every shipped template and `default`, plain and chat, byte for byte.

After a change of wording that is meant, write the files anew and read the difference before committing it:

    python tests/prompt/test_golden_renderings.py
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from icl.files import packaged
from icl.prompt import Template, bind
from icl.values import Example

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def row(target, choices=(), **fields):
    return Example(f"{target}-{sorted(fields.items())}", fields, target, tuple(choices))


ROWS = {
    "sentiment": [
        row("positive", text="A warm, funny film with a cast that clearly enjoys itself."),
        row("negative", text="Two hours of my life that I would like back."),
        row("positive", text="Slow at first, but the last act is worth the wait."),
    ],
    "sentiment_channel": [
        row("positive", text="A warm, funny film with a cast that clearly enjoys itself."),
        row("negative", text="Two hours of my life that I would like back."),
        row("positive", text="Slow at first, but the last act is worth the wait."),
    ],
    "topic": [
        row("Sport", text="The home side won by three goals and moved up to second place."),
        row("Business", text="Shares fell after the company cut its forecast for the year."),
        row("Sport", text="She broke the national record over 800 metres on Sunday."),
    ],
    "question_type": [
        row("person", text="Who painted the ceiling of the chapel?"),
        row("number", text="How many moons does Mars have?"),
        row("location", text="Where is the largest lake in Africa?"),
    ],
    "nli": [
        row("entailment", premise="A man is playing a guitar on stage.", hypothesis="A man is making music."),
        row("contradiction", premise="The shop closes at six.", hypothesis="The shop is open all night."),
        row("neutral", premise="Two girls run across a field.", hypothesis="The girls are sisters."),
    ],
    "paraphrase": [
        row("yes", sentence1="He bought a used car.", sentence2="He purchased a second-hand car."),
        row("no", sentence1="The train leaves at nine.", sentence2="The train arrives at nine."),
        row("yes", sentence1="It may rain tomorrow.", sentence2="Rain is possible tomorrow."),
    ],
    "support_intent": [
        row("delivery", text="My parcel was due on Monday and is still not here."),
        row("billing", text="Why was I charged twice for the same order?"),
        row("delivery", text="Can you send it to my office instead?"),
    ],
    "spam": [
        row("spam", text="You have WON a prize!!! Reply with your bank details."),
        row("ham", text="Running ten minutes late, order without me."),
        row("ham", text="Did you get the notes from class?"),
    ],
    "multiple_choice": [
        row("ice", ["sand", "ice", "wood"], question="What does water become when it freezes?"),
        row("a spider", ["a bee", "a spider"], question="Which animal has eight legs?"),
        row("Paris", ["Rome", "Paris", "Oslo", "Bern"], question="What is the capital of France?"),
    ],
    "extractive_qa": [
        row("1889", context="The tower was finished in 1889 for a world fair.", question="When was the tower finished?"),
        row("iron", context="It is made of iron and is painted every seven years.", question="What is it made of?"),
        row("two", context="The bridge has two lanes and a path for cyclists.", question="How many lanes are there?"),
    ],
    "open_qa": [
        row("Jupiter", question="Which planet is the largest?"),
        row("seven", question="How many days has a week?"),
        row("Canberra", question="What is the capital of Australia?"),
    ],
    "arithmetic": [
        replace(
            row("8", question="Two pens cost 4 euros. What do 4 pens cost?"),
            rationale="One pen costs 4 / 2 = 2 euros. Four cost 2 * 4 = 8.",
        ),
        row("5", question="What is 12 less 7?"),
        row("9", question="How many are 3 rows of 3 chairs?"),
    ],
    "least_to_most": [
        replace(
            row("8", question="Two pens cost 4 euros. What do 4 pens cost?"),
            rationale="What does one pen cost? 4 / 2 = 2.\nWhat do four cost? 2 * 4 = 8.",
        ),
        replace(row("5", question="What is 12 less 7?"), rationale="What is left of 12 without 7? 5."),
        row("9", question="How many are 3 rows of 3 chairs?"),
    ],
    "self_ask": [
        replace(
            row("Lima", question="What is the capital of the country in which Machu Picchu lies?"),
            rationale="Follow up: In which country does Machu Picchu lie?\nIntermediate answer: In Peru.\n"
            "Follow up: What is the capital of Peru?\nIntermediate answer: Lima.",
        ),
        row("seven", question="How many days has a week?"),
        row("the Nile", question="Which river passes the largest city of Egypt?"),
    ],
    "record": [
        row('{"name": "Alder", "price": 89}', text="The Alder jacket is 89 euros."),
        row('{"name": "Brook", "price": 12.5}', text="Brook, a bottle, for 12.50 euros."),
        row('{"name": "Cedar", "price": 19}', text="Now 19 euros: our Cedar cap."),
    ],
    "support_reply": [
        row("I am sorry to hear that. Could you send me the order number?", conversation="My lamp arrived broken."),
        row(
            "Thank you, Ms Lee. A new one leaves today.",
            conversation=[
                {"role": "customer", "text": "The kettle leaks."},
                {"role": "agent", "text": "I am sorry. May I have your name?"},
                {"role": "customer", "text": "Lee."},
            ],
        ),
        row("We do, by Friday.", conversation=[{"role": "customer", "text": "Do you deliver to Graz?"}]),
    ],
    "support_slots": [
        row("It is on its way, Ms Lee, and comes on Friday.", conversation="Where is my kettle?", fact_name="day", fact="Friday"),
        row(
            "We have size 42 here.",
            conversation=[{"role": "customer", "text": "Boots?"}, {"role": "agent", "text": "Which size?"}],
            fact_name="size",
            fact="42",
        ),
        row("It costs 5 euros.", conversation=[{"role": "customer", "text": "What is the fee?"}], fact_name="fee", fact="5 euros"),
    ],
    "product_text": [
        row("The Mill is a cheap pub by the river.", attributes="name[The Mill], eatType[pub], priceRange[cheap], area[riverside]"),
        row("Aromi serves Italian food in the centre.", attributes="name[Aromi], food[Italian], area[city centre]"),
        row("Zizzi is a family-friendly pub.", attributes="name[Zizzi], eatType[pub], familyFriendly[yes]"),
    ],
    "summary": [
        row("Anna moves the meeting to Thursday.", text="Anna: Can we meet on Thursday instead?\nBen: Sure, same time."),
        row("A storm closed the harbour for a day.", text="Strong winds kept all ships in port. The harbour opened again on Tuesday."),
        row("Sales rose.", text="The firm sold more than in the year before."),
    ],
    "story": [
        row("A key hung by the door and fitted nothing. Then the door was sold.", title="The Key", words="key, door"),
        row("The dog brought the letter back wet but whole.", title="Post", words="dog, letter"),
        row("Nobody came, so the bell rang itself.", title="The Bell", words="bell"),
    ],
    "poem": [
        row("A key,\na door,\nand nothing,\nnothing more.", title="The Key", words="key, door"),
        row("The dog has read,\nthe dog has run,\nthe letter said:\nthe day is done.", title="Post", words="dog, letter"),
        row("One bell,\none hour,\none crow,\none tower.", title="The Bell", words="bell, tower"),
    ],
    "article": [
        row("Yeast eats sugar and gives off gas. The gas lifts the dough.", title="Why Bread Rises", words="yeast, gas"),
        row("An owl eats mice by the thousand. Leave it a hole in the barn.", title="Owls", words="owl, barn"),
        row("A pond needs no garden.", title="Ponds", words="pond"),
    ],
    "follow_up": [
        row("When does it close?\nWhat does it cost?", question="Is the museum open?", given="Yes, from ten."),
        row("How often does it run?\nWhere does it stop?", question="How do I get there?", given="By bus 7."),
        row("May I come twice?", question="May I come?", given="You may."),
    ],
    "rewrite": [
        row("The meal had gone cold when it came.", text="My food arrived cold."),
        row("Who is able to help me?", text="Can anyone help?"),
        row("It broke at once.", text="Broken after one day!"),
    ],
    "translation": [
        row("Der Hund schläft.", text="The dog is sleeping.", source_language="English", target_language="German"),
        row("Wir essen um acht.", text="We eat at eight.", source_language="English", target_language="German"),
        row("Es regnet.", text="It is raining.", source_language="English", target_language="German"),
    ],
    "code": [
        row(
            "def double(x):\n    return 2 * x", description="Write a function double that doubles a number.", tests="assert double(2) == 4"
        ),
        row("def first(items):\n    return items[0]", description="Write a function first that returns the first item."),
        row("def is_even(n):\n    return n % 2 == 0", description="Write a function is_even.", tests="assert is_even(2)"),
    ],
    "default": [
        row("card_arrival", text="When does my card come?", stars=4),
        row("lostCard", text="I cannot find my card.", stars=1),
        row("card_arrival", text="Still waiting for the card.", stars=2),
    ],
    "default-choose": [
        row("ice", ["sand", "ice"], question="What does water become when it freezes?"),
        row("a spider", ["a bee", "a spider"], question="Which animal has eight legs?"),
        row("Paris", ["Rome", "Paris"], question="What is the capital of France?"),
    ],
    "default-answer": [
        row("Reply one.", conversation=[{"role": "customer", "text": "Hello?"}, {"role": "agent", "text": "Hello."}]),
        row("Reply two.", conversation=[{"role": "customer", "text": "Anyone?"}]),
        row("Reply three.", conversation=[{"role": "customer", "text": "Bye."}]),
    ],
}


def rendered(name):
    """{file name: content} of the two golden files of a template: two demonstrations, a query, its continuations."""
    rows = ROWS[name]
    kind = name.removeprefix("default-") if "-" in name else "classify"
    template = Template.load(packaged("templates") / f"{name}.jinja") if not name.startswith("default") else Template.load("default")
    if not template.generic:
        kind = template.kind
    inputs = tuple(dict.fromkeys(field for r in rows for field in r.fields))
    labels = tuple(template.words or dict.fromkeys(r.target for r in rows)) if kind == "classify" else ()
    bound = bind(template, kind=kind, inputs=inputs, labels=labels)
    chat = {
        "messages": bound.messages(rows[:2], rows[2]),
        "continuations": bound.continuations(rows[2], "chat"),
        "plain continuations": bound.continuations(rows[2]),
    }
    if template.channel:
        chat["scored"] = [bound.scored(rows[2], "chat"), bound.scored(rows[2])]
    return {f"{name}.plain.txt": bound.plain(rows[:2], rows[2]), f"{name}.chat.json": json.dumps(chat, ensure_ascii=False, indent=1) + "\n"}


@pytest.mark.parametrize("name", ROWS)
def test_renderings_are_the_golden_ones(name):
    for file, text in rendered(name).items():
        assert (GOLDEN / file).read_bytes() == text.encode(), f"{file}: see the head of this test for how to write it anew"


def test_every_shipped_template_has_one():
    assert {path.stem for path in packaged("templates").glob("*.jinja")} <= ROWS.keys()
    assert {path.name for path in GOLDEN.iterdir()} == {file for name in ROWS for file in rendered(name)}


if __name__ == "__main__":
    for template_name in ROWS:
        for file_name, content in rendered(template_name).items():
            (GOLDEN / file_name).write_bytes(content.encode())
