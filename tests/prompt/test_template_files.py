"""Reading a template: its keys, its blocks, its folder; every mistake is named with its line."""

import os
import random
import time

import pytest

from icl.errors import InputError, UnknownNameError
from icl.files import packaged
from icl.prompt import Template, list_templates, template_folders
from icl.prompt.frontmatter import EXTRACTORS
from icl.values import Example

BLOCKS = "{% block example %}Review: {{ text }}\nSentiment:{% endblock %}\n{% block answer %} {{ answer }}{% endblock %}\n"
GOOD = "---\ndescription: Sentiment of a review\ninput: [text]\nlabels: {negative: [terrible, awful], positive: great}\n---\n" + BLOCKS


def problems_of(source):
    with pytest.raises(InputError) as caught:
        Template.parse(source, "mine", "mine.jinja")
    return caught.value.problems


def test_a_template_has_what_its_file_says():
    template = Template.parse(GOOD, "mine")
    assert (template.name, template.description, template.kind) == ("mine", "Sentiment of a review", "classify")
    assert template.inputs == ("text",)
    assert template.words == {"negative": ("terrible", "awful"), "positive": ("great",)}
    assert (template.separator, template.stop, template.format) == ("\n\n", ("\n\n",), "auto")
    assert (template.channel, template.end, template.has_rationale, template.extract) == (False, False, False, None)


def test_every_key_is_kept():
    head = (
        "---\nkind: answer\ninput: question\nseparator: \"\\n###\\n\"\nstop: ['\\n', END]\nformat: plain\nend: true\n"
        "extract: 'is (\\w+)'\n---\n"
    )
    template = Template.parse(head + BLOCKS.replace("text", "question"), "t")
    assert (template.kind, template.separator, template.stop) == ("answer", "\n###\n", ("\\n", "END"))
    assert (template.format, template.end, template.extract) == ("plain", True, r"is (\w+)")
    template = Template.parse("---\nchannel: true\n---\n" + BLOCKS, "t")
    assert (template.channel, template.premise) == (True, None)
    assert Template.parse("---\npremise: ' so the tone is'\n---\n" + BLOCKS, "t").premise == " so the tone is"


def test_without_front_matter_the_inputs_are_the_names_that_are_used():
    template = Template.parse(BLOCKS, "t")
    assert template.inputs == ("text",)
    assert not template.declared


def test_the_digest_changes_with_every_character():
    assert Template.parse(GOOD, "a").digest == Template.parse(GOOD, "b").digest
    assert Template.parse(GOOD + " ", "a").digest != Template.parse(GOOD, "a").digest


def test_labels_that_look_like_other_things_stay_text():
    head = "---\nlabels: {no: [no], 012: [012], yes: [true], 1: [1], x: off}\n---\n"
    assert Template.parse(head + BLOCKS, "t").words == {"no": ("no",), "012": ("012",), "yes": ("true",), "1": ("1",), "x": ("off",)}


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("---\ndescripton: x\n---\n" + BLOCKS, 2, "Did you mean 'description'?"),
        ("---\ninput: [text]\nkind: clasify\n---\n" + BLOCKS, 3, "kind"),
        ("---\ninput: [text]\n\nlabels: {a: [x], b: [x]}\n---\n" + BLOCKS, 4, "the word 'x' stands for 'a' already"),
        ("---\nlabels: {a: [], b: [x]}\n---\n" + BLOCKS, 2, "no words for 'a'"),
        ("---\nlabels: {a: [1.5]}\n---\n" + BLOCKS, 2, "quotes"),
        ("---\nlabels: {a: ['']}\n---\n" + BLOCKS, 2, "empty"),
        ("---\nchoices: letter\n---\n" + BLOCKS, 2, "kind choose"),
        ("---\nkind: choose\n---\n" + BLOCKS, 2, "choices: letter"),
        ("---\nkind: answer\nlabels: {a: b}\n---\n" + BLOCKS, 3, "kind classify"),
        ("---\nextract: last_nmber\n---\n" + BLOCKS, 2, "last_number"),
        ("---\nextract: '(a)(b)'\n---\n" + BLOCKS, 2, "one group"),
        ("---\nextract: '(a'\n---\n" + BLOCKS, 2, "not a regular expression"),
        ("---\nseparator: ''\nend: true\n---\n" + BLOCKS, 3, "empty"),
        ("---\ndescription: x\n" + BLOCKS, 1, "no end"),
        ("---\n- a\n---\n" + BLOCKS, 2, "list of keys"),
        ("---\na: [\n---\n" + BLOCKS, None, "YAML"),
        ("---\nkind: classify\nkind: answer\n---\n" + BLOCKS, 3, "twice"),
        (GOOD.replace("{{ text }}", "{{ text }"), 6, "mine.jinja"),
        (GOOD + "{% block answer %}{{ answer }}{% endblock %}", 9, "defined twice"),
        (GOOD + "{% block exmple %}{% endblock %}", 9, "Did you mean 'example'?"),
        (GOOD + "\n\nhello\n", 11, "outside the blocks"),
        (GOOD + "{{ text }}", 9, "outside the blocks"),
        (GOOD.replace("{{ text }}", "{{ text|uper }}"), 6, "Did you mean 'upper'?"),
        (GOOD.replace("{{ text }}", "{{ text is strange }}"), 6, "there is no test 'strange'"),
        (GOOD.replace("{{ text }}", "{{ text }} {{ answer }}"), 6, "only a solved example has"),
        (GOOD.replace("{{ answer }}", "great"), 8, "does not show the answer"),
        (GOOD.replace("{{ text }}", "{% block answer %}{{ text }}{% endblock %}"), None, "answer"),
        ("{% block answer %}{{ answer }}{% endblock %}", None, "the block 'example' is missing"),
        ("{% block example scoped %}x{% endblock %}{% block answer %}{{ answer }}{% endblock %}", 1, "scoped"),
        ("{% trans %}x{% endtrans %}" + BLOCKS, 1, "unknown tag"),
        ("x" * 70_000, None, "characters"),
    ],
)
def test_a_mistake_is_named_with_its_line(source, line, message):
    problems = problems_of(source)
    assert any(message in str(p) for p in problems), problems
    assert all(p.file == "mine.jinja" for p in problems)
    assert line is None or line in [p.line for p in problems], problems


def test_all_problems_come_at_once():
    source = "---\nkind: choose\nlabels: {a: ''}\nextract: '('\n---\n" + BLOCKS
    assert len(problems_of(source)) >= 3
    body = "{% include 'x' %}{{ a|nope }}{% block foo %}{% endblock %}"
    assert len(problems_of(body)) >= 5


def test_a_mistake_while_rendering_names_its_line():
    template = Template.parse(GOOD.replace("Review: {{ text }}", "Review:\n\n{{ text / 2 }}"), "mine", "mine.jinja")
    with pytest.raises(InputError) as caught:
        template.blocks["example"].render({"text": "x"}, 1)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.field) == ("mine.jinja", 8, "block example")


def test_a_dropped_file_is_there_and_an_edit_is_seen_at_once(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    with pytest.raises(UnknownNameError, match="no template named 'mine'"):
        Template.load("mine", [folder])
    path = folder / "mine.jinja"
    path.write_text(GOOD)
    stat = path.stat()
    assert list_templates(template_folders([folder]))["mine"].description == "Sentiment of a review"
    assert Template.load("mine", [folder]).blocks["example"].render({"text": "x"}, 1) == "Review: x\nSentiment:"
    path.write_text(GOOD.replace("Sentiment:", "Sentimant:"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time: only the bytes differ
    assert Template.load("mine", [folder]).blocks["example"].render({"text": "x"}, 1) == "Review: x\nSentimant:"
    path.unlink()
    assert "mine" not in list_templates(template_folders([folder]))


def test_folders_are_searched_in_order_and_hiding_is_shown(tmp_path):
    suite = tmp_path / "suite"
    (suite / "templates").mkdir(parents=True)
    (suite / "suite.yaml").write_text("")
    (tmp_path / "templates").mkdir()  # the working folder is tmp_path
    (tmp_path / "templates" / "topic.jinja").write_text(GOOD.replace("Sentiment of a review", "local"))
    (suite / "templates" / "topic.jinja").write_text(GOOD.replace("Sentiment of a review", "beside"))
    folders = template_folders(beside=suite / "suite.yaml")
    assert folders[0] == suite
    assert folders[-1] == packaged("templates")
    listed = list_templates(folders)
    assert (listed["topic"].description, listed["topic"].hides) == ("beside", True)
    assert not listed["sentiment"].hides
    assert Template.load("topic", folders).description == "beside"
    assert Template.load("topic").description == "local"
    assert listed["default"].path is None
    (tmp_path / "templates" / "default.jinja").write_text(GOOD.replace("Sentiment of a review", "my default"))
    assert Template.load("default").description == "my default"
    assert list_templates(template_folders())["default"].hides


def test_a_broken_file_is_listed_as_broken(tmp_path):
    (tmp_path / "bad.jinja").write_text("---\nnope: 1\n---\n")
    (tmp_path / "worse.jinja").write_bytes(b"\xff\xfe")
    listed = list_templates([tmp_path])
    assert listed["bad"].description.startswith("(cannot be read: unknown key 'nope'")
    assert listed["worse"].description.startswith("(cannot be read")


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "//etc/passwd", "..", ".", "", "a\0b", "a\0.jinja", "C:\\secret", "C:secret", "..\\secret", "a/../../secret",
     "link", "link.jinja", "folder", "x" * 300, "secret.txt", "~/secret", "na me", "dev"],
)  # fmt: skip
def test_no_name_reaches_a_file_outside(name, tmp_path):
    (tmp_path / "secret").write_text(GOOD)
    (tmp_path / "secret.txt").write_text(GOOD)
    (tmp_path / "outside.jinja").write_text(GOOD)
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "link.jinja").symlink_to(tmp_path / "outside.jinja")
    (folder / "folder.jinja").mkdir()
    (folder / "dev.jinja").symlink_to("/dev/zero")
    for given in (name, str(folder / name)):
        with pytest.raises(InputError):
            Template.load(given, [folder])
    assert not {"link", "folder", "dev"} & list_templates([folder]).keys()


def test_a_link_inside_the_folder_is_fine(tmp_path):
    (tmp_path / "a.jinja").write_text(GOOD)
    (tmp_path / "b.jinja").symlink_to("a.jinja")
    assert Template.load("b", [tmp_path]).words == Template.load(tmp_path / "a.jinja").words


def test_a_huge_file_is_refused_without_reading_it(tmp_path):
    with open(tmp_path / "huge.jinja", "wb") as file:
        file.truncate(1 << 40)
    started = time.monotonic()
    with pytest.raises(InputError, match="at most"):
        Template.load("huge", [tmp_path])
    assert time.monotonic() - started < 1


def test_the_extractors_are_those_of_the_readout():
    from icl.readout import text

    assert sorted(text.EXTRACTORS) == sorted(EXTRACTORS)


def test_mutated_templates_never_end_in_a_traceback():
    sources = [path.read_bytes() for path in sorted(packaged("templates").glob("*.jinja"))]
    example = Example("x", {}, None)
    fields = dict.fromkeys(
        ["text", "premise", "hypothesis", "question", "context", "conversation", "attributes", "description"], "some text"
    )
    n_failed = 0
    for seed in range(1000):
        rng = random.Random(seed)
        data = bytearray(rng.choice(sources))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data))
            what = rng.randrange(4)
            if what == 0:
                data[at] = rng.randrange(256)
            elif what == 1:
                del data[at : at + rng.randint(1, 20)]
            elif what == 2:
                data[at:at] = rng.choice([b"{{", b"}}", b"{%", b"%}", b"---\n", b"\0", b"{{ answer }}", b"|", b"'", b"[", b"\xff", b"*"])
            else:
                data[at:at] = data[rng.randrange(len(data)) :][:30]
        try:
            template = Template.parse(data.decode("utf-8", rng.choice(["replace", "surrogateescape"])), "mutant")
            for block in template.blocks.values():
                block.render({**fields, "labels": ["a"], "choices": ["a"], "letters": ["A"], "answer": "a", "fields": {}}, 100)
        except InputError:
            n_failed += 1
    assert example.fields == {}
    assert 100 < n_failed < 1000
