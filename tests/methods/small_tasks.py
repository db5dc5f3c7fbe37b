"""One small task of each kind, and how a suite hands it to a method."""

import os
from pathlib import Path

from icl.protocols import MethodContext
from icl.values import Example, content_digest

LABELS = ("billing", "delivery", "login", "other")
"""The pool has no example of the last one."""


def example(fields, target, choices=(), references=(), occurrence=0):
    return Example(f"{content_digest(fields, choices)}-{occurrence}", fields, target, tuple(choices), tuple(references))


def classify_pool():
    rows = [
        ("I was charged twice this month", "billing"),
        ("The invoice shows the wrong amount", "billing"),
        ("Where is my parcel", "delivery"),
        ("The courier left it next door", "delivery"),
        ("My password does not work", "login"),
        ("I cannot log in on my phone", "login"),
        ("the courier left it NEXT door!", "delivery"),
        ("Why was I charged again", "billing"),
    ]
    return [example({"text": text}, label) for text, label in rows]


def choose_pool():
    rows = [
        ("What is red", ("grass", "blood", "snow"), 1),
        ("What is white", ("snow", "coal"), 0),
        ("What is green", ("sky", "grass", "milk", "coal"), 1),
        ("What is black", ("coal", "milk"), 0),
        ("What is blue", ("sky", "grass"), 0),
        ("What is yellow", ("sun", "sea", "leaf"), 0),
        ("What is grey", ("ash", "ash", "sun"), 0),
        ("What is brown", ("soil", "sky"), 0),
    ]
    return [example({"question": q}, choices[right], choices) for q, choices, right in rows]


def answer_pool():
    rows = [
        ("Capital of France", ("Paris",)),
        ("Capital of Italy", ("Rome", "Roma")),
        ("Capital of Spain", ("Madrid",)),
        ("Capital of Japan", ("Tokyo",)),
        ("Colour of snow", ("white",)),
        ("Colour of grass", ("green",)),
        ("capital of france?", ("Paris",)),
        ("Legs of a spider", ("eight", "8")),
    ]
    return [example({"question": q}, references[0], (), references) for q, references in rows]


POOLS = {"classify": classify_pool, "choose": choose_pool, "answer": answer_pool}
QUERIES = {
    "classify": [
        example({"text": text}, None)
        for text in ("Charged two times", "parcel lost", "no access to my account", "Hello", "charged charged")
    ],
    "choose": [
        example({"question": "What is cold"}, None, ("snow", "sun")),
        example({"question": "What burns"}, None, ("sun", "sea", "snow")),
        example({"question": "What is the same"}, None, ("ash", "ash")),
    ],
    "answer": [example({"question": q}, None) for q in ("Capital of Portugal", "Colour of coal", "Legs of a cat")],
}
INPUTS = {"classify": ("text",), "choose": ("question",), "answer": ("question",)}


def context_for(kind, encoder, lm=None, **more) -> MethodContext:
    labels = LABELS if kind == "classify" else ()
    return MethodContext(kind, INPUTS[kind], labels, seed=3, lm=lm, encoder=encoder, **more)


def environment(cache):
    """Environment of a fresh process that sees this checkout and the tests' cache."""
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": root, "ICL_HOME": str(cache), "PYTHONHASHSEED": "7"}
