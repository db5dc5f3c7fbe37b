"""icl.compare and icl.leave_out: figures counted by hand from what the runs stored, runs that do not fit, and each stage left out."""

import json
import shutil

import numpy as np
import pytest
import tiny

import icl
from icl import suite as suites
from icl.errors import InputError
from icl.evaluate.compare import StoredRun
from icl.evaluate.paired import holm, mcnemar
from icl.evaluate.store import RunStore
from icl.report.comparison import verdict

ROWS = [{"text": f"row {i} {'up' if i % 2 else 'down'} {i * 7 % 13}", "label": "ab"[i % 2]} for i in range(140)]
TASK = {"train": ROWS[:60], "test": ROWS[60:], "label": "label"}


def go(folder, out="out", methods=("majority", "hashed", {"name": "worse", "hashed": {"fails_on": "down 3"}}), **options):
    more = {"budgets": [10, 30], "seeds": 3, "metrics": ["accuracy", "macro_f1", "ece"], "tasks": [{"name": "one", **TASK}]}
    what = {key: options.pop(key, value) for key, value in more.items()}
    return suites.run({"name": "s", "models": [], "methods": list(methods), **what}, folder / out, plugins=[folder / "plugins"], **options)


def right(run, method, task="one", budget=30, seed=0):
    """(n,) 1 right, 0 wrong, nan not answered, from the predictions themselves."""
    targets = {e.uid: e.target for e in StoredRun.open(run.folder).tests[task]}
    found = run.predictions(method, task=task, budget=budget, seed=seed)
    return np.array([np.nan if p.answer is None else float(p.answer == targets[p.uid]) for p in found])


def of(comparison, **wanted):
    found = [r for r in comparison.records if all(r[key] == value for key, value in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def test_the_figures_are_those_of_the_stored_predictions(folder):
    run = go(folder)
    found = icl.compare(run, "hashed", "majority")
    assert {(r["budget"], r["seed"]) for r in found.records} == {(b, s) for b in (10, 30) for s in (0, 1, 2, None)}
    for seed in (0, 1, 2):
        ours, theirs = right(run, "hashed", seed=seed), right(run, "majority", seed=seed)
        record = of(found, metric="accuracy", budget=30, seed=seed)
        assert (record["value_a"], record["value_b"]) == (pytest.approx(ours.mean()), pytest.approx(theirs.mean()))
        assert record["difference"] == pytest.approx(ours.mean() - theirs.mean())
        assert (record["test"], record["p"]) == ("mcnemar", pytest.approx(mcnemar(ours, theirs)))
        assert record["low"] < record["difference"] < record["high"]
        assert record["n_items"] == 80
    over = of(found, metric="accuracy", budget=30, seed=None)
    assert over["difference"] == pytest.approx(
        np.mean([right(run, "hashed", seed=s).mean() - right(run, "majority", seed=s).mean() for s in range(3)])
    )
    assert (over["n_runs"], over["test"]) == (3, "bootstrap")
    assert over["settled"] is True
    assert over["better"] == "a"
    reported = {(r["method"], r["metric"], r["budget"], r["seed"]): r["value"] for r in run.results}
    for record in found.records:
        for side, value in (("a", "value_a"), ("b", "value_b")):
            assert record[value] == pytest.approx(reported[record[side]["method"], record["metric"], record["budget"], record["seed"]])
    ece = of(found, metric="ece", budget=30, seed=None)
    assert ece["higher_is_better"] is False
    turned = icl.compare(run.folder, "majority", "hashed", metrics=["ece"])
    assert of(turned, budget=30, seed=None)["difference"] == pytest.approx(-ece["difference"])
    assert (of(turned, budget=30, seed=None)["better"], ece["better"]) in {("b", "a"), ("a", "b"), (None, None)}


def test_what_could_not_be_scored_is_counted_and_bounded(folder):
    run = go(folder, seeds=1, budgets=[30], metrics=["accuracy"])
    found = icl.compare(run, "hashed", "worse")
    record = of(found, seed=None)
    ours, theirs = right(run, "hashed"), right(run, "worse")
    n_lost = int(np.isnan(theirs).sum())
    assert n_lost > 0
    both = ~np.isnan(theirs)
    assert (record["n_items"], record["n_unscored"]) == (80 - n_lost, n_lost)
    assert (record["value_a"], record["value_b"]) == (pytest.approx(ours[both].mean()), pytest.approx(theirs[both].mean()))
    assert record["floor"] == pytest.approx(ours.mean() - np.nan_to_num(theirs, nan=1.0).mean())
    assert record["ceiling"] == pytest.approx(ours.mean() - np.nan_to_num(theirs, nan=0.0).mean())
    table = found.table()
    assert f"{n_lost} not scored" in table
    assert f"between {record['floor'] * 100:+.1f} and {record['ceiling'] * 100:+.1f}" in table


def test_what_a_side_did_not_answer_stands_beside_the_difference(folder):
    """`timid` withholds its answers about rows that end in 3."""
    method = (folder / "plugins" / "hashed.py").read_text()
    right_now = "        return Prediction(query.uid, answer, {"
    assert right_now in method
    timid = f"""        if query.fields["text"].endswith("3"):
            return Prediction(query.uid, None, why="abstained", withheld=answer)
{right_now}"""
    (folder / "plugins" / "timid.py").write_text(method.replace(right_now, timid))
    run = go(folder, methods=("hashed", "timid", "majority"), seeds=2, budgets=[30], metrics=["accuracy"])
    found = icl.compare(run, "timid", "hashed")
    n_withheld = sum(row["text"].endswith("3") for row in ROWS[60:])
    record = of(found, seed=None)
    assert (record["coverage_a"], record["coverage_b"]) == (pytest.approx(1 - n_withheld / 80), 1.0)
    said = f"{1 - n_withheld / 80:.0%} : 100%"
    assert said in found.table()
    assert "a - b is about those that both answered" in found.table()
    page = (run.folder / "report.html").read_text()
    assert f"answered {said}" in page or f"answered {' : '.join(reversed(said.split(' : ')))}" in page
    assert "answered" not in icl.compare(run, "hashed", "majority").table()


def test_the_table_and_a_comparison_agree_on_what_is_level(folder):
    """Methods marked as level with the best are those whose comparison leaves 0 within the interval."""
    run = go(folder, methods=("majority", "hashed", {"name": "worse", "hashed": {"fails_on": "down 3"}}, {"name": "again", "hashed": {}}))
    leaders = json.loads((run.folder / "results.json").read_text())["best"]
    assert len(leaders) == 6
    for leader in leaders:
        best, level = leader["best"][1], {method for _, method in leader["level"]}
        rivals = {"majority", "hashed", "worse", "again"} - {best}
        within = {"metric": leader["metric"], "budget": leader["budget"], "seed": None}
        assert level == {rival for rival in rivals if not of(icl.compare(run, best, rival), **within)["settled"]}
    assert any(leader["level"] for leader in leaders)
    assert any(len(leader["level"]) < 3 for leader in leaders)


def test_a_difference_that_is_not_settled_says_what_would_settle_it(folder):
    methods = [{"name": f"same-{n}", "hashed": {"fails_on": f"nothing {n}"}} for n in range(2)]
    (folder / "plugins" / "hashed.py").write_text(
        (folder / "plugins" / "hashed.py").read_text().replace("rng_for(self.seed,", "rng_for(str(self.settings.fails_on),")
    )
    run = go(folder, methods=methods, seeds=1, budgets=[10], metrics=["accuracy"])
    record = of(icl.compare(run, "same-0", "same-1"), seed=None)
    assert record["settled"] is False
    assert record["better"] is None
    assert 0.05 < record["detectable"] < 0.5
    assert record["more_items"] > 0
    text = icl.compare(run, "same-0", "same-1").table()
    assert (
        f"not settled: {record['detectable'] * 100:.1f} would have been seen; about {record['more_items']:,} more items would settle it"
        in text
    )
    assert all(len(line) <= 160 for line in text.splitlines())


def test_several_comparisons_are_adjusted_and_tasks_pooled(folder):
    other = [{"text": f"other {i} {i * 5 % 11}", "label": "ab"[i % 2]} for i in range(100)]
    tasks = [{"name": "one", **TASK}, {"name": "two", "train": other[:60], "test": other[60:], "label": "label"}]
    run = go(folder, tasks=tasks, seeds=1, budgets=[10, 30], metrics=["accuracy"])
    found = icl.compare(run, "hashed")
    single = [r for r in found.records if r["task"] is not None]
    pooled = [r for r in found.records if r["task"] is None]
    assert {(r["b"]["method"], r["budget"]) for r in pooled} == {(m, b) for m in ("majority", "worse") for b in (10, 30)}
    for family in (single, pooled):
        family = [r for r in family if r["seed"] is None]
        assert [r["p_holm"] for r in family] == holm([r["p"] for r in family])
    for record in pooled:
        parts = [r for r in single if (r["b"], r["budget"], r["seed"]) == (record["b"], record["budget"], None)]
        assert record["n_tasks"] == len(parts) == 2
        assert record["difference"] == pytest.approx(np.mean([r["difference"] for r in parts]))
        assert record["n_items"] == sum(r["n_items"] for r in parts)
        widest = max(r["high"] - r["low"] for r in parts)
        assert record["high"] - record["low"] < widest
    assert "all tasks (2)" in found.table()
    assert "p (Holm)" in found.table()


def test_a_difference_that_is_none_among_many_is_not_claimed(folder):
    run = go(folder, seeds=1, budgets=[30], metrics=["accuracy"])
    (record,) = icl.compare(run, "hashed", "majority").records
    record = {**record, "settled": True, "better": "a", "p": 0.03, "p_holm": 0.3}
    assert verdict(record) == "a is better"
    assert verdict(record, many=True) == "a is better by itself, not among so many comparisons"
    assert verdict({**record, "p_holm": 0.04}, many=True) == "a is better"


def test_a_method_without_labels_stands_beside_every_budget(folder):
    (folder / "plugins" / "fixed.py").write_text(
        (folder / "plugins" / "hashed.py").read_text().replace("NEEDS_LABELS = True", "NEEDS_LABELS = False")
    )
    run = go(folder, methods=["fixed", "hashed"], metrics=["accuracy"])
    found = icl.compare(run, "fixed", "hashed")
    assert {(r["budget"], r["seed"]) for r in found.records} == {(b, s) for b in (10, 30) for s in (0, 1, 2, None)}
    alone = right(run, "fixed", budget=None, seed=None)
    for seed in (0, 1, 2):
        assert of(found, budget=10, seed=seed)["difference"] == pytest.approx(
            alone.mean() - right(run, "hashed", budget=10, seed=seed).mean()
        )


def test_two_runs_on_the_same_items_in_another_order(folder):
    first = go(folder, "a", seeds=1)
    second = go(folder, "b", seeds=1, tasks=[{"name": "one", **TASK, "test": ROWS[60:][::-1]}], seed=None)
    assert [p.uid for p in first.predictions("hashed")] == [p.uid for p in second.predictions("hashed")][::-1]
    found = icl.compare(first, second)
    assert {r["a"]["method"] for r in found.records} == {"majority", "hashed", "worse"}
    for record in found.records:
        assert record["a"]["method"] == record["b"]["method"]
        assert record["difference"] == pytest.approx(0)
    named = icl.compare(first.folder, second.folder, "hashed", "majority", metrics=["accuracy"])
    within = icl.compare(first, "hashed", "majority", metrics=["accuracy"])
    assert [r["difference"] for r in named.records] == pytest.approx([r["difference"] for r in within.records])
    assert [r["p"] for r in named.records] == pytest.approx([r["p"] for r in within.records])
    assert str(second.folder) in named.table()


def test_runs_on_other_items_are_refused(folder):
    run = go(folder, "a", seeds=1)
    fewer = go(folder, "b", seeds=1, limit=30)
    with pytest.raises(InputError, match=r"task 'one' is judged on other items: 80 here and 30 in .*, of which 30 are the same"):
        icl.compare(run, fewer)
    relabelled = [{**row, "label": "a"} if i == 3 else row for i, row in enumerate(ROWS[60:])]
    with pytest.raises(InputError, match=r"task 'one': 1 items have another label"):
        icl.compare(run, go(folder, "c", seeds=1, tasks=[{"name": "one", **TASK, "test": relabelled}]))
    reworded = [{**row, "text": row["text"].replace("down", "below")} for row in ROWS[60:]]
    with pytest.raises(InputError, match="of which 40 are the same"):
        icl.compare(run, go(folder, "d", seeds=1, tasks=[{"name": "one", **TASK, "test": reworded}]))
    with pytest.raises(InputError, match="no task in common: one here, other in"):
        icl.compare(run, go(folder, "e", seeds=1, tasks=[{"name": "other", **TASK}]))


def test_what_cannot_be_compared_is_said(folder):
    run = go(folder, seeds=1)
    for what, message in (
        ((), "no method is named; this run has majority, hashed, worse"),
        (("hashd",), "Did you mean 'hashed'"),
        (("hashed", "majorty"), "Did you mean 'majority'"),
        (("hashed", "hashed"), "compared with itself"),
        ((run, "a", "b", "c"), "3 methods of two runs"),
    ):
        with pytest.raises(InputError, match=message):
            icl.compare(run, *what)
    with pytest.raises(InputError, match="no metric in this run named 'accurcy'"):
        icl.compare(run, "hashed", "majority", metrics=["accurcy"])
    with pytest.raises(InputError, match=r"there is no store.sqlite"):
        icl.compare(folder / "nowhere", "a", "b")


def test_a_run_of_an_older_version_gets_its_items_by_the_same_command(folder):
    run = go(folder, seeds=1)
    with RunStore.open(run.folder) as store:
        store._db.executescript("DROP TABLE tests; DELETE FROM meta WHERE key = 'judging'")
    with pytest.raises(InputError, match="did not keep the items"):
        icl.compare(run, "hashed", "majority")
    before = (run.folder / "results.json").read_bytes()
    go(folder, seeds=1)
    assert (run.folder / "results.json").read_bytes() == before
    assert icl.compare(run, "hashed", "majority").records


def test_a_comparison_is_the_same_every_time_and_needs_nothing_but_the_folder(folder):
    run = go(folder, seeds=1)
    first = icl.compare(run, "hashed", "majority").records
    shutil.move(run.folder, folder / "moved")
    second = icl.compare(folder / "moved", "hashed", "majority").records
    strip = [[{k: v for k, v in r.items() if k not in ("a", "b")} for r in records] for records in (first, second)]
    assert strip[0] == strip[1]
    assert json.loads(json.dumps(first, allow_nan=False)) == first


# ── leaving out ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("models") / "tiny", "llama")


def few_shot_suite(model, settings):
    return {"name": "s", "models": [str(model)], "tasks": [{"name": "one", **TASK}], "methods": ["majority", {"name": "mine", "few_shot": settings}],
            "budgets": [20], "metrics": ["accuracy"], "thresholds": {"majority": {"accuracy": 0.9}}}  # fmt: skip


SETTINGS = {
    "shots": 3,
    "retriever": [{"length": {"at_most": 30}}, {"bm25": {"n": 9}}, "balanced"],
    "order": "shuffled",
    "calibration": "contextual",
}


def test_each_stage_is_left_out_in_turn(model, tmp_path, monkeypatch):
    monkeypatch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})
    found = icl.leave_out(few_shot_suite(model, SETTINGS), "mine", tmp_path / "out", limit=12)
    whats = ["length", "bm25", "balanced", "order", "calibration"]
    assert [r["b"]["method"] for r in found.records] == [f"mine.without-{what}" for what in whats]
    assert {r["a"]["method"] for r in found.records} == {"mine"}
    assert found.run.passed
    entries = {name: few_shot_suite(model, settings)["methods"][1] for name, settings in VARIANTS.items()}
    for name, entry in entries.items():
        alone = {**few_shot_suite(model, {}), "methods": [entry], "thresholds": {}}
        by_hand = icl.run(alone, tmp_path / name, limit=12)
        assert [p.scores for p in found.run.predictions(f"mine.without-{name}")] == [p.scores for p in by_hand.predictions("mine")]
        assert [p.demonstrations for p in found.run.predictions(f"mine.without-{name}")] == [
            p.demonstrations for p in by_hand.predictions("mine")
        ]
    tokens = {c["method"]: c["tokens_computed"] for c in found.run.document["cells"]}
    assert all((r["tokens_a"], r["tokens_b"]) == (tokens["mine"], tokens[r["b"]["method"]]) for r in found.records)
    assert found.table().startswith("a - b: what the method gains")
    assert f" {tokens['mine'] / tokens['mine.without-bm25']:.2f} " in found.table()
    again = icl.leave_out(few_shot_suite(model, SETTINGS), "mine", tmp_path / "out", limit=12)
    assert again.records == found.records
    assert again.run.timing["sessions"] == 2


VARIANTS = {
    "length": {**SETTINGS, "retriever": SETTINGS["retriever"][1:]},
    "bm25": {**SETTINGS, "retriever": [SETTINGS["retriever"][0], "balanced"]},
    "balanced": {**SETTINGS, "retriever": SETTINGS["retriever"][:2]},
    "order": {**SETTINGS, "order": "similar_last"},
    "calibration": {key: value for key, value in SETTINGS.items() if key != "calibration"},
}


def test_random_takes_the_place_of_the_only_stage_that_finds(model):
    from icl.audit import without_each
    from icl.evaluate import load_suite

    def variants(settings):
        loaded = load_suite(few_shot_suite(model, settings))
        return {v["name"].removeprefix("mine.without-"): v["few_shot"] for v in without_each(loaded.methods[1])}

    assert variants({"shots": 3}) == {"knn": {"shots": 3, "retriever": ["random"]}}
    behind = variants({"retriever": [{"length": {"at_most": 9}}, "knn"]})
    assert behind["knn"] == {"retriever": [{"length": {"at_most": 9}}, "random"]}
    assert behind["length"] == {"retriever": ["knn"]}
    twice = variants({"retriever": ["knn", {"label": {"never": ["a"]}}, {"label": {"never": ["b"]}}]})
    assert list(twice) == ["knn", "label-1", "label-2"]
    assert twice["knn"]["retriever"][0] == "random"
    assert variants({"retriever": "random", "readout": "per_token"}) == {"readout": {"retriever": "random"}}


def test_a_method_with_nothing_to_leave_out(model):
    for method, message in (("majority", "nothing that could be left out"), ("mein", "Did you mean 'mine'")):
        with pytest.raises(InputError, match=message):
            icl.leave_out(few_shot_suite(model, {"retriever": "random"}), method, "out")
    with pytest.raises(InputError, match="nothing that could be left out"):
        icl.leave_out(few_shot_suite(model, {"retriever": "random"}), "mine", "out")


def test_leaving_out_from_the_command_line_resumes(model, tmp_path, monkeypatch, capsys):
    from icl.cli import main

    monkeypatch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TASK[split]))
    suite = {**few_shot_suite(model, {}), "tasks": [{"name": "one", "train": "train.jsonl", "test": "test.jsonl", "label": "label"}]}
    del suite["name"]
    (tmp_path / "s.yaml").write_text(json.dumps(suite))
    command = [
        "compare",
        "s.yaml",
        "--leave-out",
        "mine",
        "--out",
        "o",
        "--limit",
        "9",
        "--set",
        "methods.1.few_shot={retriever: [bm25, balanced], shots: 2}",
    ]
    assert main([*command, "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [r["b"]["method"] for r in records] == ["mine.without-bm25", "mine.without-balanced"]
    assert all(r["n_items"] == 9 for r in records)
    assert main(command) == 0
    assert "a = mine against b" in capsys.readouterr().out
    run = icl.leave_out(
        "s.yaml",
        "mine",
        "o",
        limit=9,
        overrides={"methods.1.few_shot": {"retriever": ["bm25", "balanced"], "shots": 2}},
        max_cost=5,
        cache=False,
    ).run
    assert run.timing["sessions"] == 3
    assert run.command.startswith("icl compare s.yaml --out o --limit 9 --set")
    assert run.command.endswith("--max-cost 5 --no-cache --leave-out mine")  # else it would go on without the limit
