"""Suites with a model behind an address: what it costs is planned, counted and limited, and nothing that was paid for is lost."""

import json
import random
import subprocess
import sys
from collections import Counter

import pytest
from openai_server import serve
from rule_server import Rules, n_tokens

import icl
import icl.model
from icl import suite as suites
from icl.cli import main
from icl.endpoint.wire import Patience
from icl.errors import CostLimitError, InputError
from icl.evaluate import load_suite
from icl.model.remote.options import RemoteOptions

PRICES = {"input": 2.0, "output": 10.0}
SPORTS, BUSINESS = ("goal", "team", "cup", "match"), ("share", "oil", "bank", "price")


def rows(n, seed):
    rng = random.Random(seed)
    for i in range(n):
        label = rng.choice(["sports", "business"])
        words = rng.sample(SPORTS if label == "sports" else BUSINESS, 3)
        yield {"text": f"{' '.join(words)} {seed} {i}", "label": label}


def query_of(messages):
    return messages[-1]["content"]


def topic(messages, j):
    """What the last text is about; every text that is no item of the task (a probe's) has an answer of its own."""
    if any(word in query_of(messages) for word in SPORTS):
        return "Sports."
    return "It is business" if any(word in query_of(messages) for word in BUSINESS) else f"Once upon a time, {j}"


def is_item(messages):
    return "Label:" in query_of(messages)


@pytest.fixture
def rules():
    return Rules(topic)


@pytest.fixture
def served(rules, monkeypatch):
    monkeypatch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})  # nothing is embedded; the report would load an encoder
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(RemoteOptions, "patience", Patience(attempts=2, first_wait_s=0.01))  # no test waits for a broken server
    with serve(rules.respond) as served:
        yield served


METHODS = ["majority", {"zero_shot": {"max_new_tokens": 8}}, {"few_shot": {"retriever": "random", "shots": 2, "max_new_tokens": 8}}]


def suite(served, methods=METHODS, **model):
    task = {"name": "topics", "train": list(rows(30, 1)), "test": list(rows(40, 2)), "label": "label"}
    entry = {"model": f"{served.url}#rules", "prices": PRICES, "concurrency": 4, **model}
    return {"models": [entry], "tasks": [task], "methods": methods, "budgets": [4, 8], "metrics": ["accuracy", "ece"]}


def read(run):
    return (run.folder / "results.json").read_bytes()


def test_a_run_counts_what_it_used(served, rules, tmp_path):
    run = icl.run(suite(served), tmp_path / "out")
    assert run.exit_code == 0
    records = {(r["method"], r["metric"], r["budget"]): r for r in run.results if r["seed"] is None}
    for method, budget in (("zero_shot", None), ("few_shot", 4), ("few_shot", 8)):
        record = records[method, "accuracy", budget]
        assert (record["value"], record["estimator"], record["n_lost"]) == (1.0, "generation", 0)
        assert records[method, "ece", budget]["n_scored"] == 0  # one text has no probability
    assert records["majority", "accuracy", 4]["estimator"] is None
    manifest = run.document["manifest"]["models"]["rules"]
    assert (manifest["estimator"], manifest["dtype"]) == ("generation", "remote")
    assert run.document["manifest"]["machine"]["threads"] is None  # nothing here computes
    usage = run.timing["usage"]
    n_items = sum(n_tokens(m["content"]) for messages in rules.chats for m in messages if is_item(messages))
    n_all = sum(n_tokens(m["content"]) for messages in rules.chats for m in messages)
    assert n_items < usage["input_tokens"] <= n_all  # finding out what the server can do is counted too
    assert usage["cost"] >= (usage["input_tokens"] * 2 + usage["output_tokens"] * 10) / 1e6
    parts = [method["usage"] for method in run.timing["methods"]]
    assert [method["method"] for method in run.timing["methods"]] == ["zero_shot", "few_shot"]
    for name in ("requests", "input_tokens", "output_tokens", "cost"):
        assert sum(part[name] for part in parts) == pytest.approx(usage[name])
    assert sum(cell.get("usage", {}).get("requests", 0) for cell in run.timing["cells"]) == usage["requests"]
    assert b"usage" not in read(run)
    text = run.table()
    assert "answers by" in text
    assert "writing" in text
    assert f"{usage['cost']:.4f} paid" in text


def test_lost_items_are_counted_and_asked_for_again(served, rules, tmp_path):
    whole = icl.run(suite(served), tmp_path / "whole")
    rules.fails = lambda messages: 503 if is_item(messages) and query_of(messages).endswith(("7\nLabel:", "3\nLabel:")) else None
    run = icl.run(suite(served), tmp_path / "out")
    assert run.exit_code == 4
    lost = [i for i, p in enumerate(run.predictions("zero_shot")) if p.lost]
    assert lost == [3, 7, 13, 17, 23, 27, 33, 37]
    record = next(r for r in run.results if r["method"] == "zero_shot" and r["metric"] == "accuracy")
    assert (record["n_scored"], record["n_failed"], record["n_unanswered"], record["n_lost"], record["value"]) == (32, 8, 8, 8, 1.0)
    assert "--retry-failed" in run.table()
    assert "asks again for 24 predictions" in run.table()
    rules.chats.clear()
    again = icl.run(suite(served), tmp_path / "out")  # the same command asks for nothing
    assert not any(map(is_item, rules.chats))
    assert read(again) == read(run)
    assert suites.open_run(tmp_path / "out").next()[-1].startswith("Next: icl run")
    rules.fails = lambda messages: 503 if is_item(messages) and query_of(messages).endswith(" 2 7\nLabel:") else None
    rules.chats.clear()
    partly = icl.run(suite(served), tmp_path / "out", retry_failed=True)
    assert sum(map(is_item, rules.chats)) == 24 + 3  # what fails is tried twice
    assert partly.exit_code == 4
    assert sum(p.lost for p in partly.predictions("zero_shot")) == 1
    rules.fails = lambda messages: None
    rules.chats.clear()
    done = icl.run(suite(served), tmp_path / "out", retry_failed=True)
    assert sum(map(is_item, rules.chats)) == 3
    assert done.exit_code == 0
    assert read(done) == read(whole)
    for name in ("predictor.json", "regression.jsonl"):
        texts = [(r.folder / "predictors" / "few_shot" / name).read_bytes() for r in (whole, done)]
        assert texts[0] == texts[1]


def test_the_cost_limit_stops_a_run_and_loses_nothing(served, rules, tmp_path):
    whole = icl.run(suite(served), tmp_path / "whole")
    cost = whole.timing["usage"]["cost"]
    rules.chats.clear()
    limits = [cost * share for share in (0.4, 0.6, 0.8)]
    for sessions, limit in enumerate(limits, 1):
        run = icl.run(suite(served), tmp_path / "out", max_cost=limit)
        assert (run.exit_code, run.passed, run.interrupted) == (1, False, False)
        assert "cost limit is reached" in run.stopped
        assert f"go on with: icl.run(…, out={str(tmp_path / 'out')!r})" in run.table()
        assert run.timing["usage"]["cost"] <= limit
        assert run.timing["usage"]["cost"] > limit - cost / 3
        assert run.timing["sessions"] == sessions
        assert not (run.folder / "results.json").exists()
    done = icl.run(suite(served), tmp_path / "out")
    assert read(done) == read(whole)
    asked = Counter(json.dumps(messages) for messages in rules.chats if is_item(messages))
    in_one_go = Counter(json.dumps(m) for m in rules.chats if is_item(m)) - asked
    assert not in_one_go
    assert sum(asked.values()) == 40 * 3  # no item was paid for twice
    with pytest.raises(InputError, match="needs the prices of 'rules'"):
        icl.run(suite(served, prices=None), tmp_path / "no", max_cost=1.0)
    with pytest.raises(InputError, match="leaves nothing to spend"):
        icl.run(suite(served), tmp_path / "no", max_cost=0)
    paraphrasing = {"classifier": {"augment": {"paraphrase": {"model": f"{served.url}#rules"}}}}
    for method in (paraphrasing, {"distil": {"student": paraphrasing}}):
        with pytest.raises(InputError, match="has an endpoint paraphrase its rows"):
            icl.run(suite(served, methods=[method]), tmp_path / "no", max_cost=1.0)
    address = f"{served.url}#embeds"
    retriever = {"few_shot": {"retriever": [{"knn": {"n": 8, "encoder": address}}, "mmr"], "shots": 2}}
    for method in ({"embedding_head": {"encoder": address}}, retriever, {"distil": {"teacher": {"knn_vote": {"encoder": address}}}}):
        with pytest.raises(InputError, match="has an encoder of its own behind an address"):
            icl.run(suite(served, methods=[method]), tmp_path / "no", max_cost=1.0)
    with pytest.raises(InputError, match="asks a judge whose cost"):
        icl.run({**suite(served), "metrics": [{"judge_rubric": {"model": address}}]}, tmp_path / "no", max_cost=1.0)


def test_a_server_that_goes_down_stops_a_run_that_goes_on_later(served, rules, tmp_path):
    whole = icl.run(suite(served), tmp_path / "whole")
    n = [0]

    def down(messages):
        n[0] += is_item(messages)
        return 401 if n[0] > 50 else None

    rules.fails = down
    run = icl.run(suite(served), tmp_path / "out")
    assert run.exit_code == 1
    assert "the endpoint does not answer" in run.stopped
    assert "HTTP 401" in run.stopped
    assert not (run.folder / "results.json").exists()
    rules.fails = lambda messages: None
    rules.chats.clear()
    done = icl.run(suite(served), tmp_path / "out")
    assert read(done) == read(whole)
    assert sum(map(is_item, rules.chats)) == 120 - 50


def test_a_plan_is_an_upper_bound(served, rules, tmp_path):
    plan = suites.plan(suite(served))
    run = icl.run(suite(served), tmp_path / "out")
    probed = suites.plan(suite(served, methods=["majority"]))
    assert probed.cost is None
    assert 0 < run.timing["usage"]["cost"] < plan.cost * 1.2  # finding out what the server can do comes on top
    assert plan.cost < run.timing["usage"]["cost"] * 10
    assert plan.seconds > 0
    assert plan.tokens_per_s is None
    assert f"at most {plan.cost:.4f} to pay" in plan.table()
    assert "judging by one short request" in plan.table()
    assert suites.plan(suite(served, prices=None)).cost is None


def test_a_plan_is_held_to_the_cost_limit(served, tmp_path, monkeypatch):
    """To find out what a server can do costs a little, which was paid whatever the limit."""
    asked = []
    load = icl.model.load_model
    monkeypatch.setattr("icl.model.load_model", lambda *args, **options: asked.append(load(*args, **options)) or asked[-1])
    free = suites.plan(suite(served))
    cost = asked[0].usage.cost
    with pytest.raises(CostLimitError, match="finding out what the server can do"):
        suites.plan(suite(served), max_cost=cost / 2)
    assert asked[1].usage.cost <= cost / 2
    assert suites.plan(suite(served), max_cost=cost * 2).cost == free.cost
    with pytest.raises(InputError, match="needs the prices of 'rules'"):
        suites.plan(suite(served, prices=None), max_cost=1.0)
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(40, name)))
    task = {"name": "topics", "train": "train.jsonl", "test": "test.jsonl"}
    (tmp_path / "s.yaml").write_text(json.dumps({**suite(served), "tasks": [task]}))
    assert main(["run", str(tmp_path / "s.yaml"), "--plan", "--max-cost", f"{cost / 2:.9f}"]) == 1


def test_what_changes_no_result_may_change(served, tmp_path):
    first = icl.run(suite(served, api_key_env=None), tmp_path / "out")
    changed = suite(served, concurrency=2, prices={"input": 1, "output": 1, "cached": 0.5}, timeout=30)
    assert read(icl.run(changed, tmp_path / "out")) == read(first)
    with pytest.raises(InputError, match="this folder holds a run of something else"):
        icl.run(suite(served, extra_body={"reasoning_effort": "low"}), tmp_path / "out")


def test_two_endpoints_share_one_limit(served, rules, tmp_path):
    what = suite(served, methods=[{"zero_shot": {"max_new_tokens": 8}}])
    what["models"].append({**what["models"][0], "name": "second"})
    whole = icl.run(what, tmp_path / "whole")
    cost = whole.timing["usage"]["cost"]
    by_model = {m["model"]: m["usage"]["cost"] for m in whole.timing["methods"]}
    assert by_model["rules"] == pytest.approx(by_model["second"], rel=0.2)
    run = icl.run(what, tmp_path / "out", max_cost=cost * 0.75)
    assert run.stopped
    assert cost * 0.5 < run.timing["usage"]["cost"] <= cost * 0.75
    assert {c["model"] for c in run.document["cells"]} == {"rules"}


def test_a_saved_predictor_of_an_endpoint_competes(served, rules, tmp_path):
    first = icl.run(suite(served), tmp_path / "first")
    what = suite(served, methods=["majority", {"saved": {"path": str(first.folder / "predictors" / "few_shot")}}])
    run = icl.run(what, tmp_path / "out")
    record = next(r for r in run.results if r["method"] == "saved" and r["metric"] == "accuracy" and r["seed"] is None)
    assert (record["value"], record["estimator"]) == (1.0, "generation")
    assert run.timing["usage"]["requests"] > 40
    with pytest.raises(InputError, match="asks an endpoint of its own"):
        icl.run(what, tmp_path / "no", max_cost=1.0)


def test_the_key_is_in_no_file(served, rules, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-canary-0123456789")
    rules.fails = lambda messages: 503 if is_item(messages) and query_of(messages).endswith("7\nLabel:") else None
    run = icl.run(suite(served, api_key_env="MY_KEY"), tmp_path / "out")
    assert {headers.get("Authorization") for headers in served.headers} == {"Bearer sk-canary-0123456789"}
    assert "canary" not in run.table()
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or b"canary" not in path.read_bytes(), path


def problems_of(models, **more):
    task = {"name": "topics", "train": list(rows(4, 1)), "test": list(rows(4, 2)), "label": "label"}
    with pytest.raises(InputError) as caught:
        load_suite({"models": models, "tasks": [task], "methods": ["zero_shot"], **more})
    return {p.field: f"{p.message} {p.fix}" for p in caught.value.problems}


def test_endpoints_are_checked_before_any_work():
    url = "https://example.org/v1#some-model"
    found = problems_of(
        [
            {"model": "https://me:sk-canary-1@example.org/v1#m", "name": "a"},
            {"model": "https://example.org/v1", "name": "b"},
            {"model": url, "name": "c", "dtype": "float32", "adapter": "x"},
            {"model": "smollm2", "name": "d", "concurrency": 3, "prices": PRICES},
            {"model": url, "name": "e", "extra_body": {"api_key": "sk-canary-2", "messages": []}},
        ],
        encoder="https://me:sk-canary-3@example.org/v1#m",
    )
    assert set(found) == {
        "models.0.model", "models.1.model", "models.2.dtype", "models.2.adapter", "models.3.concurrency", "models.3.prices",
        "models.4.extra_body.api_key", "models.4.extra_body.messages", "encoder",
    }  # fmt: skip
    assert "canary" not in str(found)
    found = problems_of(
        [
            {"model": url, "name": "a", "api_key_env": "sk-canary-4"},
            {"model": url, "name": "b", "api_key": "sk-canary-5"},
            {"model": url, "name": "c", "prices": {"input": -1, "out": 2}},
            {"model": url, "name": "d", "concurrency": 0, "timeout": 0},
        ]
    )
    assert "canary" not in str(found)
    assert "environment variable" in found["models.0.api_key_env"]
    assert "api_key_env" in found["models.1.api_key"]
    assert {"models.2.prices.input", "models.2.prices.out", "models.2.prices.output"} <= set(found)
    assert {"models.3.concurrency", "models.3.timeout"} <= set(found)


def test_models_are_called_by_their_names():
    url = "https://example.org/v1#org/Some-Model-8B"
    task = {"name": "topics", "train": list(rows(4, 1)), "test": list(rows(4, 2)), "label": "label"}
    loaded = load_suite({"models": [url, {"model": url, "name": "other"}], "tasks": [task], "methods": ["zero_shot"]})
    assert [entry.key for entry in loaded.suite.model_entries] == ["Some-Model-8B", "other"]


def test_a_suite_of_endpoints_is_checked_without_heavy_imports(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "models: [{model: 'https://example.org/v1#m', prices: {input: 1, output: 2}}]\n"
        "tasks: [{name: t, train: t.csv, label: label}]\nmethods: [zero_shot]\nencoder: https://example.org/v1#e\n"
    )
    (tmp_path / "t.csv").write_text("text,label\na,x\nb,y\n")
    code = (
        "import sys; from icl.evaluate import load_suite; load_suite('s.yaml');"
        "print([m for m in ('torch', 'httpx', 'httpx2', 'transformers', 'faiss') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_neighbours_by_an_embeddings_endpoint(rules, tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serve(rules.respond) as served:
        knn = {"few_shot": {"retriever": "knn", "shots": 2, "max_new_tokens": 8}}
        what = {**suite(served, methods=["knn_vote", knn]), "encoder": f"{served.url}#letters", "budgets": [8, 16]}
        run = icl.run(what, tmp_path / "out")
        assert run.exit_code == 0
        assert list(run.document["manifest"]["encoders"]) == [f"{served.url}#letters"]
        assert run.document["manifest"]["machine"]["threads"] is None
        assert "not computed with a paid encoder" in run.table()
        texts = [text for batch in rules.embedded for text in batch]
        assert set(texts) <= {"dimensions", *(row["text"] for row in rows(30, 1)), *(row["text"] for row in rows(40, 2))}
        assert max(Counter(text for text in texts if text != "dimensions").values()) == 1
        answers = [p.answer for p in icl.load(run.folder / "predictors" / "knn_vote").predict([row["text"] for row in rows(40, 2)])]
        assert answers == [p.answer for p in run.predictions("knn_vote")]
