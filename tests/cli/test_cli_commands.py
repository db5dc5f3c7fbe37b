"""The commands end to end on small files: run, prompt, index, export, predict, validate."""

import csv
import json
import sys

import pytest

import icl

SUITE = "models: []\ntasks: [{name: food, train: reviews.csv}]\nmethods: [majority, {name: mine, majority: {}}]\nbudgets: [8, all]\n"


@pytest.fixture
def suite(reviews, tmp_path):
    path = tmp_path / "food.yaml"
    path.write_text(SUITE)
    return path


# ── run, export, predict ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_run_prints_the_table_and_keeps_the_results(icl_cli, suite, tmp_path):
    answer = icl_cli("run", "food.yaml", "--out", "r")
    assert answer.code == 0, answer.err
    assert "majority" in answer.out
    assert answer.err.rstrip().endswith("Results: r")
    records = json.loads((tmp_path / "r" / "results.json").read_text())["records"]
    assert {r["budget"] for r in records} == {8, "all"}
    again = icl_cli("run", "food.yaml", "--out", "r", "--json")
    assert again.code == 0
    assert json.loads(again.out) == records


def test_run_changes_values_of_the_suite(icl_cli, suite):
    answer = icl_cli(
        "run", "food.yaml", "--out", "r", "--json", "--limit", "5", "--seed", "3", "--set", "budgets=[4]", "--set", "metrics=[accuracy]"
    )
    assert answer.code == 0, answer.err
    records = json.loads(answer.out)
    assert {r["metric"] for r in records} == {"accuracy"}
    assert {r["budget"] for r in records} == {4}
    assert {r["seed"] for r in records} <= {3, None}
    assert all(r["n_scored"] == 5 for r in records)


def test_a_missed_threshold_is_3(icl_cli, suite):
    answer = icl_cli("run", "food.yaml", "--out", "r", "--set", "thresholds={majority: {accuracy: 0.99}}")
    assert answer.code == 3, answer.err
    assert "0.99" in answer.out or "99" in answer.out


def test_an_interrupted_run_is_130_and_says_how_to_go_on(icl_cli, suite, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("icl.suite.run_cells", interrupt)
        answer = icl_cli("run", "food.yaml", "--out", "r")
    assert answer.code == 130
    assert "icl run food.yaml --out r" in answer.out + answer.err
    assert not (tmp_path / "r" / "results.json").exists()
    assert icl_cli("run", "food.yaml", "--out", "r").code == 0


def test_an_interruption_before_the_first_prediction_says_how_to_begin_again(icl_cli, suite, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("icl.suite.prepare", interrupt)
    words = ["run", "food.yaml", "--out", "r", "--max-cost", "1.5", "--no-cache"]
    answer = icl_cli(*words)
    assert answer.code == 130
    assert f"before the first prediction; begin again with: icl {' '.join(words)}" in answer.err
    assert not (tmp_path / "r").exists()


def test_plan_computes_nothing(icl_cli, suite, tmp_path):
    answer = icl_cli("run", "food.yaml", "--plan")
    assert answer.code == 0, answer.err
    assert "majority" in answer.out
    assert not (tmp_path / "runs").exists()
    cells = json.loads(icl_cli("run", "food.yaml", "--plan", "--json").out)["cells"]
    assert len(cells) == 4


@pytest.mark.parametrize("given", ["budgets", "=1", "budgets=[1", "budgts=[1]", "methods.9.x=1"])
def test_a_wrong_set_is_2(icl_cli, suite, given):
    answer = icl_cli("run", "food.yaml", "--set", given)
    assert answer.code == 2
    assert "Traceback" not in answer.err


def test_export_and_predict(icl_cli, suite, reviews, tmp_path):
    assert icl_cli("run", "food.yaml", "--out", "r").code == 0
    assert icl_cli("export", "r", "--to", "shipped", "--method", "majority").out == "shipped\n"
    rows = list(csv.DictReader(reviews.read_text(encoding="utf-8").splitlines()))
    streamed = icl_cli("predict", "shipped", reviews)
    assert streamed.code == 0, streamed.err
    lines = [json.loads(line) for line in streamed.out.splitlines()]
    assert [line["line"] for line in lines] == list(range(2, len(rows) + 2))
    assert {line["answer"] for line in lines} == {icl.load("shipped").predict(["x"])[0].answer}
    for name in ("a.csv", "a.jsonl"):
        assert icl_cli("predict", "shipped", reviews, "--out", name).out == ""
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == lines
    table = list(csv.DictReader((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()))
    assert [(int(r["line"]), r["answer"]) for r in table] == [(line["line"], line["answer"]) for line in lines]
    assert float(table[0]["probability"]) == pytest.approx(lines[0]["probabilities"][lines[0]["answer"]])


def test_predict_finds_the_column_or_asks_for_it(icl_cli, suite, tmp_path):
    assert icl_cli("run", "food.yaml", "--out", "r").code == 0
    assert icl_cli("export", "r", "--to", "shipped", "--method", "majority").code == 0
    (tmp_path / "new.jsonl").write_text('{"body": "good"}\n{"other": "?"}\n{"body": null}\n')
    refused = icl_cli("predict", "shipped", "new.jsonl", "--out", "a.jsonl")
    assert refused.code == 2
    assert "new.jsonl:1: text: there is no column 'text'" in refused.err
    assert "--input text=COLUMN" in refused.err
    assert not (tmp_path / "a.jsonl").exists()
    partly = icl_cli("predict", "shipped", "new.jsonl", "--input", "text=body")
    assert partly.code == 4
    first, second, third = map(json.loads, partly.out.splitlines())
    assert first["answer"] is not None
    assert (second["answer"], second["why"]) == (None, "the row has no 'body'")
    assert third["line"] == 3
    assert "2 of them could not be" in partly.err
    assert icl_cli("predict", "shipped", "new.jsonl", "--out", "a.txt").code == 2
    for nowhere in ("new.jsonl/a.jsonl", "/proc/a.jsonl", "/proc/nowhere/a.jsonl", f"{'x' * 300}.jsonl"):
        said = icl_cli("predict", "shipped", "new.jsonl", "--input", "text=body", "--out", nowhere)
        assert said.code == 1
        assert "name a" in said.err  # another place, or a folder
        assert "fault of icl" not in said.err


# ── prompt ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_prompt_is_byte_for_byte_what_the_api_gives(icl_cli, reviews, tmp_path):
    (tmp_path / "t.jinja").write_text(
        "---\ninput: [text]\n---\n{% block example %}Gästebuch:  {{ text }}\nUrteil:{% endblock %}{% block answer %} {{ answer }}{% endblock %}\n",
        encoding="utf-8",
    )
    args = ("prompt", "--template", "t.jinja", "--pool", reviews, "--shots", "2", "--retriever", "bm25", "cold soup")
    answer = icl_cli(*args)
    assert answer.code == 0, answer.err
    task = icl.Task.load(reviews, holdout=0)
    prompt = icl.FewShot(None, template="t.jinja", retriever="bm25", shots=2).fit(task.train, labels=task.labels).prompt("cold soup")
    assert answer.out == prompt.text
    assert answer.out.endswith("\n\nGästebuch:  cold soup\nUrteil:")
    assert answer.out.count("Urteil: negative") == 2
    for demonstration in prompt.demonstrations:
        assert demonstration.uid in answer.err
    record = json.loads(icl_cli(*args, "--json").out)
    assert record["text"] == prompt.text
    assert record["messages"] == list(prompt.messages)
    assert [d["uid"] for d in record["demonstrations"]] == [d.uid for d in prompt.demonstrations]
    assert record["n_tokens"] is None


def test_prompt_needs_no_language_model(icl_cli, reviews, monkeypatch):
    monkeypatch.delitem(sys.modules, "icl.model", raising=False)
    monkeypatch.setitem(sys.modules, "icl.model.torch_lm", None)  # importing it would fail
    assert icl_cli("prompt", "--pool", reviews, "--retriever", "balanced", "--shots", "4", "fine").code == 0


def test_prompt_tells_what_each_stage_did(icl_cli, reviews):
    stages = "[{label: {never: [negative]}}, {bm25: {n: 9}}, {random: {per_query: true}}]"
    asked = ("prompt", "--pool", reviews, "--retriever", stages, "--shots", "3", "the pasta")
    answer = icl_cli(*asked, "--trace")
    assert answer.code == 0, answer.err
    assert "  label: 48 -> 24, 24 label negative\n  bm25: 24 -> 9, 15 not chosen\n  random: 9 -> 3, 6 not chosen" in answer.err
    assert "  pack: 0 dropped to fit; 0 of 7 messages are shared" in answer.err
    assert "stages:" not in icl_cli(*asked).err
    steps = json.loads(icl_cli(*asked, "--json").out)["steps"]
    assert [(step["stage"], step["n_in"], step["n_out"]) for step in steps] == [("label", 48, 24), ("bm25", 24, 9), ("random", 9, 3)]
    assert steps[0]["dropped"] == {"label negative": 24}
    fixed = json.loads(icl_cli("prompt", "--pool", reviews, "--retriever", "balanced", "--shots", "4", "fine", "--json").out)
    assert fixed["cache_break"] == len(fixed["messages"]) - 1
    assert all(d["shared"] for d in fixed["demonstrations"])


def test_prompt_with_a_dropped_in_selector(icl_cli, reviews, tmp_path):
    (tmp_path / "plug" / "selectors").mkdir(parents=True)
    (tmp_path / "plug" / "selectors" / "last_rows.py").write_text(
        '"""The last rows."""\nfrom icl import Hit\n\n\ndef build(settings, context):\n'
        "    return lambda queries, k, candidates: [[Hit(e.uid, 0.0, e) for e in list(context.pool)[-k:]] for _ in queries]\n"
    )
    answer = icl_cli("prompt", "--pool", reviews, "--plugins", "plug", "--retriever", "last_rows", "--shots", "2", "fine")
    assert answer.code == 0, answer.err
    assert answer.out.count("Visit number 5.") == 2
    unknown = icl_cli("prompt", "--pool", reviews, "--retriever", "last_rows", "fine")
    assert unknown.code == 2
    assert "last_rows" in unknown.err


@pytest.mark.smollm2
def test_prompt_of_a_suite_is_what_the_run_scores(icl_cli, reviews, tmp_path):
    (tmp_path / "s.yaml").write_text(
        "tasks: [{name: food, train: reviews.csv, template: sentiment, limit: 3}]\n"
        "methods: [zero_shot, {few_shot: {retriever: random, shots: 3}}]\nbudgets: [8]\n"
    )
    shown = icl_cli("prompt", "s.yaml", "--item", "1")
    assert shown.code == 0, shown.err
    assert shown.out.count("Visit number") == 4
    zero = icl_cli("prompt", "s.yaml", "--item", "1", "--method", "zero_shot", "--json")
    assert json.loads(zero.out)["demonstrations"] == []
    run = icl.run("s.yaml", out="r")
    predictions = run.predictions(method="few_shot")
    tokens = json.loads(icl_cli("prompt", "s.yaml", "--item", "1", "--json").out)
    assert tokens["n_tokens"] == predictions[1].n_tokens
    assert [d["uid"] for d in tokens["demonstrations"]] == list(predictions[1].demonstrations)
    for wrong, says in (
        (("--item", "999"), "3 test items"),
        (("--item", "0", "--method", "few_sht"), "few_shot"),
        (("--item", "0", "--task", "fod"), "food"),
    ):
        answer = icl_cli("prompt", "s.yaml", *wrong)
        assert answer.code == 2
        assert says in answer.err


# ── index, validate, pull ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.minilm
def test_an_approximate_index_says_what_it_finds(icl_cli, reviews):
    built = icl_cli("index", "build", reviews, "--to", "idx", "--kind", "hnsw")
    facts = json.loads(icl_cli("index", "info", "idx", "--json").out)
    assert facts["search"] == "hnsw"
    assert facts["recall at 8"] >= 0.95
    told = f"hnsw finds {facts['recall at 8']:.1%} of the 8 nearest rows, measured with rows of this index"
    assert told in built.err
    assert icl_cli("index", "verify", "idx").out == f"idx: 48 rows, whole\n{told}\n"
    refused = icl_cli("index", "build", reviews, "--to", "idx2", "--kind", "hsnw")
    assert refused.code == 2
    assert "Did you mean 'hnsw'" in refused.err


@pytest.mark.minilm
def test_index_on_disk(icl_cli, reviews):
    built = icl_cli("index", "build", reviews, "--to", "idx")
    assert built.out == "idx\n"
    assert "48 rows indexed" in built.err
    facts = json.loads(icl_cli("index", "info", "idx", "--json").out)
    assert (facts["rows"], facts["dimensions"], facts["encoder"]) == (48, 384, "minilm")
    assert icl_cli("index", "verify", "idx").out == "idx: 48 rows, whole\n"
    hits = json.loads(icl_cli("index", "search", "idx", "noodles", "-k", "3", "--json").out)
    assert len(hits) == 3
    assert hits == sorted(hits, key=lambda h: -h["score"])
    assert "pasta" in hits[0]["fields"]["text"]
    assert (facts["search"], facts["recall at 8"]) == ("exact", 1.0)
    lines = icl_cli("index", "search", "idx", "noodles", "-k", "3").out.splitlines()
    assert [line.split()[2] for line in lines] == [h["uid"] for h in hits]
    prompt = icl_cli("prompt", "--pool", "idx", "--shots", "1", "noodles")
    assert prompt.code == 0, prompt.err
    assert "pasta" in prompt.out


@pytest.mark.minilm
def test_validate_prints_the_data_report(icl_cli, reviews):
    answer = icl_cli("validate", reviews)
    assert answer.code == 0, answer.err
    assert "48 read, 0 rejected" in answer.out
    assert answer.out.rstrip().endswith("reviews.csv: fine")


@pytest.mark.smollm2
def test_validate_with_a_tokenizer_finds_labels_that_begin_alike(icl_cli, tmp_path):
    (tmp_path / "t.jinja").write_text(
        "---\ninput: [text]\nlabels: {a: [good], b: [good bye]}\n---\n"
        "{% block example %}Text: {{ text }}\nLabel:{% endblock %}{% block answer %} {{ answer }}{% endblock %}\n"
    )
    assert icl_cli("validate", "t.jinja").code == 0
    answer = icl_cli("validate", "t.jinja", "--model", "smollm2")
    assert answer.code == 2
    assert "t.jinja" in answer.err


def test_pull_of_an_unknown_name(icl_cli):
    answer = icl_cli("pull", "smollm")
    assert answer.code == 2
    assert "Did you mean 'smollm2'?" in answer.err


# ── compare ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_compare_prints_a_table_or_records(icl_cli, suite):
    assert icl_cli("run", "food.yaml", "--out", "r").code == 0
    answer = icl_cli("compare", "r", "majority", "mine")
    assert answer.code == 0, answer.err
    assert "accuracy in points: a = majority against b = mine" in answer.out
    assert "not settled" in answer.out
    records = json.loads(icl_cli("compare", "r", "majority", "mine", "--json", "--metric", "accuracy").out)
    assert [(r["budget"], r["difference"], r["p"]) for r in records] == [(8, 0.0, 1.0), ("all", 0.0, 1.0)]
    wrong = icl_cli("compare", "r", "majority", "mien")
    assert (wrong.code, wrong.out) == (2, "")
    assert "Did you mean 'mine'" in wrong.err
    assert icl_cli("compare", "nowhere", "a", "b").code == 2
    assert icl_cli("compare", "food.yaml", "x", "--leave-out", "mine").code == 2
    assert "nothing that could be left out" in icl_cli("compare", "food.yaml", "--leave-out", "mine").err
