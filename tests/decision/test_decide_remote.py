"""A decision with a model behind an address: what it costs is planned, counted and limited, and the rivals are trained here."""

import dataclasses
import json
import random

import pytest
import tiny
from openai_server import serve
from rule_server import Rules

import icl
from icl.decision.contest import Contest, Request, methods_of
from icl.endpoint.wire import Patience
from icl.errors import IclError, InputError
from icl.evaluate.answer import Sides, answer
from icl.evaluate.break_even import Prices
from icl.evaluate.cells import Cell
from icl.evaluate.compare import StoredRun
from icl.model.remote.options import RemoteOptions

PRICES = {"input": 2.0, "output": 10.0, "cached": 0.5}
SPORTS, BUSINESS = ("goal", "team", "cup", "match"), ("share", "oil", "bank", "price")


def rows(n, seed):
    rng = random.Random(seed)
    for i in range(n):
        label = rng.choice(["sports", "business"])
        words = rng.sample(SPORTS if label == "sports" else BUSINESS, 3)
        yield {"text": f"{' '.join(words)} {seed} {i}", "label": label}


def topic(messages, j):
    query = messages[-1]["content"]
    if any(word in query for word in SPORTS):
        return "Sports."
    return "It is business" if any(word in query for word in BUSINESS) else f"Once upon a time, {j}"


@pytest.fixture
def lm(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(RemoteOptions, "patience", Patience(attempts=2, first_wait_s=0.01))
    with serve(Rules(topic).respond) as served:
        yield icl.load_model(f"{served.url}#rules", prices=PRICES)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny.save_bert(tmp_path_factory.mktemp("encoder") / "encoder", [*SPORTS, *BUSINESS], sentence=True)


@pytest.fixture(scope="module")
def task():
    return icl.Task.load(list(rows(40, 1)), test=list(rows(30, 2)), name="topics")


def decide(task, lm, encoder, out, **more):
    asked = {"methods": ["majority", "embedding_head", "zero_shot"], "budgets": [16], "seeds": 1, "minutes": 60, "encoder": str(encoder)}
    return icl.decide(task, lm, out=out, **{**asked, **more})


def test_costs_are_money(task, lm, encoder, tmp_path):
    made = decide(task, lm, encoder, tmp_path / "run")
    found = made.findings
    assert found.in_money
    assert made.plan.money > 0
    costs = {name: cost.item_money for name, cost in found.costs.items()}
    assert costs["majority"] is None
    spent = made.run.timing["usage"]["cost"]
    assert costs["zero_shot"] == pytest.approx(spent / 30, rel=0.2)  # besides the items, the server was asked what it can do
    (figure,) = (p.value for p in found.points if p.method == "zero_shot")
    assert figure == 1.0
    assert found.break_even.unit == "money"
    assert found.break_even.without_reuse == 0  # training here costs no money
    assert "paid per query" in made.table()
    again = decide(task, lm, encoder, tmp_path / "run")
    assert again.text == made.text
    rented = decide(task, lm, encoder, tmp_path / "run", hour_price=3.6).findings  # a thousandth for a second
    assert rented.costs["majority"].item_money == pytest.approx(rented.costs["majority"].item_s / 1000)
    assert rented.costs["zero_shot"].item_money == costs["zero_shot"]  # to wait for an answer costs nothing
    assert rented.break_even.without_reuse > 0  # training does now


def test_the_cost_limit_stops_it_and_says_how_to_go_on(task, lm, encoder, tmp_path):
    other = icl.load_model(lm.name, prices=PRICES)
    decide(task, other, encoder, tmp_path / "planned", only_plan=True)
    limit = other.usage.cost + 1e-3  # what the plan costs, and a little more than one request may
    with pytest.raises(IclError, match=r"stopped: the cost limit is reached[^\n]*\n.*ask again with out="):
        decide(task, lm, encoder, tmp_path / "run", max_cost=limit)
    assert other.usage.cost * 0.9 < lm.usage.cost <= limit


@pytest.mark.parametrize("share", [0.05, 0.8])
def test_the_plan_is_held_to_the_cost_limit(task, lm, encoder, tmp_path, share):
    """What it found out about the server, and the rows that it had answered, were paid for whatever the limit. share: of what that costs."""
    other = icl.load_model(lm.name, prices=PRICES)
    decide(task, other, encoder, tmp_path / "free", only_plan=True)
    limit = other.usage.cost * share
    with pytest.raises(IclError, match=r"before there is a plan: the cost limit is reached: [^\n]*\n.*higher max_cost"):
        decide(task, lm, encoder, tmp_path / "run", max_cost=limit, only_plan=True)
    assert lm.usage.cost <= limit


def test_vectors_for_the_plan_are_paid_from_the_same_limit(task, lm, tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_HOME", str(tmp_path / "home"))
    asked = {"methods": ["majority", {"few_shot": {"shots": 2}}], "encoder_price": 1000.0}
    letters = lm.name.replace("#rules", "#letters")
    with pytest.raises(IclError, match="before there is a plan: the cost limit is reached"):
        decide(task, lm, letters, tmp_path / "run", max_cost=0.05, **asked)
    made = decide(task, lm, letters, tmp_path / "run", max_cost=5.0, **asked)
    paid = json.loads((made.folder / "decision.json").read_text())["paid"]
    assert paid > 0
    timing = made.run.timing
    assert paid + timing["usage"]["cost"] + timing.get("embedding", {}).get("cost", 0.0) <= 5.0


def test_without_prices_a_query_takes_time_and_costs_no_money(task, lm, encoder, tmp_path):
    made = decide(task, icl.load_model(lm.name), encoder, tmp_path / "run")
    assert not made.findings.in_money
    timing = {}
    for cell in made.run.timing["cells"]:  # a second for a query of the prompt, 99 for the training
        key = Cell(*(cell[name] for name in ("model", "task", "method", "budget", "seed"))).key
        timing[key] = {**cell, "fit_s": 99.0, "predict_s": 30.0 if cell["method"] == "zero_shot" else 0.03}
    sides = Sides(frozenset({"zero_shot"}), frozenset({"embedding_head"}))
    for prices in (None, Prices(second=0.001)):
        found = answer(StoredRun.open(made.folder), timing, "accuracy", sides, margin=0.01, prices=prices)
        assert found.costs["zero_shot"].paid["input_tokens"] > 0
        assert found.break_even.without_reuse == found.break_even.with_reuse == 100  # 99 / (1 - 0.001)


def test_a_limit_without_prices_is_refused_before_anything_is_asked(task, lm, encoder, tmp_path):
    free = icl.load_model(lm.name)
    asked = free.usage.requests
    with pytest.raises(InputError, match="a cost limit needs the prices of"):
        decide(task, free, encoder, tmp_path / "run", max_cost=1.0)
    assert free.usage.requests == asked


def test_what_is_fine_tuned_starts_from_a_base_of_its_own(task):
    request = Request("default", None, 0.01, None, ({"finetune": {"kind": "lora"}}, "finetune", {"finetune": {"base": "x"}}), None, 10.0)
    entries, _ = methods_of(task, request, has_model=True, is_remote=True)
    assert [entry["finetune"].get("base") for entry in entries] == ["smollm2", "smollm2", "x"]
    entries, _ = methods_of(task, request, has_model=True, is_remote=False)
    assert entries[1] == {"finetune": {"kind": "lora"}}


def test_with_an_encoder_behind_an_address_the_rivals_are_trained_from_one_that_is_here(task):
    request = Request("default", None, 0.01, None, None, None, 10.0, encoder="http://localhost:1/v1#letters")
    entries, optional = methods_of(task, request, has_model=False, is_remote=False)
    assert [entry for entry in entries if not isinstance(entry, str)] == [
        {"contrastive": {"encoder": "minilm"}},
        {"classifier": {"base": "minilm"}},
    ]
    assert optional == ["contrastive", "classifier"]
    entries, _ = methods_of(task, dataclasses.replace(request, encoder="here"), has_model=False, is_remote=False)
    assert {"classifier": {"base": "here"}} in entries
    assert "contrastive" in entries


def test_no_draw_beyond_the_plan_is_paid_for(task, lm, tiny_lm):
    """What the plan says it costs is what it costs at most; on this machine, time that is left is filled."""
    request = Request("default", None, 0.01, None, None, None, 10.0)
    contests = [Contest.of(task, request, model, ()) for model in (lm, tiny_lm)]
    assert [contest.most_draws(2) for contest in contests] == [2, 5]
    named = [Contest.of(task, dataclasses.replace(request, **more), tiny_lm, ()) for more in ({"seeds": 2}, {"until_decided": True})]
    assert [contest.most_draws(2) for contest in named] == [2, 2]


@pytest.fixture(scope="module")
def tiny_lm(tmp_path_factory):
    return icl.load_model(str(tiny.save(tmp_path_factory.mktemp("model") / "tiny", "llama")))
