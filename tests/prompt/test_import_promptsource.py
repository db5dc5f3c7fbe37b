"""Templates of promptsource: text, choices and answer are what its own `apply` gives; and the command line for both importers."""

import json

import jinja2
import pytest
import tiny
import yaml

from icl.cli import main
from icl.evaluate import load_suite
from icl.evaluate.prepare import prepare
from icl.prompt.importers import promptsource, write

TEMPLATES = {
    "labels": {
        "answer_choices": "No ||| Yes",
        "jinja": "Sent 1: {{sentence1}}\nSent 2: {{sentence2}}\nSame? |||\n{{ answer_choices[label] }}",
        "metrics": ["Accuracy"],
    },
    "own choices": {
        "answer_choices": "{{option1}} ||| {{option2}}",
        "jinja": "{{sentence}}\n- {{ answer_choices | join('\\n- ') }}\n||| {% if answer == '1' %} {{option1}} {% else %} {{ option2 }} {% endif %}",
        "metrics": ["Accuracy"],
    },
    "words": {
        "jinja": "{% set who = name | capitalize %}{{ who }} asks: {{question}} ||| {% if found | length == 0 %}nothing{% else %}{{ found[0] }}{% endif %}",
        "metrics": ["Squad"],
    },
    "drawn": {"jinja": "{{ ['Say it', 'Tell me'] | choice }}: {{question}} ||| {{ found | choice }}", "metrics": ["Other"]},
    "condition": {
        "jinja": "{% if label == 1 %}{{ sentence1 }} Next? ||| {{ sentence2 }}{% endif %}",
        "metrics": ["BLEU", "ROUGE"],
    },
}  # fmt: skip
ROWS = [
    {
        "sentence1": f"The tea {i} is hot.",
        "sentence2": f"Hot is the tea {i}.",
        "label": i % 2,
        "option1": "cup",
        "option2": "pot",
        "answer": "12"[i % 2],
        "sentence": f"The _ {i} broke.",
        "name": "ann",
        "question": f"what is {i}",
        "found": [f"number {i}"],
    }
    for i in range(8)
]


def applied(template, row):
    """promptsource/templates.py, `apply` and `get_answer_choices_list`, with the first of what it draws."""
    env = jinja2.Environment()
    env.filters["choice"] = lambda values: values[0]
    names = template.get("answer_choices")
    choices = [part.strip() for part in env.from_string(names).render(**row).split("|||")] if names else None
    return choices, [part.strip() for part in env.from_string(template["jinja"]).render(**row, answer_choices=choices).split("|||")]


def file_of(tmp_path, templates):
    lines = ["dataset: someone/tea", "templates:"]
    for n, (name, template) in enumerate(templates.items()):
        lines += [f"  id{n}: !Template", f"    name: {json.dumps(name)}", f"    jinja: {json.dumps(template['jinja'])}"]
        lines += [f"    answer_choices: {json.dumps(template.get('answer_choices'))}", "    metadata: !TemplateMetadata"]
        lines += [f"      metrics: {json.dumps(template.get('metrics', []))}"]
    (tmp_path / "templates.yaml").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "templates.yaml"


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_choices_and_answer_are_promptsources(name, tmp_path):
    template = TEMPLATES[name]
    (found,), refused = promptsource.read([file_of(tmp_path, {name: template})])
    assert refused == []
    (suite,) = write([found], tmp_path / "ours")
    folder = tmp_path / "data" / "tea"
    folder.mkdir(parents=True)
    for split, part in (("train", ROWS[:4]), ("test", ROWS[4:])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    encoder = tiny.save_bert(tmp_path / "encoder", ["one", "two"], sentence=True)
    (data,) = prepare(load_suite(suite, overrides={"encoder": str(encoder)}), data_root=tmp_path / "data").tasks.values()
    expected = [(choices, parts) for choices, parts in (applied(template, row) for row in ROWS[4:]) if len(parts) == 2]
    assert [item.fields["icl_text"] for item in data.test] == [parts[0] for _, parts in expected]
    assert [item.target for item in data.test] == [parts[1] for _, parts in expected]
    assert [item.choices or None for item in data.test] == [choices and tuple(choices) for choices, _ in expected]
    if name == "condition":
        assert len(data.test) == 2  # a row for which the template says nothing is rejected and counted
        assert sum(data.task.reasons.values()) == 4


def test_what_is_not_taken_says_why(tmp_path):
    cases = {
        "three": "a ||| b ||| c",
        "none": "only a text",
        "zip": "{% for a, b in zip(x, y) %}{{ a }}{% endfor %} ||| z",
        "most": "{{ answers | most_frequent }} ||| z",
        "attribute": "{{ x.__class__ }} ||| z",
        "filter": "{{ x | pprint }} ||| z",
        "fine": "{{ x }} ||| {{ y }}",
    }
    found, refused = promptsource.read([file_of(tmp_path, {name: {"jinja": jinja} for name, jinja in cases.items()})])
    assert [each.name for each in found] == ["someone-tea-fine"]
    assert len(refused) == len(cases) - 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "templates.yaml").write_text("templates: 3\n", encoding="utf-8")
    assert promptsource.read([tmp_path / "other" / "templates.yaml"])[1][0].reason == "the file cannot be read"


def test_names_that_occur_twice_are_kept_apart(tmp_path):
    file = file_of(tmp_path, {"a b": TEMPLATES["words"], "a/b": TEMPLATES["drawn"]})
    found, _ = promptsource.read([file])
    assert [each.name for each in found] == ["someone-tea-a-b", "someone-tea-a-b-2"]


def test_the_command_writes_what_it_took_and_lists_the_rest(tmp_path, capsys):
    file_of(tmp_path, {**TEMPLATES, "three": {"jinja": "a ||| b ||| c"}})
    assert main(["import", "promptsource", str(tmp_path), "--to", str(tmp_path / "ours"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["suites"]) == len(TEMPLATES)
    assert said["reasons"] == {"it is not one text and one answer (|||)": 1}
    assert main(["validate", *said["suites"]]) == 0
    task = {
        "task": "t",
        "dataset_path": "a/b",
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "doc_to_target": 0,
    }
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({**task, "doc_to_choice": ["a", "b"]}), encoding="utf-8")
    (tmp_path / "u.yaml").write_text(yaml.safe_dump({**task, "task": "u", "output_type": "loglikelihood"}), encoding="utf-8")
    assert main(["import", "lm-eval", str(tmp_path / "t.yaml"), str(tmp_path / "u.yaml"), "--to", str(tmp_path / "more")]) == 0
    out, err = capsys.readouterr()
    assert str(tmp_path / "more" / "t.yaml") in out
    assert "1 taken, 1 not taken" in err
    assert "its output is loglikelihood" in err
    assert main(["import", "lm-eval", str(tmp_path / "nowhere.yaml")]) == 2


def test_one_bad_template_is_refused_and_the_others_are_taken(tmp_path):
    bad = {"metadata": 5, "metrics": {"metrics": 5}, "metric": {"metrics": [["Accuracy"]]}}
    templates = [
        f"  {n}: !Template\n    name: {n}\n    jinja: '{{{{a}}}} ||| {{{{b}}}}'\n    metadata: {json.dumps(m)}\n" for n, m in bad.items()
    ]
    good = "  good: !Template\n    name: good\n    jinja: '{{a}} ||| {{b}}'\n"
    (tmp_path / "templates.yaml").write_text("dataset: tea\ntemplates:\n  five: 5\n" + "".join(templates) + good, encoding="utf-8")
    found, refused = promptsource.read([tmp_path / "templates.yaml"])
    assert [each.name for each in found] == ["tea-good"]
    assert [each.reason for each in refused] == ["a key of it has a value of another kind"] * 4


@pytest.mark.parametrize("more", ["when: 2024-13-45\n", "a: &a [*a]\n"])
def test_a_file_that_is_no_yaml_is_refused(more, tmp_path):
    (tmp_path / "templates.yaml").write_text("dataset: tea\ntemplates: {}\n" + more, encoding="utf-8")
    found, refused = promptsource.read([tmp_path / "templates.yaml"])
    assert (found, [each.reason for each in refused]) == ([], ["the file cannot be read"])
