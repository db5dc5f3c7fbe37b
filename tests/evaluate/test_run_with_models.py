"""Suites with a (tiny, random) language model and an encoder: cells, tokens, saved predictors, plans, resume at the same units."""

import json
import random

import pytest
import tiny

import icl
from icl import suite as suites
from icl.evaluate import loop
from icl.evaluate.store import RunStore

STAGES = [{"length": {"at_most": 6}}, {"bm25": {"n": 9}}, {"random": {"per_query": True}}]

KINDS = {
    "classify": {"label": "label"},
    "choose": {"input": "question", "label": "right", "choices": "options"},
    "answer": {"input": "question", "references": "replies"},
}


def rows(kind: str, n: int, seed: int):
    rng = random.Random(seed)
    words = ["film", "cup", "oil", "team", "plot", "share", "joke", "goal"]
    for i in range(n):
        text = f"{' '.join(rng.sample(words, 4))} {seed} {i}"
        if kind == "classify":
            yield {"text": text, "label": rng.choice(["sports", "business"])}
        elif kind == "choose":
            yield {"question": text, "options": ["yes", "no", "maybe"], "right": rng.randrange(3)}
        else:
            yield {"question": text, "replies": [rng.choice(words), "the cup"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("models") / "tiny", "llama")


def suite(model, kind, methods, **more):
    task = {"name": kind, "train": list(rows(kind, 30, 1)), "test": list(rows(kind, 40, 2)), **KINDS[kind]}
    return {"models": [str(model)], "tasks": [task], "methods": methods, "budgets": [4, "all"], **more}


RANDOM = {"few_shot": {"retriever": "random", "shots": 2}}


@pytest.fixture
def no_encoder(monkeypatch):
    """These suites embed nothing; the data report would load the default encoder."""
    monkeypatch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_runs_with_a_language_model(model, kind, tmp_path, no_encoder):
    short = {"max_new_tokens": 4} if kind == "answer" else {}
    methods = ["majority", {"zero_shot": short}, {"few_shot": {**RANDOM["few_shot"], **short}}]
    run = icl.run(suite(model, kind, methods), tmp_path / "out")
    assert run.exit_code in (0, 4)  # a random model may write nothing that can be read as an answer
    cells = {(c["method"], c["budget"], c["seed"]): c for c in run.document["cells"]}
    assert set(cells) == {
        *((m, b, 0) for m in ("majority", "few_shot") for b in (4, "all")),
        ("zero_shot", None, None),
    }
    assert cells["majority", 4, 0]["model"] is None
    assert cells["majority", 4, 0]["tokens_computed"] is None
    assert cells["zero_shot", None, None]["model"] == "tiny"
    for cell in (cells["zero_shot", None, None], cells["few_shot", 4, 0]):
        assert 0 < cell["tokens_computed"] <= cell["tokens_naive"]
    assert "without reuse" in run.table()
    predictor = icl.load(run.folder / cells["few_shot", "all", 0]["predictor"])
    task = icl.Task.load(**{k: v for k, v in suite(model, kind, methods)["tasks"][0].items() if k != "name"}, name=kind)
    again = predictor.predict(task.test[: loop.UNIT_ITEMS])
    assert [p.answer for p in again] == [p.answer for p in run.predictions("few_shot")[: loop.UNIT_ITEMS]]


def test_the_next_command_names_the_suite_as_the_user_did(model, tmp_path, no_encoder):
    what = suite(model, "classify", ["zero_shot"])
    for split in ("train", "test"):
        path = tmp_path / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in what["tasks"][0][split]))
        what["tasks"][0][split] = path.name
    (tmp_path / "mine.yaml").write_text(json.dumps(what))
    run = icl.run("mine.yaml", "out")  # tests work in a folder of their own
    assert "icl prompt mine.yaml --item 0" in run.table()
    assert "icl export out --to shipped --method zero_shot" in suites.open_run("out").table()
    assert "icl prompt mine.yaml --item 0" in suites.open_run("out").table()


def test_a_plan_is_what_the_run_then_computes(model, tmp_path, no_encoder):
    what = suite(model, "classify", ["zero_shot", RANDOM])
    plan = suites.plan(what)
    run = icl.run(what, tmp_path / "out")
    counts = [(c["method"], c["budget"], c["tokens_computed"], c["tokens_naive"]) for c in run.document["cells"]]
    assert [(c["method"], c["budget"], c["tokens_computed"], c["tokens_naive"]) for c in plan.cells] == counts
    assert plan.tokens == sum(n for _, _, n, _ in counts)
    assert plan.seconds is not None
    assert plan.seconds > 0
    assert "tokens/s as measured" in plan.table()


def test_a_query_that_does_not_fit_is_unscored_and_counted(model, tmp_path, no_encoder):
    what = suite(model, "classify", [{"few_shot": {"retriever": "random", "shots": 2, "max_tokens": 60}}])
    what["tasks"][0]["test"][3]["text"] = "film " * 200
    run = icl.run(what, tmp_path / "out")
    assert run.exit_code == 4
    assert [i for i, p in enumerate(run.predictions("few_shot")) if p.answer is None] == [3]
    record = next(r for r in run.results if r["metric"] == "accuracy" and r["budget"] == "all" and r["seed"] is None)
    assert (record["n_scored"], record["n_failed"], record["n_unanswered"]) == (39, 1, 1)
    assert record["n_dropped"] == sum(p.n_dropped for p in run.predictions("few_shot"))
    assert record["n_dropped"] > 0


def test_interrupted_between_units_gives_the_same_bytes(model, tmp_path, monkeypatch, no_encoder):
    what = suite(model, "classify", ["zero_shot", RANDOM], seeds=2)
    whole = icl.run(what, tmp_path / "whole")
    write = RunStore.add_unit
    for stop_after in (1, 3, 4):
        left = [stop_after]

        def add(self, *args, left=left):
            write(self, *args)
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        monkeypatch.setattr(RunStore, "add_unit", add)
        run = icl.run(what, tmp_path / "out")
        assert (run.interrupted, run.exit_code, run.passed) == (True, 130, False)
        assert "go on with: icl.run(" in run.table()
    monkeypatch.setattr(RunStore, "add_unit", write)
    done = icl.run(what, tmp_path / "out")
    assert done.timing["sessions"] == 4
    assert (done.folder / "results.json").read_bytes() == (whole.folder / "results.json").read_bytes()
    for name in ("zero_shot", "few_shot"):
        texts = [(run.folder / "predictors" / name / "predictor.json").read_text() for run in (whole, done)]
        assert texts[0] == texts[1]


def test_an_error_of_the_model_is_of_its_items(model, tmp_path, monkeypatch, no_encoder):
    """Out of memory in a batch: the items are tried one by one, and only those that still fail are lost."""
    from icl.model import TorchModel

    score = TorchModel.score

    def failing(self, contexts, continuations):
        if len(contexts) > 1 or "2 7" in str(contexts[0]):
            raise MemoryError("cannot allocate")
        return score(self, contexts, continuations)

    monkeypatch.setattr(TorchModel, "score", failing)
    run = icl.run(suite(model, "classify", ["zero_shot"]), tmp_path / "out")
    lost = {p.why for p in run.predictions("zero_shot") if p.answer is None}
    assert lost == {"MemoryError: cannot allocate"}
    assert sum(p.answer is not None for p in run.predictions("zero_shot")) >= 35


def test_another_model_is_another_run(model, tmp_path, no_encoder):
    what = suite(model, "classify", ["zero_shot"])
    icl.run(what, tmp_path / "out")
    what["models"] = [{"model": str(model), "name": "tiny", "dtype": "bfloat16"}]
    with pytest.raises(icl.InputError, match=r"models.tiny.dtype: the run was started with 'float32', now it is 'bfloat16'"):
        icl.run(what, tmp_path / "out")


@pytest.mark.minilm
def test_methods_that_embed(model, tmp_path):
    what = suite(model, "classify", ["knn_vote", "embedding_head", {"name": "knn-2", "few_shot": {"retriever": "knn", "shots": 2}}])
    run = icl.run(what, tmp_path / "out")
    assert run.exit_code == 0
    assert list(run.document["manifest"]["encoders"]) == ["minilm"]
    assert "diversity" in run.table()
    pool = {e.uid for e in icl.Task.load(what["tasks"][0]["train"], test=what["tasks"][0]["test"]).train}
    assert all(len(set(p.demonstrations) & pool) == 2 for p in run.predictions("knn-2"))


def test_what_each_stage_did_and_the_tokens_are_added_up_per_method_and_budget(model, tmp_path, no_encoder):
    few = {"few_shot": {"retriever": STAGES, "shots": 3}}
    run = icl.run(suite(model, "classify", ["majority", "zero_shot", few], seeds=2), tmp_path / "out")
    groups = {(g["method"], g["budget"]): g for g in run.document["groups"]}
    assert set(groups) == {("majority", 4), ("majority", "all"), ("zero_shot", None), ("few_shot", 4), ("few_shot", "all")}
    for (method, budget), group in groups.items():
        cells = [c for c in run.document["cells"] if (c["method"], c["budget"]) == (method, budget)]
        assert group["runs"] == len(cells)
        for key in ("tokens_computed", "tokens_naive"):
            assert group[key] == (None if method == "majority" else sum(c[key] for c in cells))
    assert groups["zero_shot", None]["stages"] == groups["majority", "all"]["stages"] == []
    stages = groups["few_shot", "all"]["stages"]
    predictions = [p for seed in (0, 1) for p in run.predictions("few_shot", budget="all", seed=seed)]
    assert [s["stage"] for s in stages] == ["length", "bm25", "random"]
    assert all(s["n_queries"] == len(predictions) == 80 for s in stages)
    assert stages[0]["n_in"] == 80 * 30
    assert stages[-1]["n_out"] == sum(len(p.demonstrations) for p in predictions)
    assert stages[-1]["n_changed"] == sum(p.steps[-1].n_changed for p in predictions) > 0
    assert all(s["n_in"] - s["n_out"] == sum(s["dropped"].values()) for s in stages)
    line = next(line for line in run.table().splitlines() if line.startswith("few_shot: all 30.0 > length"))
    assert "brought forward" in line
    cost = next(
        line
        for line in run.table().splitlines()
        if line.startswith("few_shot ") and "80" not in line.split()[0] and "." in line and "[" not in line
    )
    whole = [g for g in run.document["groups"] if g["method"] == "few_shot"]
    ratio = sum(g["tokens_naive"] for g in whole) / sum(g["tokens_computed"] for g in whole)
    assert f" {ratio:.1f} " in cost
