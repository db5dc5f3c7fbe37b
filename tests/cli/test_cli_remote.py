"""The command line with a model behind an address: planning, limits, retries, shipping."""

import json

import pytest
from openai_server import serve
from rule_server import Rules

from icl.endpoint.wire import Patience
from icl.model.remote.options import RemoteOptions

PRICES = "{input: 1.0, output: 10.0}"


def feeling(messages, j):
    """A judge who calls everything with a good word positive; what is no item gets a text of its own."""
    query = messages[-1]["content"]
    if "Label:" not in query:
        return f"Once upon a time, {j}"
    good = ("lovely", "worth", "wonderful", "Best")
    return " Positive" if any(word in query for word in good) else " negative."


@pytest.fixture
def rules():
    return Rules(feeling)


@pytest.fixture
def suite(rules, reviews, tmp_path, monkeypatch):
    monkeypatch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})
    monkeypatch.setattr(RemoteOptions, "patience", Patience(attempts=1))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serve(rules.respond) as served:
        path = tmp_path / "suite.yaml"
        path.write_text(
            f"models: [{{model: '{served.url}#rules', prices: {PRICES}}}]\n"
            "tasks: [{name: reviews, train: reviews.csv}]\n"
            "methods: [{zero_shot: {max_new_tokens: 8}}, {few_shot: {retriever: random, shots: 2, max_new_tokens: 8}}]\nbudgets: [8]\n"
        )
        yield path


def n_items(rules):
    return sum("Label:" in messages[-1]["content"] for messages in rules.chats)


def test_plan_says_what_it_costs(icl_cli, suite, rules):
    done = icl_cli("run", suite, "--plan")
    assert done.code == 0
    assert "cost at most" in done.out
    assert "to pay" in done.out
    assert n_items(rules) == 0
    plan = json.loads(icl_cli("run", suite, "--plan", "--json").out)
    assert plan["cost"] == pytest.approx(sum(cell["cost"] for cell in plan["cells"]))
    assert plan["tokens_per_s"] is None


def test_a_cost_limit_stops_cleanly(icl_cli, suite, rules, tmp_path):
    limited = icl_cli("run", suite, "--out", tmp_path / "out", "--max-cost", "0.003")
    assert limited.code == 1
    assert "stopped: the cost limit is reached" in limited.out
    assert f"go on with: icl run {suite} --out {tmp_path / 'out'} --max-cost 0.006" in limited.out  # the same one would stop again
    assert "Traceback" not in limited.err
    before = n_items(rules)
    done = icl_cli("run", suite, "--out", tmp_path / "out")
    assert done.code == 0
    assert 0 < n_items(rules) - before < n_items(rules)
    assert "paid" in done.out
    assert icl_cli("run", suite, "--max-cost", "-1").code == 2


def test_failed_items_are_retried_when_asked(icl_cli, suite, rules, tmp_path):
    rules.fails = lambda messages: 503 if "number 3." in messages[-1]["content"] else None
    first = icl_cli("run", suite, "--out", tmp_path / "out")
    assert first.code == 4
    assert f"icl run {suite} --out {tmp_path / 'out'} --retry-failed" in first.out
    rules.fails = lambda messages: None
    assert icl_cli("run", suite, "--out", tmp_path / "out").code == 4
    assert icl_cli("run", suite, "--out", tmp_path / "out", "--retry-failed").code == 0
    nowhere = icl_cli("run", suite, "--retry-failed")
    assert nowhere.code == 2
    assert "--out" in nowhere.err


def test_the_exact_prompt_and_a_shipped_predictor(icl_cli, suite, rules, tmp_path, monkeypatch):
    shown = icl_cli("prompt", suite, "--item", "0", "--json")
    assert shown.code == 0
    prompt = json.loads(shown.out)
    assert prompt["format"] == "chat"
    assert icl_cli("run", suite, "--out", tmp_path / "out").code == 0
    assert prompt["messages"] in rules.chats
    assert icl_cli("export", tmp_path / "out", "--to", tmp_path / "shipped", "--method", "few_shot").code == 0
    (tmp_path / "new.csv").write_text("text\nA lovely place\nToo slow\nBroken\n")
    rules.fails = lambda messages: 503 if "Broken" in messages[-1]["content"] else None
    done = icl_cli("predict", tmp_path / "shipped", tmp_path / "new.csv")
    assert done.code == 4
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["answer"] for line in lines] == ["positive", "negative", None]
    assert "HTTP 503" in lines[2]["why"]
    assert "probabilities" not in lines[0]
