"""Records by a server's own structured output: asked for only where the server acts on it, and what falls back is said and counted."""

import json

import pytest
import tiny
from fault_server import Faults
from openai_server import over, serve

import icl
from icl import load_model
from icl.errors import CostLimitError
from icl.model.remote.structured import fields_for
from icl.values import Example, Prompt

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
stop: ["\\n"]
---
{% block example %}Text: {{ text }}
JSON:
{% endblock %}
{% block answer %}{{ answer }}{% endblock %}
"""
POOL = [
    Example(f"{i}-0", {"text": f"a {c} cap {i}"}, json.dumps({"colour": c, "sold": bool(i % 2)})) for i, c in enumerate(["red", "blue"] * 2)
]
QUERIES = ["a blue hat", "words"]


@pytest.fixture(scope="module")
def lm():
    return tiny.lm("llama", "chatml")


@pytest.fixture
def said(monkeypatch):
    """What the client tells people."""
    notes = []
    monkeypatch.setattr("icl.model.remote.client.note", notes.append)
    return notes


@pytest.fixture(scope="module")
def load(lm):
    """A client of a server whose other capabilities were probed before: they are the same for all servers here."""
    with serve(over(lm).respond) as served:
        capabilities = load_model(f"{served.url}#tiny").capabilities

    def load(served, **options):
        model = load_model(f"{served.url}#tiny", **options)
        vars(model)["capabilities"] = capabilities
        return model

    return load


def is_record(text):
    found = json.loads(text)
    return set(found) == {"colour", "sold"} and found["colour"] in ("red", "blue") and isinstance(found["sold"], bool)


def chat(text):
    return Prompt(text, ({"role": "user", "content": text},), format="chat")


def predictions(model, **options):
    method = icl.FewShot(
        model,
        template=icl.Template.parse(TEMPLATE, "t"),
        kind="answer",
        retriever="random",
        shots=1,
        max_new_tokens=40,
        answer=SCHEMA,
        **options,
    )
    return method.fit(POOL).predict(QUERIES)


@pytest.mark.parametrize("format", ["plain", "chat"])
def test_records_are_held_to_the_schema_and_come_on_one_line(lm, load, format, said):
    with serve(over(lm, structured=True).respond) as served:
        model = load(served)
        assert dict(model.holds) == {"completions": None, "chat/completions": None}
        for options in ({}, {"samples": 2}):
            found = predictions(model, format=format, **options)
            assert all(is_record(p.answer) and "\n" not in p.answer for p in found)
        assert model.usage.unheld == 0
        assert "holds to a JSON schema: completions: yes; chat/completions: yes" in model.described()
        sent = [body["response_format"]["json_schema"] for path, body in served.bodies if "response_format" in body]
        assert {"name": "record", "schema": SCHEMA, "strict": True} in sent
    assert said == []


@pytest.mark.parametrize(
    ("server", "why"),
    [
        ({"ignores": frozenset({"response_format"})}, "takes response_format and does not act on it"),
        ({"refuses": frozenset({"response_format"})}, "refuses response_format"),
    ],
)
def test_a_server_that_does_not_act_on_it_is_found_out_said_once_and_counted(lm, load, server, why, said):
    with serve(over(lm, structured=True, **server).respond) as served:
        model = load(served)
        found = predictions(model, format="plain")
        assert all(p.answer is None and "JSON object" in p.why for p in found)
        assert model.usage.unheld == len(QUERIES)
        assert model.usage.failed == 0
    assert len(said) == 1
    assert "is not held to the schema of the records" in said[0]
    assert why in said[0]


def test_a_schema_that_the_server_refuses_is_left_out_for_those_items_and_counted(lm, load, said):
    with serve(over(lm, structured=True, schemas=lambda schema: "zq_7" in json.dumps(schema)).respond) as served:
        model = load(served)
        held = model.answers([chat("a"), chat("b")], max_new_tokens=8, schema=SCHEMA)
        plain = model.answers([chat("a"), chat("b")], max_new_tokens=8)
        assert [answer.texts for answer in held] == [answer.texts for answer in plain]
        assert all(answer.why is None for answer in held)
        assert model.usage.unheld == 2
        long = model.answers([chat("x" * 5000)], max_new_tokens=8, schema=SCHEMA)  # refused for its length, with a schema or without
        assert "context length" in long[0].why
        assert model.usage.unheld == 2
    assert len(said) == 1
    assert "it refuses this schema: " in said[0]


def test_what_the_user_asks_for_in_extra_body_is_left_alone(lm, load):
    own = fields_for(SCHEMA)
    with serve(over(lm, structured=True).respond) as served:
        model = load(served, extra_body=own)
        (answer,) = model.answers([chat("a")], max_new_tokens=40, stop=(), schema={"type": "object"})
        assert is_record(answer.texts[0])
        assert model.usage.unheld == 0


def test_every_fault_of_a_server_costs_time_only(lm, load):
    faults = Faults(0.4, seed=1, quick=0.01, hang_s=0.1, only=("429 with seconds", "500", "reset", "truncated json", "empty body", "html"))
    with serve(over(lm, structured=True).respond) as served:
        holds = load(served).holds
    with serve(over(lm, structured=True).respond, faults) as served:
        model = load(served, concurrency=4)
        vars(model)["holds"] = holds
        model._wire.patience = model._probing.patience
        found = model.answers([chat(f"a {i}") for i in range(5)], max_new_tokens=40, schema=SCHEMA)
        assert all(is_record(answer.texts[0]) for answer in found)
    assert sum(faults.seen.values()) > 0


def test_what_the_cost_limit_leaves_undone_is_none(lm, load):
    with serve(over(lm, structured=True).respond) as served:
        model = load(served, prices={"input": 1.0, "output": 1.0}, concurrency=1)
        assert model.holds["chat/completions"] is None
        model.max_cost = model.usage.cost + 1e-4
        with pytest.raises(CostLimitError) as caught:
            model.answers([chat(f"a {i}") for i in range(6)], max_new_tokens=40, schema=SCHEMA)
        done = [answer for answer in caught.value.results if answer is not None]
        assert 0 < len(done) < 6
        assert all(is_record(answer.texts[0]) for answer in done)


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (SCHEMA, True),
        ({**SCHEMA, "required": ["colour"]}, False),
        ({k: v for k, v in SCHEMA.items() if k != "additionalProperties"}, False),
        ({**SCHEMA, "properties": {**SCHEMA["properties"], "sold": {"type": "object", "properties": {"a": {}}}}}, False),
        ({**SCHEMA, "properties": {**SCHEMA["properties"], "sold": {"type": "array", "items": SCHEMA}}}, True),
    ],
)
def test_strict_is_said_only_of_schemas_that_providers_take_strictly(schema, strict):
    assert fields_for(schema)["response_format"]["json_schema"].get("strict", False) is strict
