"""The unbiased estimator against its definition, programs against their tests, and HumanEval's own solutions."""

import itertools
import json
import math

import numpy as np
import pytest
import tiny

import icl
from icl.errors import InputError
from icl.evaluate import sandbox
from icl.evaluate.compare import StoredRun
from icl.evaluate.metrics.pass_at_k import code_of, estimate, joined
from icl.plugins import Context, build
from icl.suite import write_page
from icl.values import Example, Prediction

needs_sandbox = pytest.mark.skipif(sandbox._missing() is not None, reason=f"no sandbox here: {sandbox._missing()}")


def chen(n, c, k):
    """As printed in the paper, figure 3."""
    if n - c < k:
        return 1.0
    return 1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1))


def test_the_estimator_is_the_papers_and_its_definition():
    cases = [(n, c, k) for n in range(1, 21) for c in range(n + 1) for k in range(1, n + 1)]
    assert len(cases) > 1000
    for n, c, k in cases:
        found = estimate([True] * c + [False] * (n - c), k)
        assert found == pytest.approx(chen(n, c, k), abs=1e-12)
        assert found == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), abs=1e-12)
    drawn = list(itertools.combinations([True, False, False, True, False], 3))
    assert estimate([True, False, False, True, False], 3) == pytest.approx(sum(any(d) for d in drawn) / len(drawn))
    assert math.isnan(estimate([True], 2))


def test_the_program_in_what_a_model_wrote():
    assert code_of("Sure:\n```python\n    return x\n```\nDone") == "    return x"
    assert code_of("    return x\n\n") == "    return x"
    assert code_of("<think>hm</think>```\nx = 1") == "x = 1"


def test_a_whole_definition_replaces_the_signature_it_was_given():
    for before in ("def f(x):\n", 'import math\n\ndef f(x):\n    """Doc."""\n'):
        assert joined(before, "    return x").endswith("\n    return x")
        compile(joined(before, "def f(x):\n    return x"), "x", "exec")
    assert joined("import math\n", "x = 1") == "import math\nx = 1"
    assert joined("", "x = 1") == "x = 1"


def test_it_has_to_be_asked_for(monkeypatch):
    with pytest.raises(InputError, match="was not asked for"):
        build("metric", "pass_at_k", Context())
    monkeypatch.setattr(sandbox, "_missing", lambda: "nothing goes")
    with pytest.raises(InputError, match="nothing goes"):
        build("metric", {"pass_at_k": {"run": True}}, Context())


def test_a_suite_is_refused_before_the_model_is_loaded(tmp_path):
    rows = [{"q": f"q{i}", "t": "assert f() == 1", "a": "def f(): return 1"} for i in range(4)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = {
        "name": "t",
        "train": str(tmp_path / "r.jsonl"),
        "test": str(tmp_path / "r.jsonl"),
        "kind": "answer",
        "input": ["q", "t"],
        "label": "a",
    }
    suite = {"models": ["/no/such/model.gguf"], "tasks": [task], "methods": ["nearest_answer"], "metrics": ["pass_at_k"]}
    with pytest.raises(InputError) as error:
        icl.run({**suite, "models": []}, out=tmp_path / "run")
    assert "was not asked for" in str(error.value)
    assert not (tmp_path / "run" / "results.json").exists()


@needs_sandbox
def test_samples_are_run_against_the_tests():
    tests = "assert add(1, 2) == 3\nassert add(0, 0) == 0"
    fields = {"prompt": "def add(a, b):\n", "tests": tests, "entry_point": "add"}
    example = Example("0-0", fields, "    return a + b")
    metric = build("metric", {"pass_at_k": {"run": True, "k": 2, "before": "prompt", "call": "assert callable({entry_point})"}}, Context())
    samples = ["    return a + b", "    return a - b", "    return a * b", "```python\ndef add(x, y):\n    return y + x\n```"]
    predictions = [
        Prediction("0-0", "x", text=json.dumps(samples)),
        Prediction("0-0", "x", text=samples[0]),
        Prediction("0-0", None, why="?"),
    ]
    found = metric(predictions, [example] * 3)
    assert found[0] == pytest.approx(1 - math.comb(2, 2) / math.comb(4, 2))
    assert np.isnan(found[1:]).all()  # one text is not two, and what was not read is not wrong
    one = build("metric", {"pass_at_k": {"run": True, "before": "prompt", "seconds": 4}}, Context())
    cases = ["    return a + b", "    while True: pass", "    raise SystemExit(0)", "    return 3"]
    values = one([Prediction("0-0", case.strip(), text=case) for case in cases], [example] * 4)
    assert values.tolist() == [1, 0, 0, 0]  # one that leaves before its tests does not pass them
    assert one([Prediction("0-0", "    return a + b")], [example]).tolist() == [1]  # a method that does not write
    untested = Example("1-0", {"prompt": "def add(a, b):\n", "tests": ""}, "    return a + b")
    assert np.isnan(one([Prediction("1-0", "    return a + b")], [untested])).all()


@needs_sandbox
@pytest.mark.slow
def test_humanevals_solutions_pass_and_empty_ones_do_not(shared):
    rows = [json.loads(line) for line in (shared / "data" / "humaneval" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    examples = [
        Example(f"{i}-0", {k: row[k] for k in ("prompt", "tests", "entry_point")}, row["canonical_solution"]) for i, row in enumerate(rows)
    ]
    metric = build("metric", {"pass_at_k": {"run": True, "before": "prompt", "call": "check({entry_point})", "seconds": 30}}, Context())
    values = metric([Prediction(e.uid, e.target, text=e.target) for e in examples], examples)
    assert (len(values), values.sum()) == (164, 164)
    assert metric([Prediction(e.uid, "", text="") for e in examples], examples).sum() == 0


@needs_sandbox
@pytest.mark.slow
def test_mbpps_solutions_pass(shared):
    rows = [json.loads(line) for line in (shared / "data" / "mbpp" / "test.jsonl").read_text(encoding="utf-8").splitlines()][:100]
    examples = [Example(f"{i}-0", {"tests": row["tests"]}, row["canonical_solution"]) for i, row in enumerate(rows)]
    metric = build("metric", {"pass_at_k": {"run": True, "seconds": 30}}, Context())
    assert metric([Prediction(e.uid, e.target) for e in examples], examples).sum() == len(rows)


@needs_sandbox
def test_a_program_is_run_once(tmp_path, monkeypatch):
    """Programs that pass by chance: run again, the ten of them would hardly all end as before. Whoever judges the run from its folder runs none."""
    program = "import os\nlucky = os.urandom(1)[0] % 2  # {}"
    rows = [{"question": f"q{n}", "tests": "assert lucky", "answer": program.format(n)} for n in range(20)]
    task = {"name": "t", "train": rows[:10], "test": rows[10:], "kind": "answer", "input": ["question", "tests"], "label": "answer"}
    suite = {"tasks": [task], "methods": ["nearest_answer"], "metrics": [{"pass_at_k": {"run": True}}], "budgets": [10], "seeds": 2}
    run = icl.run({**suite, "encoder": str(tiny.save_bert(tmp_path / "encoder", ["q"], sentence=True))}, tmp_path / "run")
    stored = StoredRun.open(run.folder)
    monkeypatch.setattr("icl.evaluate.sandbox.run_many", lambda programs, *_, **__: pytest.fail("run again") if programs else [])
    metric = stored.metrics("t", ())["pass_at_k"]
    for cell in stored.cells:
        (record,) = [r for r in run.document["records"] if r["seed"] == cell.seed]
        assert metric(stored.predictions(cell), stored.tests["t"]).mean() == record["value"]
    page = run.folder / "report.html"
    page.unlink()
    write_page(run)
    assert "pass_at_k" in page.read_text()
