"""What a predictor shows of itself in a notebook."""

import re
import sys
from pathlib import Path

import pytest

import icl
from icl.methods.majority import Majority

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from hostile import HOSTILE

ROWS = [{"text": f"film {n} {HOSTILE[2]}", "label": HOSTILE[n % 3]} for n in range(12)]


@pytest.fixture(scope="module")
def task():
    return icl.Task.load(ROWS, name="made up")


def test_a_prompt_says_what_it_is(task):
    predictor = icl.FewShot(None, template="default", retriever="random", shots=3, tokenizer=str.split).fit(task.train, labels=task.labels)
    html = predictor._repr_html_()
    for part in (
        "<th>template</th><td>default</td>",
        "<th>shots</th><td>3</td>",
        f"{len(task.train)} examples",
        "<th>retriever</th><td>random</td>",
    ):
        assert part in html, html
    checked(html)


def test_a_method_without_settings_too(task):
    html = Majority("classify", ("text",)).fit(task.train, labels=task.labels)._repr_html_()
    assert "<caption>majority</caption>" in html
    assert "<th>method</th><td>Majority</td>" in html
    checked(html)


def checked(html):
    assert set(re.findall(r"</?([a-z]+)", html)) == {"table", "caption", "tr", "th", "td"}, html
    assert "&lt;script&gt;hit(" in html, "the labels are named"
