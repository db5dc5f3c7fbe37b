"""A prompt for use without icl: with a row in its place it is, to the character, what the predictor itself would ask."""

import dataclasses
import json

import pytest
from small_tasks import LABELS, POOLS, context_for, example

import icl
from icl import ship
from icl.cli import main
from icl.errors import InputError
from icl.plugins import build
from icl.readout.text import extractor

QUERY = "Where is {my} parcel"


@pytest.fixture
def fitted(tiny_lm, encoder_folder):
    def make(kind="classify", pool=None, lm=tiny_lm, **options):
        method = icl.FewShot(lm, **{"encoder": str(encoder_folder), "shots": 3, **options})
        return method.fit(POOLS[kind]() if pool is None else pool, labels=LABELS if kind == "classify" else ())

    return make


def filled(found, fields):
    text, messages = found.text, [dict(m) for m in found.messages]
    for name, value in fields.items():
        text = text.replace(found.places[name], value)
        messages = [{**m, "content": m["content"].replace(found.places[name], value)} for m in messages]
    return text, messages


@pytest.mark.parametrize("retriever", ["random", "knn"])
@pytest.mark.parametrize(("kind", "field"), [("classify", "text"), ("answer", "question")])
def test_filled_in_it_is_the_predictors_own_prompt(fitted, kind, field, retriever):
    """The prompts of a retriever that chooses by query are those of the query that was named."""
    predictor = fitted(kind, retriever=retriever)
    own = fitted(kind, lm=None, retriever=retriever, format="plain").prompt(QUERY)
    found = ship.fixed(predictor, None if retriever == "random" else QUERY)
    if retriever == "random":
        assert sorted(found.demonstrations) == sorted(d.uid for d in own.demonstrations)
        own = fitted(kind, lm=None, retriever=lambda queries, k: [in_order(predictor, found)] * len(queries), order="similar_first").prompt(
            QUERY
        )
    text, messages = filled(found, {field: QUERY})
    assert text == own.text
    assert messages == [dict(m) for m in own.messages]


def in_order(predictor, found):
    from icl.values import Hit

    rows = {e.uid: e for e in predictor.pool}
    return [Hit(uid, 1 - n / 10, rows[uid]) for n, uid in enumerate(found.demonstrations)]


def test_without_a_query_each_label_is_shown_in_turn(fitted):
    predictor = fitted(retriever="knn")
    found = ship.fixed(predictor)
    rows = {e.uid: e for e in predictor.pool}
    assert {rows[uid].target for uid in found.demonstrations} == {"billing", "delivery", "login"}
    assert set(found.answers) == set(LABELS)
    assert ship.fixed(predictor) == found


def test_a_mark_that_stands_in_a_demonstration_is_another_one(fitted):
    pool = [*POOLS["classify"](), example({"text": "what does {{text}} mean"}, "other")]
    found = ship.fixed(fitted(pool=pool, shots=9, retriever="random"))
    assert found.places == {"text": "{{text_1}}"}
    assert found.text.count("{{text_1}}") == 1
    pool = [example({"text": f"what {n}"}, "write {{text}}") for n in range(2)]
    assert ship.fixed(fitted(pool=pool, shots=2, retriever="random")).text.count("{{text_1}}") == 1  # in an answer too


def test_zero_shot_and_what_has_no_one_prompt(fitted, encoder_folder):
    assert ship.fixed(fitted(shots=0)).demonstrations == ()
    with pytest.raises(InputError, match="choices differ"):
        ship.fixed(fitted("choose"))
    with pytest.raises(InputError, match="several windows"):
        ship.fixed(fitted(windows=2))
    with pytest.raises(InputError, match="without a prompt"):
        ship.fixed(build("method", "majority", context_for("classify", str(encoder_folder))).fit(POOLS["classify"](), LABELS))
    cut = icl.Template.parse(
        "---\ninput: [text]\n---\n{% block example %}{{ text | upper }}:{% endblock %}{% block answer %} {{ answer }}{% endblock %}",
        "cut",
    )
    with pytest.raises(InputError, match="does not show this field as it is"):
        ship.fixed(fitted(template=cut))


def test_slots_are_filled_in_the_answer_and_need_not_be_shown(fitted, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("ICL_QUIET", raising=False)
    asked = [("Where is my kettle?", "day", "Friday"), ([{"role": "customer", "text": "Boots?"}], "size", "42")]
    replies = ["It comes on Friday.", "We have size 42."]
    pool = [example({"conversation": c, "fact_name": n, "fact": f}, reply) for (c, n, f), reply in zip(asked, replies, strict=True)]
    predictor = fitted("answer", pool=pool, template="support_slots", retriever="random", shots=2, format="plain")
    found = ship.fixed(predictor)
    assert found.places == {"conversation": "{{conversation}}", "fact_name": "{{fact_name}}"}
    assert found.slots == {"fact": "{fact}"}
    assert "more than a text" in capsys.readouterr().err
    query = {"conversation": "And mine?", "fact_name": "day", "fact": "Sunday"}
    text, _ = filled(found, {name: query[name] for name in found.places})
    shown = [in_order(predictor, found)]
    same = {"lm": None, "retriever": lambda queries, k: shown, "order": "similar_first"}
    own = fitted("answer", pool=pool, template="support_slots", shots=2, format="plain", **same)
    assert text == own.prompt(query).text
    assert " It comes on {fact}." in text
    predictor.save(tmp_path / "shipped")
    assert main(["export", str(tmp_path / "shipped"), "--prompt", str(tmp_path / "p.json")]) == 0
    said = capsys.readouterr().err
    assert "{{fact_name}} (fact_name)" in said
    assert "put the value of the row in the place of {fact}" in said
    assert json.loads((tmp_path / "p.json").read_text())["slots"] == {"fact": "{fact}"}


def test_how_an_answer_is_read_goes_with_the_prompt(fitted, tmp_path, capsys, monkeypatch):
    """Without these another program, given the very same text, reads another answer than icl does."""
    monkeypatch.delenv("ICL_QUIET", raising=False)
    sums = [(f"What is {n} + {n}?", str(2 * n), f"{n} and {n} are {2 * n}.") for n in range(1, 6)]
    pool = [dataclasses.replace(example({"question": q}, a), rationale=r) for q, a, r in sums]
    predictor = fitted("answer", pool=pool, template="arithmetic", retriever="random", shots=2)
    found = ship.fixed(predictor)
    assert (found.opening, found.extract, found.schema) == ("The answer is", "last_number", None)
    text = " 4 and 3 are 7. The answer is 7.\n\nQuestion: What is 9 + 9?"
    behind = text.rpartition(found.opening)[2]
    cut = behind[: min(at for stop in found.stop if (at := behind.find(stop)) >= 0)]
    assert extractor(found.extract)(cut) == predictor.read("What is 4 + 3?", text).answer == "7"
    predictor.save(tmp_path / "sums")
    assert main(["export", str(tmp_path / "sums"), "--prompt", str(tmp_path / "p.json")]) == 0
    said = capsys.readouterr().err
    assert "behind the last 'The answer is'" in said
    assert "extract: last_number" in said
    assert json.loads((tmp_path / "p.json").read_text())["opening"] == "The answer is"
    schema = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
    pool = [example({"text": f"a {colour} cap"}, json.dumps({"colour": colour})) for colour in ("red", "blue", "green")]
    records = fitted("answer", pool=pool, template="record", answer=schema, lm=None, retriever="random")
    assert ship.fixed(records).schema == schema
    records.save(tmp_path / "records")
    for name, where in (("p.json", "schema in the file"), ("p.txt", "the .json file has it")):
        assert main(["export", str(tmp_path / "records"), "--prompt", str(tmp_path / name)]) == 0
        assert where in capsys.readouterr().err
    whole = json.loads((tmp_path / "p.json").read_text())
    assert (whole["schema"], whole["extract"], whole["opening"]) == (schema, "json_object", "")
    assert ship.fixed(fitted()).as_dict()["extract"] is None


def test_the_command(fitted, tmp_path, capsys):
    fitted().save(tmp_path / "shipped")
    assert "icl export FOLDER --prompt" in (tmp_path / "shipped" / "README.md").read_text()
    for name in ("p.txt", "p.json"):
        assert main(["export", str(tmp_path / "shipped"), "--prompt", str(tmp_path / name)]) == 0
        assert "{{text}} (text)" in capsys.readouterr().err
    whole = json.loads((tmp_path / "p.json").read_text())
    assert whole["text"] == (tmp_path / "p.txt").read_text()
    assert whole["messages"][-1] == {"role": "user", "content": whole["messages"][-1]["content"]}
    assert len(whole["demonstrations"]) == 3
    assert main(["export", str(tmp_path / "shipped")]) == 2
    assert main(["export", str(tmp_path / "shipped"), "--prompt", "p.md"]) == 2
    assert main(["export", str(tmp_path / "shipped"), "--to", str(tmp_path / "x"), "--query", "y"]) == 2
