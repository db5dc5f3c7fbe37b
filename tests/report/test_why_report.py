"""Why, and what harms a pool, as text and as a page: whatever the rows hold."""

from html.parser import HTMLParser

import numpy as np
import pytest

from icl.evaluate.harmful import Harm, Harmful
from icl.evaluate.label_errors import Doubt, LabelErrors
from icl.methods._attention import Attention
from icl.methods._query_words import places_in, text_of
from icl.methods._why import DemonstrationEffect, Effect, Why, WordEffect
from icl.report.label_errors import label_errors_page, label_errors_table
from icl.report.why import harmful_table, why_table
from icl.report.why_html import harmful_page, why_page
from icl.values import Demonstration, Example, Prediction, Prompt

HOSTILE = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' onmouseover='alert(1)", "</title></style><b>", "&lt;b&gt;",
    "\x1b[31mred\x1b]0;title\x07", "a\u202eb\u2066c", "\ud800 half", "\x00null", "line\nline\ttab", "]]>", "{{ 7*7 }}", "", "  ",
    "javascript:alert(1)", "http://example.org/x.png", "e\u0301 🇩🇪 ﷽",
]  # fmt: skip


def why_of(text, label, *, attention=False):
    rows = [Example(f"u{i}", {"text": each, "title": text}, label if i else "plain") for i, each in enumerate((text, "fine words", "more"))]
    query = Example("q", {"text": f"{text} and {label}", "talk": [{"role": text, "text": text}], "n": 3}, None)
    effects = [Effect(-1.0, 0.25, label, True), Effect(-0.5, -0.25, label, False), Effect(-0.75, 0.0, None, False)]
    demonstrations = tuple(
        DemonstrationEffect(Demonstration(row, i, 0.5), 0.1 * i, effect) for i, (row, effect) in enumerate(zip(rows, effects, strict=True))
    )
    words = tuple(
        WordEffect(place, text_of(query, place)[place.start : place.end], effects[i % 3])
        for i, place in enumerate(places_in(query, ("text", "talk"), 64))
    )
    weights = np.full((2, 3, 5), 0.2, dtype=np.float32)
    looked = Attention(weights[..., :3], weights[..., 3], weights[..., 4], weights) if attention else None
    prediction = Prediction("q", "plain", {label: 0.4, "plain": 0.6}, (label, "plain"))
    return Why(query, prediction, Prompt("", ()), label, -0.75, demonstrations, words, 4 + len(words), looked)


def harm_of(text, label):
    rows = tuple(Harm(Example(f"u{i}", {"text": text}, label), -0.5 + i, 2 - i, (0.1, None)[i], i, 0) for i in range(2))
    return Harmful(rows, 3, 12, (text,), 10)


def errors_of(text, label):
    rows = tuple(Doubt(Example(f"u{i}", {"text": text}, label), 0.25 + i / 2, "other", 0.5 - i / 4, not i) for i in range(2))
    return LabelErrors(rows, 4, 1, 1, 1.25, {(label, "other"): 1})


class Page(HTMLParser):
    """What a browser finds: tags, attributes, text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.texts = [], set(), [], []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "span", "table", "thead", "tbody", "tr", "th", "td", "bdi", "b", "br",
    "div", "figure", "figcaption", "svg", "rect",
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_a_row_becomes_markup(text):
    pages = [
        why_page(why_of(text, text or "x", attention=True)),
        harmful_page(harm_of(text, text)),
        label_errors_page(errors_of(text, text)),
    ]
    for source in pages:
        page = Page(source)
        assert page.tags <= ALLOWED
        for name, value in page.attributes:
            assert not name.startswith("on")
            assert name not in ("src", "href")
            if name == "style":
                assert set(value) <= set("-a:.0123456789")
        source.encode("utf-8")
        assert not any(ord(c) < 32 and c not in "\n\t" for c in source)
        shown = "".join(c if c.isprintable() or c in "\n\t\u202e\u2066" else "\ufffd" for c in text)
        assert shown in "".join(page.texts)
    for lines in (why_table(why_of(text, text or "x")), harmful_table(harm_of(text, text)), label_errors_table(errors_of(text, text))):
        assert all(c == "\n" or c.isprintable() for c in lines)


def test_the_page_needs_nothing_and_runs_nothing():
    source = why_page(why_of("text", "label", attention=True))
    assert "default-src 'none'" in source
    for word in ("http:", "https:", "url(", "@import", "<script", "<link", "src="):
        assert word not in source


def test_what_the_page_says():
    why = why_of("one two", "right", attention=True)
    page = Page(why_page(why))
    text = "".join(page.texts)
    for said in (
        "Why “right”",
        "-0.750 nat",
        "It is not what is answered: that is “plain”",
        "+0.250",
        "-0.250",
        "20.0%",
        "one two and right",
    ):
        assert said in text
    styles = [value for name, value in page.attributes if name == "style"]
    assert "--a:0.650" in styles  # the strongest is the darkest
    assert "--a:0.000" in styles
    classes = [value for name, value in page.attributes if name == "class"]
    assert "changed for" in classes
    assert "against" in classes
    assert why_page(why).count("<rect") == 5 * 6
    tips = [value for name, value in page.attributes if name == "title"]
    assert tips[0] == "+0.250, without it: right"
    bare = Why(why.query, why.prediction, why.prompt, "right", -0.75, (), (), 1)
    assert "<table" not in why_page(bare)
    assert why_table(bare).startswith("right: log-probability -0.750 nat\nit is not what is answered: that is plain")


def test_the_table_in_the_console():
    why = why_of("some text", "right", attention=True)
    lines = why_table(why).splitlines()
    heads = next(i for i, line in enumerate(lines) if line.startswith("shot"))
    assert lines[heads].split() == ["shot", "label", "similarity", "effect", "without", "it", "attention", "text"]
    assert lines[heads + 1].split()[:6] == ["0", "plain", "0.000", "+0.250", "right", "20.0%"]
    assert lines[heads + 2].split()[:5] == ["1", "right", "0.100", "-0.250", "20.0%"]
    assert lines[heads + 1].endswith("some text some text")
    assert "attention" not in why_table(why_of("some text", "right"))
    table = harmful_table(harm_of("a text " * 40, "right"), 1).splitlines()
    assert table[0].split() == ["mean", "effect", "±", "prompts", "label", "text"]  # nothing was broken or mended
    assert table[1].startswith("     -0.500  0.100        2  right  a text")
    assert len(table[1]) < 110
    assert table[1].endswith("…")
    assert "3 rows of the pool asked in 12 prompts; 2 of its 10 rows" in table[3]
    assert "1 further rows could not be asked" in table[4]


def test_label_errors_in_the_console_and_on_the_page():
    found = errors_of("some text", "right")
    lines = label_errors_table(found).splitlines()
    assert lines[0].split() == ["own", "other", "label", "other", "label", "text"]
    assert lines[1].split() == ["0.250", "0.500", "*", "right", "other", "some", "text"]
    assert lines[2].split() == ["0.750", "0.250", "right", "other", "some", "text"]
    notes = " ".join(lines[4:])
    for said in (
        "2 labels judged",
        "not judged: 1 rows without a label, 1 rows that are the only ones of their label",
        "1 are marked *: wrong, as confident learning counts; about 1 (62.5%) by its estimate",
        "50.0% of the labels are what the other parts would give",
        "most often: right → other 1",
    ):
        assert said in notes
    page = Page(label_errors_page(found, 1))
    assert [value for name, value in page.attributes if name == "class"].count("against") == 1
    assert label_errors_page(found, 1).count("<tr") == 2
    assert "1 are coloured" in "".join(page.texts)
