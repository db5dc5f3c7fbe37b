"""`icl prompt --why` and `icl index harmful`: the same figures as the API, in the console, as JSON and as a page."""

import csv
import json

import pytest
import tiny

import icl
from icl.evaluate.harmful import harmful

TEMPLATE = """---
input: [text]
labels: {positive: [p], negative: [n]}
---
{% block example %}Review: {{ text }}
It is{% endblock %}
{% block answer %} {{ answer }}{% endblock %}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("tiny") / "gpt2", "gpt2")


@pytest.fixture
def pool(reviews, tmp_path):
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    with reviews.open(newline="") as file:
        rows = [dict(row) for row in csv.DictReader(file)]
    for name, some in (("pool.csv", rows[:12]), ("test.csv", rows[12:])):
        with (tmp_path / name).open("w", newline="") as file:
            table = csv.DictWriter(file, ["text", "label"])
            table.writeheader()
            table.writerows(some)
    return tmp_path / "pool.csv"


def fitted(model, pool, **options):
    task = icl.Task.load(pool, holdout=0)
    lm = icl.load_model(str(model))
    options = {"template": "t.jinja", "retriever": "bm25", "shots": 3, **options}
    return icl.FewShot(lm, **options).fit(task.train, labels=task.labels, kind=task.kind)


@pytest.fixture
def _no_encoder(monkeypatch):
    """Similarities by a made-up encoder: the shipped one is not fetched for this."""
    import numpy as np

    class Lengths:
        name = fingerprint = "lengths"
        dimensions = 2

        def encode(self, texts):
            found = np.array([[len(text), 40.0] for text in texts], dtype=np.float32)
            return found / np.linalg.norm(found, axis=1, keepdims=True)

        def cut(self, texts):
            return [False] * len(texts)

    monkeypatch.setattr("icl.retrieve.load_encoder", lambda encoder, **_: Lengths())


@pytest.mark.usefixtures("_no_encoder")
def test_why_of_a_query_and_a_pool(icl_cli, model, pool):
    asked = ("prompt", "--pool", pool, "--template", "t.jinja", "--retriever", "bm25", "--shots", 3, "a cold dry cake", "--model", model)
    answer = icl_cli(*asked, "--why", "--html", "why.html", "--attention")
    assert answer.code == 0, answer.err
    found = fitted(model, pool).why("a cold dry cake", attention=True)
    lines = answer.out.splitlines()
    assert lines[0] == f"{found.answer}: log-probability {found.log_probability:.3f} nat"
    for each in found.demonstrations:
        (line,) = [line for line in lines if each.demonstration.example.fields["text"] in line]
        assert f" {each.left_out.effect:+.3f}" in line
        assert f" {each.similarity:.3f}" in line
        assert "%" in line
    for word in ("a", "cold", "dry", "cake"):
        assert any(line.startswith(word + " ") for line in lines)
    page = (pool.parent / "why.html").read_text()
    assert "written to why.html" in answer.err
    assert page.count("<svg") == 3 + 2
    record = json.loads(icl_cli(*asked, "--why", "--json").out)
    assert record["text"] == found.prompt.text
    why = record["why"]
    assert [each["effect"] for each in why["demonstrations"]] == pytest.approx([e.left_out.effect for e in found.demonstrations], abs=1e-5)
    assert [each["text"] for each in why["words"]] == ["a", "cold", "dry", "cake"]
    assert "attention" not in why["demonstrations"][0]
    assert (why["answer"], why["predicted"], why["n_prompts"]) == (found.answer, found.prediction.answer, 8)
    other = ({"positive", "negative"} - {found.answer}).pop()
    assert json.loads(icl_cli(*asked, "--why", "--json", "--answer", other).out)["why"]["answer"] == other
    assert f"that is {found.answer}" in icl_cli(*asked, "--why", "--answer", other).out


@pytest.mark.usefixtures("_no_encoder")
def test_why_of_an_item_of_a_suite(icl_cli, model, pool):
    (pool.parent / "s.yaml").write_text(
        f"tasks: [{{name: t, train: pool.csv, test: test.csv, template: t.jinja}}]\nmodels: [{{name: m, model: '{model}'}}]\n"
        "methods: [zero_shot, {few_shot: {retriever: random, shots: 2}}]\n"
    )
    shown = icl_cli("validate", "s.yaml")
    assert shown.code == 0, shown.err
    answer = icl_cli("prompt", "s.yaml", "--item", 20, "--why", "--trace")
    assert answer.code == 0, answer.err
    assert "log-probability" in answer.out
    assert "stages:" in answer.err
    zero = json.loads(icl_cli("prompt", "s.yaml", "--item", 20, "--method", "zero_shot", "--why", "--json").out)
    assert zero["why"]["demonstrations"] == []
    assert zero["why"]["words"]


def test_what_is_missing_is_said(icl_cli, model, pool):
    asked = ("prompt", "--pool", pool, "--template", "t.jinja", "--retriever", "bm25", "a cold cake")
    for wrong, message in (
        (("--why",), "Add --model M."),
        (("--attention",), "Add --why."),
        (("--answer", "x", "--html", "p.html"), "2 problems"),
        (("--why", "--model", model, "--answer", "splendid"), "'splendid' is no candidate"),
    ):
        answer = icl_cli(*asked, *wrong)
        assert answer.code == 2, answer.err
        assert message in answer.err
        assert answer.out == ""
    assert not list(pool.parent.glob("*.html"))


def test_harmful_demonstrations_of_a_pool(icl_cli, model, pool):
    asked = ("index", "harmful", pool, "--template", "t.jinja", "--retriever", "bm25", "--shots", 3, "--model", model, "--rows", 6)
    answer = icl_cli(*asked, "--top", 2, "--html", "harm.html")
    assert answer.code == 0, answer.err
    found = harmful(fitted(model, pool), 6, seed=0)
    lines = answer.out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == [f"{each.effect:+.3f}" for each in found.rows[:2]]
    assert lines[3] == ""
    assert f"6 rows of the pool asked in {found.n_prompts} prompts" in answer.out
    assert (pool.parent / "harm.html").read_text().count("<tr ") == 2
    record = json.loads(icl_cli(*asked, "--json").out)
    assert [row["effect"] for row in record["rows"]] == pytest.approx([each.effect for each in found.rows], abs=1e-5)
    assert icl_cli("index", "harmful", "nowhere.csv", "--model", model).code == 2
    assert icl_cli("index", "harmful", pool).code == 2  # no model
