"""A template against its task, and what `icl validate` finds in a template that loads."""

import pytest

from icl.errors import InputError
from icl.files import packaged
from icl.prompt import Template, bind, lint
from icl.protocols import Encoded

HEAD = "---\ninput: [text]\nlabels: {negative: [bad], positive: [good]}\n---\n"
BODY = "{% block example %}Review: {{ text }}\nSentiment:{% endblock %}\n{% block answer %} {{ answer }}{% endblock %}\n"


def problems_of(source=HEAD + BODY, **task):
    task = {"kind": "classify", "inputs": ["text"], "labels": ["negative", "positive"], **task}
    with pytest.raises(InputError) as caught:
        bind(Template.parse(source, "t", "t.jinja"), **task)
    return [str(p) for p in caught.value.problems]


def test_labels_without_words_are_named_with_the_tasks_labels():
    (problem,) = problems_of(labels=["negative", "neutral", "positive"])
    assert problem == (
        "t.jinja:3: labels: no words for 'neutral'; the task's labels are 'negative', 'neutral', 'positive'\n"
        "  Add 'neutral: …' here, or under 'labels' of the task in the suite."
    )


def test_words_for_labels_that_the_task_lacks():
    (problem,) = problems_of(labels=["negative"])
    assert "words for 'positive', which is no label of the task" in problem
    wrong, missing = sorted(problems_of(words={"negative": ["a"], "postive": ["b"]}), reverse=True)
    assert "words for 'postive'" in wrong
    assert "Did you mean 'positive'?" in wrong
    assert "no words for 'positive'" in missing


def test_words_of_the_task_that_cannot_be_told_apart():
    (problem,) = problems_of(words={"negative": ["a", "b"], "positive": ["b"]})
    assert "stands for 'negative' already" in problem


def test_the_wrong_kind_and_missing_fields_come_together():
    source = HEAD + BODY.replace("{{ text }}", "{{ tetx }}{{ choices }}")
    problems = problems_of(source, kind="choose", labels=[])
    assert any("for kind classify, the task is choose" in p for p in problems)
    assert any("uses 'tetx'" in p and "Did you mean 'text'?" in p and p.startswith("t.jinja:5") for p in problems)
    problems = problems_of(source)
    assert any("'choices' is not there in the example block of a task of kind classify" in p for p in problems)


def test_a_declared_field_that_the_task_lacks():
    source = HEAD.replace("[text]", "[text, title]") + BODY
    (problem,) = problems_of(source)
    assert "needs the input field 'title'" in problem
    optional = source.replace("Review:", "{% if title is defined %}{{ title }}{% endif %}Review:")
    assert bind(Template.parse(optional, "t"), kind="classify", inputs=["text"], labels=["negative", "positive"])


def test_an_input_named_like_a_variable():
    source = HEAD + BODY.replace("Review:", "{{ labels }}")
    assert any("has the name of a variable of templates" in p for p in problems_of(source, inputs=["text", "labels"]))


def test_channel_is_refused_until_a_readout_can_honour_it():
    (problem,) = problems_of(HEAD.replace("input:", "channel: true\ninput:") + BODY)
    assert problem.startswith("t.jinja:2: channel: 'channel: true' cannot be honoured")


def test_words_are_for_label_tasks_only():
    template = Template.default(["question"], "answer")
    with pytest.raises(InputError, match="for kind classify"):
        bind(template, kind="answer", inputs=["question"], words={"a": ["b"]})


@pytest.fixture
def linted(tmp_path):
    def linted(source, **more):
        (tmp_path / "t.jinja").write_text(source)
        return lint(tmp_path / "t.jinja", **more)

    return linted


@pytest.mark.parametrize("path", sorted(packaged("templates").glob("*.jinja")), ids=lambda p: p.stem)
def test_shipped_templates_have_no_problem(path):
    assert lint(path) == []
    template = Template.load(path)
    assert template.description
    assert template.declared


def test_there_are_fifteen():
    assert len(list(packaged("templates").glob("*.jinja"))) >= 15


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        (HEAD.replace("[text]", "[text, title]") + BODY, 2, "the input field 'title' is never used"),
        (HEAD + BODY.replace("{{ text }}", "{{ tex }}"), 5, "'tex' is not among the input fields"),
        (HEAD + BODY.replace("Sentiment:{%", "Sentiment: {%"), 5, "ends in a space"),
        (HEAD + BODY.replace("%} {{ answer }}", "%}{{ answer }}"), 7, "without a space: '…m\\nSentiment:bad'"),
        (HEAD.replace("[bad]", "[' bad']") + BODY, 3, "white space"),
        (HEAD + BODY.replace("{{ text }}", "{{ text }} {{ answer }}"), 5, "only a solved example has"),
        (HEAD + BODY.replace("Review", "{{ choices }}"), 5, "'choices' is not there"),
        ("---\nkind: choose\ninput: [text]\nchoices: letter\n---\n" + BODY, 6, "does not show the choices"),
        (HEAD.replace("input", "inptu") + BODY, 2, "Did you mean 'input'?"),
        (HEAD + "{% if %}" + BODY, 5, "Expected an expression"),
    ],
)
def test_lint_finds(source, line, message, linted):
    problems = linted(source)
    assert any(message in str(p) and p.line == line for p in problems), problems


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace("Sentiment:{%", "Sentiment:\n{%").replace("%} {{ answer }}", "%}{{ answer }}"),
        BODY.replace("Sentiment:{%", "Sentiment: ({%").replace("%} {{ answer }}", "%}{{ answer }})"),
        BODY.replace("Sentiment:{%", "评价：{%").replace("%} {{ answer }}", "%}{{ answer }}"),
        BODY.replace("%} {{ answer }}", "%}\n{{ answer }}"),
        BODY.replace("Review: {{ text }}", "{% for turn in text %}{{ turn.role }}: {{ turn.text }}\n{% endfor %}"),
    ],
)
def test_lint_leaves_alone_what_does_no_harm(body, linted):
    assert linted(HEAD + body) == []


class Bytes:
    """A codec of bytes that folds case, so that two labels may become the same tokens."""

    has_chat = False

    def plain(self, text):
        ids = tuple(text.casefold().encode())
        return Encoded(ids, len(ids), text, text, 0)


def test_lint_with_a_tokenizer_compares_the_labels(linted):
    source = HEAD.replace("[bad]", "[good times, GOOD]") + BODY
    problems = linted(source, codec=Bytes())
    assert [p.line for p in problems] == [3, 3]
    assert "'good' of 'positive' is the beginning of 'good times' of 'negative'" in str(problems[0])
    assert "end: true" in problems[0].fix
    assert "'GOOD' of 'negative' and 'good' of 'positive' become the same tokens" in str(problems[1])
    assert linted(source.replace("GOOD", "bad").replace("input:", "end: true\ninput:"), codec=Bytes()) == []
    no_words = source.replace("labels: {negative: [good times, GOOD], positive: [good]}\n", "")
    assert linted(no_words, codec=Bytes()) == []
    assert len(linted(no_words, codec=Bytes(), labels=["a", "ab", "c"])) == 1


def test_lint_of_a_missing_template():
    (problem,) = lint("nowhere/x.jinja")
    assert "does not exist" in problem.message
