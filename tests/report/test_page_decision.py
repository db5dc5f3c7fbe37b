"""A page whose top is a decision, a notebook's view of it, and the spread over templates."""

import json
import math
from dataclasses import replace

import pytest
from test_decision_words import findings, with_choice
from test_page import Page, model, rows, run, run_of  # noqa: F401

from icl.evaluate.answer import as_json
from icl.report.decision import as_html, page_answer, paragraph
from icl.report.page import report_page, stored_answer
from icl.suite import open_run


def test_the_answer_stands_first_in_short_paragraphs_with_key_figures(run):  # noqa: F811
    answer = page_answer(findings(), ["The time was up."])
    assert " ".join(answer.paragraphs) == paragraph(findings(), ["The time was up."])
    assert answer.title == "Use embedding_head"
    page = Page(report_page([run.source], answer)).check()
    assert page.text.index("Use embedding_head") < page.text.index("Figures") < page.text.index("Learning curves")
    for part in ("78.5 % [72.0, 84.0]", "from 180 labels on [90 to beyond 256]", "8 queries", "against the leader", "The time was up."):
        assert part in page.text, part


@pytest.mark.parametrize(
    ("estimate", "interval", "said"),
    [
        (180.4, (90.2, math.inf), "from 180 labels on [90 to beyond 256]"),
        (64.0, (64.0, 64.0), "at 64 or fewer labels"),
        (64.0, (64.0, 120.0), "at 64 or fewer labels [64 or fewer to 120]"),
        (None, (math.inf, math.inf), "beyond 256 labels"),
        (None, (200.0, math.inf), "beyond 256 labels [200 to beyond 256]"),
    ],
)
def test_where_training_wins_is_said_once(estimate, interval, said):
    crossing = replace(findings().crossover, estimate=estimate, interval=interval)
    assert ("training wins over the best prompt", said) in page_answer(findings(crossover=crossing)).figures


def test_a_decision_without_an_answer_says_so():
    assert page_answer(with_choice(settled=False, halves=("knn-8", "embedding_head"))).title == "Not settled"


def test_what_a_decision_kept_is_on_the_page_of_its_run(run, tmp_path):  # noqa: F811
    import shutil

    folder = shutil.copytree(run.folder, tmp_path / "decided")
    answer = page_answer(findings())
    (folder / "decision.json").write_text(json.dumps({"page": as_json(answer._asdict())}), encoding="utf-8")
    kept = stored_answer(folder)
    assert kept.crossing == answer.crossing
    assert kept.crossing.high == math.inf
    assert (kept.title, list(kept.paragraphs)) == (answer.title, list(answer.paragraphs))
    assert "Use embedding_head" in Page(report_page([open_run(folder).source])).check().text
    for damaged in ("", "{}", '{"page": 3}', '{"page": {"title": "x"}}'):
        (folder / "decision.json").write_text(damaged, encoding="utf-8")
        assert stored_answer(folder) is None
        assert "leads" in Page(report_page([open_run(folder).source])).check().text


def test_the_crossover_is_drawn_where_its_metric_is(run):  # noqa: F811
    answer = page_answer(findings())
    marked = report_page([run.source], answer)
    assert marked.count("Training wins over the best prompt from about 180 labels on") == 3, (
        "the answer, above the curves, and in one figure"
    )
    beyond = answer._replace(crossing=answer.crossing._replace(estimate=None, low=math.inf))
    Page(report_page([run.source], beyond)).check()


def test_html_for_notebooks():
    page = Page(as_html(findings(), paragraph(findings())))
    assert {tag for tag, _ in page.elements} <= {"div", "h3", "p", "bdi", "table", "thead", "tbody", "tr", "th", "td"}
    assert "78.5 %" in page.text
    assert "zero_shot" in page.text


@pytest.fixture(scope="module")
def templates(tmp_path_factory, model):  # noqa: F811
    settings = {"retriever": "random", "shots": 1}
    methods = [{"name": name, "few_shot": {**settings, "template": name}} for name in ("topic", "default")]
    return run_of(
        tmp_path_factory.mktemp("templates") / "run",
        model,
        methods=[*methods, {"name": "two", "few_shot": {"retriever": "random", "shots": 2}}],
        thresholds={},
    )


def test_methods_that_differ_in_their_template_alone_show_its_spread(templates):
    page = Page((templates.folder / "report.html").read_text(encoding="utf-8")).check()
    assert "accuracy by template" in page.text
    tips = [text for text in page.texts if ", default: " in text or ", topic: " in text]
    assert len(tips) >= 2
    assert not any("two, " in text for text in tips), "it has another number of shots"
    assert "accuracy by seed" in page.text
