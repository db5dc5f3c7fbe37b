"""Suite files: what is read, and that everything wrong is said at once, with its place and what to do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from icl.errors import InputError
from icl.evaluate import list_suites, load_suite, suite_schema
from icl.evaluate.cells import Cell, cells, predictor_path
from icl.files import packaged


def problems(source, **options):
    with pytest.raises(InputError) as caught:
        load_suite(source, **options)
    return caught.value.problems


def change(folder: Path, old: str, new: str) -> Path:
    path = folder / "suite.yaml"
    text = path.read_text(encoding="utf-8").replace("hashed", "majority", 1) if old != "hashed" else path.read_text(encoding="utf-8")
    text = text.replace("  - majority\n  - majority\n", "  - majority\n")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def test_a_suite_is_read(folder):
    loaded = load_suite(folder / "suite.yaml", plugins=[folder / "plugins"])
    assert [m.name for m in loaded.methods] == ["majority", "hashed"]
    assert loaded.suite.budgets == [10, "all"]
    assert loaded.name == "suite"


def test_what_paraphrases_lies_beside_the_suite(folder):
    (folder / "lm").mkdir()
    change(folder, "  - majority", "  - {classifier: {augment: {drop: 0.1, paraphrase: {model: lm, n: 3}}}}")
    loaded = load_suite(folder / "suite.yaml", plugins=[folder / "plugins"])
    found = loaded.resolved(loaded.methods[0].spec).settings["augment"]
    assert found == {"drop": 0.1, "paraphrase": {"model": str(loaded.folder / "lm"), "n": 3}}


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "words"),
    [
        ("seeds: 2", "seds: 2", 7, "seds", "Did you mean 'seeds'"),
        ("label: colour", "lable: colour", 3, "tasks.0.lable", "Did you mean 'label'"),
        ("label: colour", "label: color", 3, "tasks.0.label", "'train.csv' has no column 'color'"),
        ("test.csv", "tets.csv", 3, "tasks.0.test", "Did you mean 'test.csv'"),
        ("label: colour", "label: colour, template: sentimnt", 3, "tasks.0.template", "Did you mean 'sentiment'"),
        ("label: colour", "label: colour, holdout: 2", 3, "tasks.0.holdout", "less than 1"),
        ("  - majority", "  - majorty", 5, "methods.0", "Did you mean 'majority'"),
        ("  - majority", "  - knn_vote: {k: 0}", 5, "methods.0.knn_vote.k", "greater than or equal to 1"),
        ("  - majority", "  - knn_vote:\n      kk: 3", 6, "methods.0.knn_vote.kk", "has no option 'kk'"),
        (
            "  - majority",
            "  - {few_shot: {retriever: [random, {knnn: {}}]}}",
            5,
            "methods.0.few_shot.retriever.1.knnn",
            "Did you mean 'knn'",
        ),
        ("  - majority", "  - {few_shot: {retriever: {random: {x: 1}}}}", 5, "methods.0.few_shot.retriever.random.x", "no option 'x'"),
        ("  - majority", "  - {few_shot: {order: similar_lst}}", 5, "methods.0.few_shot.order", "Did you mean 'similar_last'"),
        ("  - majority", "  - {few_shot: {template: sentimnt}}", 5, "methods.0.few_shot.template", "Did you mean 'sentiment'"),
        ("  - majority", "  - {few_shot: {readout: per_chr}}", 5, "methods.0.few_shot.readout", "per_char"),
        ("  - majority", "  - majority\n  - majority", 6, "methods.1", "two methods are called 'majority'"),
        ("  - majority", "  - {majority: {}, tasks: [colors]}", 5, "methods.0.tasks", "Did you mean 'colours'"),
        ("  - majority", "  - {majority: {}, tasks: colours}", 5, "methods.0.tasks", "a list of task names"),
        ("  - majority", "  - {few_shot: {abstain: {acuracy: 1}}}", 5, "methods.0.few_shot.abstain.acuracy", "Did you mean 'accuracy'"),
        ("  - majority", "  - {few_shot: {abstain: 2}}", 5, "methods.0.few_shot.abstain", "less than or equal to 1"),
        ("  - majority", "  - {few_shot: {windows: {m: 1}}}", 5, "methods.0.few_shot.windows.m", "'windows' has no option 'm'"),
        ("  - majority", "  - {few_shot: {shots: x, readout: [sum, pni]}}", 5, "methods.0.few_shot.readout", "pmi"),
        ("  - majority", "  - {saved: {path: nowhere}}", 5, "methods.0.saved.path", "no folder 'nowhere'"),
        ("[10, all]", "[10, 0]", 6, "budgets.1", "greater than or equal to 1"),
        ("[10, all]", "[10, al]", 6, "budgets.1", "'all'"),
        ("[10, all]", "[10, 10]", 6, "budgets", "twice"),
        ("seeds: 2", "seeds: {draw: 300, order: 20}", 7, "seeds", "6,000 runs of a method"),
        ("ece]", "eec]", 8, "metrics.2", "Did you mean 'ece'"),
        ("[accuracy, macro_f1, ece]", "[token_f1]", 8, "metrics", "no metric here judges task 'colours'"),
        ("ece]", "token_f1]", 8, "metrics.2", "judges no task"),
        ("seeds: 2", "thresholds: {majorty: {accuracy: 0.5}}", 7, "thresholds.majorty", "Did you mean 'majority'"),
        ("seeds: 2", "thresholds: {majority: {acuracy: 0.5}}", 7, "thresholds.majority.acuracy", "Did you mean 'accuracy'"),
        ("seeds: 2", "models: ['https://host/v1']", 7, "models.0", "names no model"),
        ("seeds: 2", "models: [smolm2]", 7, "models.0", "Did you mean 'smollm2'"),
        ("seeds: 2", "models: [{model: ./nowhere}]", 7, "models.0.model", "no model folder or file"),
        (
            "seeds: 2",
            "models: [{model: 'https://host/v1#m', personal_data: 'presidio:en_core_web_x'}]",
            7,
            "models.0.personal_data",
            "spacy download",
        ),
        (
            "  - majority",
            "  - {classifier: {augment: {paraphrase: {model: ./lm}}}}",
            5,
            "methods.0.classifier.augment.paraphrase.model",
            "no model folder or file",
        ),
        (
            "  - majority",
            "  - {distil: {teacher: knn_vote, student: {classifier: {augment: {paraphrase: {model: 'https://host/v1'}}}}}}",
            5,
            "methods.0.distil.student.classifier.augment.paraphrase.model",
            "names no model",
        ),
        (
            "  - majority",
            "  - {classifier: {augment: {paraphrase: {model: smollm2, template: rewrit}}}}",
            5,
            "methods.0.classifier.augment.paraphrase.template",
            "Did you mean 'rewrite'",
        ),
        (
            "  - majority",
            "  - {classifier: {augment: {paraphrase: {model: smollm2, template: translation}}}}",
            5,
            "methods.0.classifier.augment.paraphrase.template",
            "has the input fields",
        ),
        ("seeds: 2", "models: [{model: smollm2, dtyp: x}]", 7, "models.0.dtyp", "Did you mean 'dtype'"),
    ],
)
def test_a_mistake_is_named_with_its_place(folder, old, new, line, field, words):
    path = change(folder, old, new)
    found = problems(path)
    assert [(p.file, p.line, p.field) for p in found if words in f"{p.message} {p.fix}"] == [(str(path), line, field)], found


def test_a_method_of_another_kind_is_refused(folder):
    path = change(folder, "label: colour", "label: colour, kind: answer, references: colour")
    change(folder, "  - majority", "  - knn_vote")
    change(folder, "[accuracy, macro_f1, ece]", "[exact_match]")
    assert any("'knn_vote' cannot do task 'colours', which is of kind 'answer'" in p.message for p in problems(path))


def test_all_problems_come_at_once(folder):
    path = change(folder, "seeds: 2", "seds: 2")
    for old, new in (("test.csv", "tets.csv"), ("  - majority", "  - majorty"), ("ece]", "eec]"), ("10,", "-1,")):
        change(folder, old, new)
    assert [p.line for p in problems(path)] == [3, 5, 6, 7, 8]


@pytest.mark.parametrize(
    "text", ["", "[]", "tasks: 1", "tasks: [1]", "methods: {}", "- a\n- b", "tasks: [{name: a}]\nmethods: [[1]]", "a: b: c"]
)
def test_nonsense_is_a_clear_error(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    assert all(p.message for p in problems(tmp_path / "s.yaml"))


def test_labels_stay_what_they_are(folder):
    task = {"name": "t", "train": str(folder / "train.csv"), "label": "colour", "labels": {"no": "n", "012": ["x", "y"], "7": 7}}
    words = load_suite({"tasks": [task], "methods": ["majority"]}).suite.tasks[0].words
    assert words == {"no": ("n",), "012": ("x", "y"), "7": ("7",)}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"budgets": [5]}, lambda s: s.budgets == [5]),
        ({"tasks.0.limit": 3}, lambda s: s.tasks[0].limit == 3),
        ({"thresholds.majority.accuracy": 0.1}, lambda s: s.thresholds == {"majority": {"accuracy": 0.1}}),
        ({"methods.0.majority": None}, lambda s: s.methods[0] == {"majority": None}),
    ],
)
def test_overrides(folder, overrides, expected):
    path = change(folder, "seeds: 2", "seeds: 1")
    before = path.read_text(encoding="utf-8")
    assert expected(load_suite(path, overrides=overrides).suite)
    assert path.read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"budgts": [5]}, "Did you mean 'budgets'"),
        ({"tasks.0.limt": 3}, "Did you mean 'limit'"),
        ({"tasks.1.limit": 3}, "there is no entry '1'"),
        ({"description.x": 3}, "has no parts"),
        ({"tasks.0.limit": 0}, "greater than or equal to 1"),
    ],
)
def test_overrides_that_cannot_be(folder, overrides, words):
    found = problems(change(folder, "seeds: 2", "seeds: 1"), overrides=overrides)
    assert any(words in f"{p.message} {p.fix}" and p.line is None for p in found), found


def test_cells_run_once_where_nothing_differs(folder):
    suite = {
        "models": ["a", {"model": "x/b"}],
        "tasks": [{"name": "t", "train": str(folder / "train.csv"), "label": "colour"}],
        "methods": ["majority", "zero_shot", "few_shot"],
        "budgets": [4, "all"],
        "seeds": 2,
    }
    loaded = load_suite(suite)
    found = list(cells(loaded, seed=5))
    assert [c for c in found if c.method == "majority"] == [Cell(None, "t", "majority", b, s) for b in (4, "all") for s in (5, 6)]
    assert [c for c in found if c.method == "zero_shot"] == [Cell(m, "t", "zero_shot", None, None) for m in ("a", "b")]
    assert len([c for c in found if c.method == "few_shot"]) == 8
    assert [c.model for c in found] == sorted((c.model for c in found), key=lambda m: m or "")  # each model is loaded once
    kept = {predictor_path(loaded, c, 5) for c in found} - {None}
    assert kept == {"predictors/majority", *(f"predictors/{m}/{x}" for m in ("a", "b") for x in ("zero_shot", "few_shot"))}


def test_a_method_may_be_limited_to_some_tasks(folder):
    rows = {"train": str(folder / "train.csv"), "label": "colour"}
    answers = {**rows, "kind": "answer", "references": "colour", "labels": None}
    suite = {
        "tasks": [{"name": "t", **rows}, {"name": "a", **answers}],
        "methods": [{"knn_vote": {}, "tasks": ["t"]}, {"name": "nearest", "nearest_answer": {}, "tasks": ["a"]}],
    }
    assert [(c.task, c.method) for c in cells(load_suite(suite))] == [("t", "knn_vote"), ("a", "nearest")]
    left_out = load_suite(suite, overrides={"methods.0.tasks": []})
    assert [(c.task, c.method) for c in cells(left_out)] == [("a", "nearest")], "a method of no task is left out"
    suite["methods"][0] = "knn_vote"
    assert any("cannot do task 'a'" in p.message for p in problems(suite))


def test_every_packaged_suite_is_right():
    names = list_suites()
    assert "quickstart" in names
    for name in names:
        load_suite(name)


def test_an_unknown_suite_names_the_known_ones():
    assert any("Did you mean 'quickstart'" in p.fix for p in problems("quickstrat"))


def test_validation_loads_no_torch_and_is_quick(folder):
    code = (
        "import sys, time; from icl.evaluate import load_suite; load_suite('quickstart'); "
        "print(sorted({'torch', 'faiss', 'sklearn', 'transformers', 'pandas', 'scipy'} & set(sys.modules)), time.process_time())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("[] ")
    assert float(out.split()[-1]) < 1.0  # measured 0.4 s; twice that under load


def test_the_json_schema_is_up_to_date():
    path = packaged("eval_suites") / "suite.schema.json"
    fix = "write it again: python -m icl.evaluate.jsonschema"
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(suite_schema())), fix


def test_the_json_schema_knows_every_setting():
    schema = suite_schema()
    forms = {next(iter(form["properties"])): form for form in schema["$defs"]["method"]["anyOf"][1:]}
    settings = forms["few_shot"]["properties"]["few_shot"]["anyOf"][0]
    assert settings["properties"]["order"]["$ref"] == "#/$defs/order"
    assert settings["additionalProperties"] is False
    assert "knn" in schema["$defs"]["selector"]["anyOf"][0]["enum"]
    references = set()

    def walk(value):
        if isinstance(value, dict):
            references.update(v for k, v in value.items() if k == "$ref")
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(schema)
    assert all(r.removeprefix("#/$defs/") in schema["$defs"] for r in references)


@pytest.mark.parametrize(
    ("schema", "message"),
    [(None, "the schema does not exist"), ("", "not JSON"), ("[]", "the schema of a record describes an object")],
)
def test_a_wrong_schema_of_records_is_found_before_any_data_is_read(tmp_path, schema, message):
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a", "record": "{}"}\n')
    if schema is not None:
        (tmp_path / "s.json").write_text(schema)
    assert any(p.message.startswith(message) for p in problems(record_suite(tmp_path, "[]")))


def record_suite(folder, models):
    task = "{name: r, train: train.jsonl, test: test.jsonl, kind: answer, label: record, template: record, answer: s.json}"
    (folder / "s.yaml").write_text(f"models: {models}\ntasks:\n  - {task}\nmethods: [majority]\nmetrics: [field_match]\n")
    return folder / "s.yaml"


def test_a_schema_that_no_model_here_can_be_held_to_is_found_before_the_run(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a", "record": "{}"}\n')
    schema = {"type": "object", "properties": {"a": {"type": "strnig"}, "b": {"type": "string", "pattern": "(?=x)y"}}, "required": ["b"]}
    for part, words in ((schema, "Invalid type: strnig"), ({**schema, "properties": {"b": schema["properties"]["b"]}}, "look-around")):
        (tmp_path / "s.json").write_text(json.dumps(part))
        found = problems(record_suite(tmp_path, "[smollm2]"))
        assert [(p.field, words in p.message) for p in found] == [("tasks.0.answer", True)]
    load_suite(record_suite(tmp_path, "['https://host/v1#m']"))  # what a provider can follow is its own matter


@pytest.mark.parametrize(
    ("metric", "field", "words"),
    [
        ("judge_rubric", "metrics.1", "the metric 'judge_rubric' needs the option 'model'"),
        ("{judge_pairwise: {criterion: is kinder}}", "metrics.1.judge_pairwise", "needs the option 'model'"),
        ("{judge_rubric: {model: smolm2}}", "metrics.1.judge_rubric.model", "Did you mean 'smollm2'"),
        ("{judge_pairwise: {model: smollm2, criterion: 'is {{ it }}'}}", "metrics.1.judge_pairwise.criterion", "one plain sentence"),
    ],
)
def test_what_is_wrong_with_a_judge_is_said_before_the_run(tmp_path, metric, field, words):
    """A judge is loaded when the run is done, so that its mistakes were seen then; and without a name a small model judged."""
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "answer": "b"}\n')
    task = "{name: t, train: rows.jsonl, test: rows.jsonl, kind: answer, label: answer, template: nonesuch}"
    (tmp_path / "s.yaml").write_text(f"models: []\ntasks: [{task}]\nmethods: [nearest_answer]\nmetrics: [exact_match, {metric}]\n")
    found = {p.field: p for p in problems(tmp_path / "s.yaml")}
    assert any("nonesuch" in p.message for p in found.values()), "with everything else that is wrong"
    assert any((p.field or "").startswith(field) and words in f"{p.message} {p.fix}" and p.line == 4 for p in found.values()), found


@pytest.mark.parametrize(
    ("methods", "most"),
    [
        ("nearest_answer, {few_shot: {samples: 4}}", "4 ('few_shot')"),
        ("nearest_answer", "1 ('nearest_answer')"),
        ("{few_shot: {samples: 4}}, {name: other, few_shot: {samples: 20}, tasks: [labels]}", "4 ('few_shot')"),
        ("{few_shot: {samples: 4}}, {zero_shot: {samples: 10}}", None),
        ("{few_shot: {samples: 4}}, {saved: {path: .}}", None),  # its folder tells
    ],
)
def test_a_metric_that_needs_more_samples_than_any_method_writes_is_refused(tmp_path, methods, most):
    """Every item stayed without a score, which was seen when all programs had been paid for."""
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "answer": "b"}\n')
    same = "train: rows.jsonl, test: rows.jsonl, label: answer"
    tasks = f"{{name: t, {same}, kind: answer}}, {{name: labels, {same}, kind: classify, labels: [a, b]}}"
    metric = "{pass_at_k: {run: true, k: 10, tests: text}}"
    (tmp_path / "s.yaml").write_text(f"models: [smollm2]\ntasks: [{tasks}]\nmethods: [{methods}]\nmetrics: [accuracy, {metric}]\n")
    if most is None:
        load_suite(tmp_path / "s.yaml")
        return
    (problem,) = [p for p in problems(tmp_path / "s.yaml") if "samples" in p.message]
    assert problem.message == f"'pass_at_k' with k: 10 needs 10 samples of an item, and the most that a method here writes is {most}"
    assert (problem.field, problem.line) == ("metrics.1", 4)


@pytest.mark.parametrize(
    ("metric", "field"),
    [
        ("{word_coverage: {field: words}}", "words"),
        ("{pass_at_k: {run: true}}", "tests"),
        ("{pass_at_k: {run: true, tests: text, before: prompt}}", "prompt"),
        ("{pass_at_k: {run: true, call: 'check({entry})'}}", "entry"),
        ("{pass_at_k: {run: true, tests: text}}", None),
        ("{word_coverage: {words: [a]}}", None),
    ],
)
def test_a_metric_that_reads_a_field_no_task_has_is_refused(tmp_path, metric, field):
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "answer": "b"}\n')
    task = "{name: t, train: rows.jsonl, test: rows.jsonl, kind: answer, label: answer}"
    (tmp_path / "s.yaml").write_text(f"models: []\ntasks: [{task}]\nmethods: [majority]\nmetrics: [exact_match, {metric}]\n")
    if field is None:
        load_suite(tmp_path / "s.yaml")
        return
    assert [(p.field, f"reads the field '{field}'" in p.message) for p in problems(tmp_path / "s.yaml")] == [("metrics.1", True)]
