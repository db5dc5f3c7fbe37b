"""A template against its task, and what `icl validate` finds in a template that loads."""

import pytest

from icl.errors import InputError
from icl.files import packaged
from icl.prompt import Template, bind, lint
from icl.protocols import Encoded
from icl.values import Example

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


CHANNEL = HEAD.replace("input:", "channel: true\ninput:")
TURNED = "{% block answer %}Sentiment: {{ answer }}{% endblock %}\n{% block example %}\nReview: {{ text }}{% endblock %}\n"


def test_a_channel_and_its_readout_belong_together():
    (problem,) = problems_of(CHANNEL + TURNED, channel=False)
    assert problem.startswith("t.jinja:2: channel: a template with 'channel: true' has no other read-out")
    (problem,) = problems_of(channel=True)
    assert problem.startswith("t.jinja: channel: the read-out channel needs a template that begins with the answer")


def test_a_channel_turns_everything_round():
    bound = bind(Template.parse(CHANNEL + TURNED, "t"), kind="classify", inputs=["text"], labels=["negative", "positive"], channel=True)
    shown, query = Example("a", {"text": "Dull."}, "negative"), Example("b", {"text": "Fine!"}, None)
    assert bound.plain([shown], query) == "Sentiment: bad\nReview: Dull.\n\nSentiment: bad"
    assert bound.plain([], query, "Sentiment: good") == "Sentiment: good"
    assert bound.continuations(query) == (("negative", ("Sentiment: bad",)), ("positive", ("Sentiment: good",)))
    assert bound.scored(query) == "\nReview: Fine!"
    assert bound.scored(query, "chat") == "Review: Fine!"
    assert [m["content"] for m in bound.messages([shown], query)] == ["Sentiment: bad", "Review: Dull.", "Sentiment: bad"]
    ended = Template.parse((CHANNEL + TURNED).replace("channel:", "end: true\nchannel:"), "t")
    assert bind(ended, kind="classify", inputs=["text"], labels=["negative", "positive"]).scored(query) == "\nReview: Fine!\n\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("---\nkind: answer\nchannel: true\n---\n" + TURNED, "behind each of a set of answers"),
        ("---\nkind: choose\nchoices: letter\nchannel: true\n---\n" + TURNED, "behind a letter"),
        (CHANNEL.replace("channel", "premise: x\nchannel") + TURNED, "they have no premise"),
        (CHANNEL + TURNED + "{% block rationale %}{{ rationale }}{% endblock %}", "no place for a rationale"),
        (HEAD.replace("input", "premise: ' '\ninput") + BODY, "a premise without a word is none"),
    ],
)
def test_what_no_channel_and_no_premise_can_be(source, message):
    with pytest.raises(InputError, match=message):
        Template.parse(source, "t")


@pytest.mark.parametrize(
    ("example", "fields", "premise"),
    [
        ("Review: {{ text }}\nSentiment:", {"text": "a"}, "Sentiment:"),
        ('"{{ text }}" has a tone that is', {"text": "a"}, "has a tone that is"),
        ("{{ text | upper }}? {{ stars }} stars.\n\nIs it good?\nAnswer:", {"text": "a", "stars": 4}, "stars.\n\nIs it good?\nAnswer:"),
        ("{% for turn in text %}{{ turn.role }}: {{ turn.text }}\n{% endfor %}Intent:", {"text": [{"role": "a", "text": "b"}]}, "Intent:"),
        ("{{ text }} =>", {"text": "a"}, "=>"),
        ("{{ text[:3] }} ({{ text | length }})\nLabel:", {"text": "abcdef"}, "Label:"),
    ],
)
def test_the_domain_premise_is_what_stands_between_the_last_input_and_the_answer(example, fields, premise):
    source = f"{{% block instruction %}}Sort.{{% endblock %}}{{% block example %}}{example}{{% endblock %}}{{% block answer %}} {{{{ answer }}}}{{% endblock %}}"
    bound = bind(Template.parse(source, "t"), kind="classify", inputs=list(fields), labels=["a", "b"])
    assert bound.premise(Example("q", fields, None)) == premise
    own = bind(
        Template.parse(f"---\npremise: ' The quote has a tone that is'\n---\n{source}", "t"),
        kind="classify",
        inputs=list(fields),
        labels=["a"],
    )
    assert own.premise(Example("q", fields, None)) == " The quote has a tone that is"


def test_the_premise_of_choices_leaves_them_out():
    bound = bind(Template.default(["question"], "choose"), kind="choose", inputs=["question"])
    assert bound.premise(Example("q", {"question": "Why?"}, None, ("a", "b", "c"))) == "Answer:"
    silent = Template.parse("{% block example %}{{ text }} {% endblock %}{% block answer %}{{ answer }}{% endblock %}", "t", "t.jinja")
    bound = bind(silent, kind="classify", inputs=["text"], labels=["a"])
    with pytest.raises(InputError, match=r"t.jinja:1: block example: the template writes nothing between .*premise"):
        bound.premise(Example("q", {"text": "a"}, None))


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
        (CHANNEL + TURNED.replace("answer }}{%", "answer }} {%"), 6, "the answer block ends in a space"),
        (CHANNEL + TURNED.replace("\nReview", "Review"), 7, "the example follows the answer without a space: '…ntiment: badReview: lore'"),
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
    assert linted(CHANNEL + TURNED) == []


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
    turned = CHANNEL.replace("[bad]", "[good times, GOOD]") + TURNED  # a label that begins with another is no matter where it is not scored
    assert ["same tokens" in str(p) for p in linted(turned, codec=Bytes())] == [True]


def test_lint_of_a_missing_template():
    (problem,) = lint("nowhere/x.jinja")
    assert "does not exist" in problem.message
