"""An encoder behind an address: its tokens and money are counted, limited, and part of what a method costs."""

import pytest
from openai_server import serve
from rule_server import Rules

import icl
from icl.endpoint.meter import estimated_tokens
from icl.errors import InputError
from icl.report.decision import decision_table

ROWS = [{"text": f"{'apple pear plum' if n % 2 else 'iron zinc lead'} number {n}", "label": "ab"[n % 2]} for n in range(80)]
TASK = {"name": "t", "train": ROWS[:40], "test": ROWS[40:]}
PRICE = 1000.0


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def encoder():
    with serve(Rules(lambda messages, j: "").respond) as served:
        yield f"{served.url}#letters"


def suite(encoder, **more):
    return {
        "models": [],
        "tasks": [TASK],
        "methods": ["majority", "knn_vote", "embedding_head"],
        "budgets": [20],
        "encoder": encoder,
        **more,
    }


def test_what_was_embedded_is_counted_where_it_was_paid(encoder, tmp_path):
    run = icl.run(suite(encoder, encoder_price=PRICE), tmp_path / "run")
    cells = {cell["method"]: cell.get("embedding", {}) for cell in run.timing["cells"]}
    assert cells["majority"].get("wanted_tokens", 0) == 0
    assert cells["knn_vote"]["input_tokens"] > 0
    assert cells["embedding_head"].get("input_tokens", 0) == 0  # the vectors were there already
    assert cells["embedding_head"]["wanted_tokens"] > 0
    total = run.timing["embedding"]
    assert total["cost"] == pytest.approx(total["input_tokens"] * PRICE / 1e6)
    assert f"encoder: {total['requests']} requests, {total['input_tokens']:,} tokens read, {total['cost']:,.4f} paid" in run.table()
    assert icl.run(suite(encoder), tmp_path / "again").timing.get("embedding", {}).get("cost") is None


def test_the_limit_holds_for_vectors_too(encoder, tmp_path):
    with pytest.raises(InputError, match="needs the price of the encoder"):
        icl.run(suite(encoder), tmp_path / "none", max_cost=1.0)
    asked = suite(encoder, encoder_price=PRICE)
    stopped = icl.run(asked, tmp_path / "run", max_cost=0.05)
    assert "the cost limit is reached" in stopped.stopped
    assert (stopped.timing.get("embedding") or {"cost": 0.0})["cost"] <= 0.05
    whole = icl.run(asked, tmp_path / "run", max_cost=10.0)
    assert whole.passed
    assert whole.timing["embedding"]["cost"] <= 10.0


def test_the_limit_leaves_the_label_bias_as_it_is(encoder, tmp_path):
    asked = suite(encoder, encoder_price=PRICE, methods=["embedding_head"], tasks=[{**TASK, "label_bias": True}])
    limited, free = icl.run(asked, tmp_path / "limited", max_cost=100.0), icl.run(asked, tmp_path / "free", cache=False)
    (found,), (same,) = ([c["label_bias"] for c in run.document["cells"]] for run in (limited, free))
    assert found is not None
    assert found == same


def test_a_decision_compares_what_the_vector_of_a_query_costs_whoever_asked_first(encoder, tmp_path):
    task = icl.Task.load(ROWS[:40], test=ROWS[40:], name="t")
    asked = {"methods": ["majority", "knn_vote", "embedding_head"], "budgets": [20], "seeds": 1, "minutes": 60, "encoder": encoder}
    found = icl.decide(task, None, out=tmp_path / "run", encoder_price=PRICE, **asked).findings
    vector = sum(estimated_tokens(row["text"]) for row in ROWS[40:]) / 40 * PRICE / 1e6
    assert found.in_money
    assert found.costs["majority"].item_money is None
    assert found.costs["knn_vote"].item_money == pytest.approx(vector)
    assert found.costs["embedding_head"].item_money == pytest.approx(vector)
    assert f"{vector:.6f}" in decision_table(found)
