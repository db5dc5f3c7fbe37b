"""Records as answers: what is written follows the schema, what does not parse is counted, and records are compared field by field."""

import importlib.util
import json

import numpy as np
import pytest
import tiny
from pydantic import BaseModel, RootModel
from small_tasks import POOLS, example

import icl
from icl.errors import InputError, MissingExtraError
from icl.evaluate.metrics._records import record_of, share
from icl.methods import _schema
from icl.plugins import Context, build
from icl.values import Example, Prediction

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "sold": {"type": "boolean"}},
    "required": ["colour", "sold"],
    "additionalProperties": False,
}
TEMPLATE = """---
kind: answer
input: [text]
extract: json_object
---
{% block example %}Text: {{ text }}
JSON:
{% endblock %}
{% block answer %}{{ answer }}{% endblock %}
"""
POOL = [example({"text": f"a {c} cap {i}"}, json.dumps({"colour": c, "sold": bool(i % 2)})) for i, c in enumerate(["red", "blue"] * 3)]


def method(lm, encoder_folder, **options):
    given = {
        "template": icl.Template.parse(TEMPLATE, "t"),
        "shots": 2,
        "format": "plain",
        "max_new_tokens": 60,
        "encoder": str(encoder_folder),
    }
    return icl.FewShot(lm, kind="answer", **{**given, **options})


def test_what_is_written_follows_the_schema_greedy_and_sampled(tiny_lm, encoder_folder):
    for options in ({}, {"samples": 3}):
        predictor = method(tiny_lm, encoder_folder, answer=SCHEMA, **options).fit(POOL)
        for got in predictor.predict(["a blue hat", "nothing", "a red hat"]):
            record = json.loads(got.answer)
            assert set(record) == {"colour", "sold"}
            assert record["colour"] in ("red", "blue")
            assert isinstance(record["sold"], bool)
    free = method(tiny_lm, encoder_folder).fit(POOL).predict(["a blue hat"])[0]
    assert free.answer is None  # a random model writes no JSON by itself
    assert "no whole JSON object" in free.why


def test_a_pydantic_class_is_a_schema_and_a_saved_predictor_keeps_it(tiny_lm, encoder_folder, tmp_path):
    class Cap(BaseModel):
        sold: bool

    predictor = method(tiny_lm, encoder_folder, answer=Cap).fit(POOL)
    got = predictor.predict(["a red cap"])
    assert isinstance(json.loads(got[0].answer)["sold"], bool)
    predictor.save(tmp_path / "saved")
    again = icl.load(tmp_path / "saved", lm=tiny_lm)
    assert [p.answer for p in again.predict(["a red cap"])] == [p.answer for p in got]


class Tree(BaseModel):
    """A record that holds others of its kind: pydantic writes its schema as a reference alone."""

    name: str
    kids: list["Tree"] = []


def test_a_class_that_holds_itself_is_a_schema(tiny_lm, encoder_folder):
    assert _schema.schema_of(Tree) == _schema.schema_of(_schema.schema_of(Tree)) == Tree.model_json_schema()
    assert "type" not in Tree.model_json_schema()
    predictor = method(tiny_lm, encoder_folder, answer=Tree, max_new_tokens=200).fit(POOL)
    assert all(p.answer is None or Tree.model_validate_json(p.answer) for p in predictor.predict(["a red cap"]))
    for wrong in (RootModel[list[int]], {"$ref": "#/$defs/A", "$defs": {"A": {"type": "string"}}}, {"$ref": "#"}, {"$ref": 5}):
        with pytest.raises(InputError, match="describes an object"):
            _schema.schema_of(wrong)


@pytest.mark.parametrize("reference", ["#/$defs/Gone", "other.json#/a", "https://host/schema.json", "#/properties/name/type", "Name", 5])
def test_a_reference_that_leads_nowhere_is_refused_before_the_run(reference, tmp_path):
    schema = {"type": "object", "$defs": {"Name": {"type": "string"}}, "properties": {"name": {"$ref": "#/$defs/Name"}, "more": {}}}
    assert _schema.schema_of(schema) == schema
    schema["properties"]["more"] = {"anyOf": [{"type": "null"}, {"$ref": reference}]}
    (tmp_path / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    with pytest.raises(InputError, match="leads nowhere") as error:
        _schema.schema_of(tmp_path / "schema.json")
    assert error.value.problems[0].file == str(tmp_path / "schema.json")
    schema["properties"]["more"] = {"const": {"$ref": reference}, "default": [{"$ref": "#"}]}  # data, not references
    assert _schema.schema_of(schema) == schema


def test_a_text_that_is_cut_is_no_record(tiny_lm, encoder_folder):
    got = method(tiny_lm, encoder_folder, answer=SCHEMA, max_new_tokens=5).fit(POOL).predict(["a red cap"])[0]
    assert got.answer is None
    assert got.text


def test_what_is_no_schema_is_refused(tiny_lm, encoder_folder, tmp_path, monkeypatch):
    (tmp_path / "s.json").write_text("{", encoding="utf-8")
    for wrong in ({"type": "array"}, 3, str(tmp_path / "s.json"), str(tmp_path / "nowhere.json")):
        with pytest.raises(InputError):
            method(tiny_lm, encoder_folder, answer=wrong)
    with pytest.raises(InputError, match="kind 'classify'"):
        icl.FewShot(tiny_lm, answer=SCHEMA, encoder=str(encoder_folder)).fit(POOLS["classify"](), kind="classify")
    with pytest.raises(InputError, match="one each"):
        method(tiny_lm, encoder_folder, answer=SCHEMA, samples=2, vote="weighted").fit(POOL)
    monkeypatch.setattr(_schema, "find_spec", lambda name: None if name == "llguidance" else importlib.util.find_spec(name))
    with pytest.raises(MissingExtraError, match=r"icl\[constrain\]"):
        method(tiny_lm, encoder_folder, answer=SCHEMA).fit(POOL).predict(["x"])


def metric(name, pairs, **settings):
    examples = [Example(f"{i}-0", {}, b if isinstance(b, str) else json.dumps(b)) for i, (_, b) in enumerate(pairs)]
    predictions = [
        Prediction(e.uid, a if isinstance(a, str) or a is None else json.dumps(a)) for e, (a, _) in zip(examples, pairs, strict=True)
    ]
    return build("metric", {name: settings}, Context())(predictions, examples)


def test_records_are_compared_field_by_field():
    right = {"name": "Alder  Jacket", "price": 89, "sizes": ["S", "M"], "sold": True, "maker": {"city": "Oslo", "year": 2000}, "note": None}
    cases = [
        ({**right, "name": "alder jacket", "price": 89.0}, 1.0),
        ({**right, "sold": 1}, 4 / 5),  # a number is no truth value
        ({**right, "sizes": ["M", "L", "XL"]}, (4 + 2 / 5) / 5),
        ({**right, "maker": {"city": "Oslo", "year": 1999}}, (4 + 0.5) / 5),
        ({**right, "invented": 3}, 5 / 6),
        ({k: v for k, v in right.items() if k != "price"}, 4 / 5),
        ({}, 0.0),
    ]
    np.testing.assert_allclose(metric("field_match", [(ours, right) for ours, _ in cases]), [value for _, value in cases])
    assert metric("record_match", [(ours, right) for ours, _ in cases]).tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert metric("field_match", [({**right, "price": 90}, right)], tolerance=0.02).tolist() == [1]
    assert metric("field_match", [({"price": 1, "name": "x"}, {"price": 1, "name": "y"})], fields=["price"]).tolist() == [1]
    assert np.isnan(metric("field_match", [("no record", right), (None, right), ("[1]", right)])).all()
    assert share({"a": []}, {"a": []}) == {"a": 1.0}
    assert share({"a": ["x", "X "]}, {"a": ["x"]}) == {"a": 1.0}
    assert share({"a": 10**400}, {"a": 1.5}) == {"a": 0.0}  # no float holds it
    assert share({"a": 10**400}, {"a": 10**400}) == {"a": 1.0}
    assert record_of('Sure: {"a": {"b": 1}} and {"c": 2}') == {"a": {"b": 1}}


def test_a_suite_holds_answers_to_the_schema_of_its_task(tmp_path, tiny_lm):
    rows = [{"text": f"a {c} cap {i}", "record": {"colour": c, "sold": bool(i % 2)}} for i, c in enumerate(["red", "blue"] * 6)]
    for split, part in (("train", rows[:6]), ("test", rows[6:])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part), encoding="utf-8")
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    (tmp_path / "t.jinja").write_text(TEMPLATE, encoding="utf-8")
    tiny.save(tmp_path / "model")
    task = {"name": "caps", "train": "train.jsonl", "test": "test.jsonl", "kind": "answer", "derive": {"target": "{{ record | tojson }}"}}
    suite = {
        "models": ["model"],
        "tasks": [{**task, "input": "text", "label": "target", "template": "t", "answer": "schema.json"}],
        "methods": [{"zero_shot": {"max_new_tokens": 60, "format": "plain"}}],
        "metrics": ["field_match", "record_match"],
    }
    (tmp_path / "s.yaml").write_text(json.dumps(suite), encoding="utf-8")
    run = icl.run(tmp_path / "s.yaml", out=tmp_path / "run")
    record = next(r for r in run.results if r["metric"] == "field_match")
    assert (record["n_scored"], record["n_unanswered"]) == (6, 0)
    assert 0 <= record["value"] <= 1
    assert "answer" in run.document["manifest"]["tasks"]["caps"]
    suite["tasks"][0]["answer"] = "nowhere.json"
    (tmp_path / "s.yaml").write_text(json.dumps(suite), encoding="utf-8")
    with pytest.raises(InputError, match=r"nowhere\.json"):
        icl.run(tmp_path / "s.yaml", out=tmp_path / "run2")
