"""Read-outs in a suite: the model is asked once, and the figures of all that its scores allow stand side by side."""

import json
import random

import numpy as np
import pytest
import tiny

import icl
from icl.errors import InputError
from icl.evaluate import load_suite
from icl.values import LabelScores

TEMPLATE = """---
input: [text]
labels: {sports: [sport and games, match], business: [money], arts: [art]}
---
{% block example %}Text: {{ text }}
Topic:{% endblock %}
{% block answer %} {{ answer }}{% endblock %}
"""
CHANNEL = """---
input: [text]
channel: true
---
{% block answer %}Topic: {{ answer }}{% endblock %}
{% block example %}
Text: {{ text }}{% endblock %}
"""
LISTED = ["sum", "per_char", "pmi", "pmi_domain"]


def rows(n, seed):
    rng = random.Random(seed)
    words = ["film", "cup", "oil", "team", "plot", "share", "joke", "goal"]
    return [{"text": f"{' '.join(rng.sample(words, 4))} {seed} {i}", "label": ["sports", "business", "arts"][i % 3]} for i in range(n)]


@pytest.fixture
def suite(monkeypatch, tmp_path):
    monkeypatch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})  # the data report would load the default encoder
    (tmp_path / "topic_words.jinja").write_text(TEMPLATE)
    (tmp_path / "topic_turned.jinja").write_text(CHANNEL)
    shots = {"retriever": "random", "shots": 2}
    return {
        "models": [{"model": str(tiny.save(tmp_path / "tiny", "llama")), "name": "tiny"}],
        "tasks": [
            {"name": "topics", "train": rows(30, 1), "test": rows(40, 2), "label": "label", "template": str(tmp_path / "topic_words.jinja")}
        ],
        "methods": [
            {"name": "plain", "few_shot": shots},
            {"name": "listed", "few_shot": {**shots, "readout": LISTED}},
            {"name": "calibrated", "few_shot": {**shots, "readout": "per_char", "calibration": "temperature"}},
            {"name": "turned", "few_shot": {**shots, "readout": "channel", "template": str(tmp_path / "topic_turned.jinja")}},
            {"name": "zero", "zero_shot": {"readout": ["pmi_domain", "sum"], "calibration": "contextual"}},
        ],
        "budgets": [16],
        "seeds": 2,
        "metrics": ["accuracy", "ece"],
    }


def test_side_by_side(suite, tmp_path):
    run = icl.run(suite, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    entries = {(r["method"], r["readout"], r["metric"]): r for r in document["readouts"]}
    found = {m: [r for n, r, metric in entries if n == m and metric == "accuracy"] for m in ("plain", "listed", "calibrated", "zero")}
    assert found["plain"] == ["sum", "per_token", "per_byte", "per_char", "first_token"]
    assert found["listed"] == [*found["plain"], "pmi", "pmi_domain"]
    assert found["calibrated"] == ["per_char", "sum", "per_token", "per_byte", "first_token"]
    assert found["zero"] == ["pmi_domain", "sum", "per_token", "per_byte", "per_char", "first_token"]
    assert not any(method == "turned" for method, _, _ in entries)
    main = {(r["method"], r["metric"]): r for r in document["records"] if r["seed"] is None}
    for (method, _, metric), entry in entries.items():
        assert entry["seed"] is None
        if entry["own"]:
            assert entry["difference"] is None
            if method in ("plain", "listed"):
                assert [entry[key] for key in ("value", "low", "high")] == [main[method, metric][key] for key in ("value", "low", "high")]
        else:
            own = next(e for (m, _, k), e in entries.items() if (m, k) == (method, metric) and e["own"])
            assert entry["difference"] == pytest.approx(entry["value"] - own["value"])
            assert entry["difference_low"] <= entry["difference"] <= entry["difference_high"]
    # The model was asked once: what `listed` computed beyond `plain` are the premises, with each seed's predictor anew.
    planned = {c["method"]: c["tokens_computed"] for c in document["cells"] if c["seed"] == 0}
    lm = icl.load_model(suite["models"][0]["model"], device="cpu")
    words = [" sport and games", " match", " money", " art"]
    premises = sum(lm.plan([context], [words]).computed for context in ("", "Topic:"))
    assert planned["listed"] == planned["plain"] + premises
    recounted = np.mean([by_hand(run.predictions(method="listed", seed=seed), "pmi") for seed in (0, 1)])
    assert entries["listed", "pmi", "accuracy"]["value"] == pytest.approx(recounted)
    text = run.table()
    assert "accuracy by read-out of the same scores" in text
    assert any(line.startswith("listed") and "sum" in line for line in text.splitlines())


def by_hand(predictions, readout):
    examples = {row["text"]: row["label"] for row in rows(40, 2)}
    task = icl.Task.load(rows(30, 1), test=rows(40, 2), label="label")
    targets = {e.uid: examples[e.fields["text"]] for e in task.test}
    hits = []
    for p in predictions:
        scores = p.scores
        assert isinstance(scores, LabelScores)
        joined = [
            np.logaddexp.reduce([scores.sums[i] for i in g]) - np.logaddexp.reduce([scores.premise[i] for i in g]) for g in scores.groups
        ]
        hits.append(p.candidates[int(np.argmax(joined))] == targets[p.uid])
    return np.mean(hits)


def test_interrupted_and_resumed_gives_the_same_bytes(suite, tmp_path, monkeypatch):
    """Premises are scored when a predictor first needs them, so a resumed run scores them with other items about them."""
    from icl.evaluate import loop

    suite["methods"] = suite["methods"][1:2]
    whole = icl.run(suite, tmp_path / "whole", cache=False)
    plain, calls = loop._Running._predict, []

    def stopping(self, predictor, cell, queries):
        calls.append(cell)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(self, predictor, cell, queries)

    monkeypatch.setattr(loop._Running, "_predict", stopping)
    icl.run(suite, tmp_path / "stopped", cache=False)
    assert len(calls) == 2
    assert not (tmp_path / "stopped" / "results.json").exists()
    monkeypatch.setattr(loop._Running, "_predict", plain)
    resumed = icl.run(suite, tmp_path / "stopped", cache=False)
    assert resumed.predictions(method="listed", seed=0) == whole.predictions(method="listed", seed=0)
    assert (tmp_path / "whole" / "results.json").read_bytes() == (tmp_path / "stopped" / "results.json").read_bytes()


def test_what_a_suite_says_of_readouts_is_checked_before_anything(suite, tmp_path):
    for method, message in [
        ({"few_shot": {"readout": "channel"}}, "needs a template that begins with the answer"),
        ({"zero_shot": {"template": str(tmp_path / "topic_turned.jinja")}}, "has no other read-out"),
        ({"few_shot": {"readout": ["sum", "pmi_domian"]}}, "Did you mean 'pmi_domain'"),
        ({"few_shot": {"readout": ["channel", "sum"]}}, "Make it a method of its own"),
        ({"zero_shot": {"calibration": "temperature"}}, "is fitted on labelled examples"),
        ({"zero_shot": {"calibration": "domain_context"}}, "Use 'contextual'"),
    ]:
        with pytest.raises(InputError, match=message):
            load_suite({**suite, "methods": [method]})
    assert load_suite({**suite, "methods": [{"zero_shot": {"calibration": "contextual"}}]})
