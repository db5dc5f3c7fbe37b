"""`icl.decide` and `icl decide` end to end on a tiny language model, a tiny encoder and a made-up task."""

import dataclasses
import json
import random
import subprocess
import sys

import pytest
import tiny

import icl
from icl.cli import main
from icl.decision import course
from icl.decision.contest import Contest, Request, _plain
from icl.errors import InputError
from icl.evaluate.probe import measure
from icl.evaluate.store import RunStore
from icl.ship import check, export

WORDS = {"sports": ["cup", "team", "goal"], "business": ["oil", "share", "plot"]}
COMMON = ["film", "joke"]
USUAL = ["majority", "knn_vote", "embedding_head", "zero_shot", "knn-8"]


def rows(n, seed, noise=0.0):
    rng = random.Random(seed)
    for i in range(n):
        label = rng.choice(sorted(WORDS))
        other = rng.choice(sorted(WORDS)) if rng.random() < noise else label
        yield {"text": f"{' '.join(rng.choice(WORDS[other] + COMMON) for _ in range(5))} {seed} {i}", "label": label}


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("decide")
    words = [word for each in WORDS.values() for word in each] + COMMON
    return tiny.save(root / "tiny", "llama"), tiny.save_bert(root / "encoder", words, sentence=True)


@pytest.fixture(scope="session")
def lm(places):
    return icl.load_model(str(places[0]))


@pytest.fixture(scope="session")
def task():
    return icl.Task.load(list(rows(80, 1, 0.3)), test=list(rows(40, 2, 0.3)), name="made up")


@pytest.fixture(scope="session")
def decided(task, lm, places, tmp_path_factory):
    """All of the ladder: the time is ample, and label budgets and draws are named."""
    out = tmp_path_factory.mktemp("decided") / "run"
    return decide(task, lm, places, out=out)


def test_a_task_is_called_as_its_file_is():
    assert [_plain(name) for name in ("made up", "données.v2", "tickets_2024", "数据", "..")] == [
        "made-up", "donnees.v2", "tickets_2024", "task", "task",
    ]  # fmt: skip


def decide(task, lm, places, **more):
    asked = {"methods": USUAL, "budgets": [16, 64], "seeds": 2, "minutes": 100, "encoder": str(places[1]), **more}
    return icl.decide(task, lm, **asked)


def test_the_answer_is_what_the_run_found(decided, task):
    found = decided.findings
    assert {record["task"] for record in decided.run.results} == {"made-up"}  # a suite's names have no blanks
    assert {(p.method, p.budget, p.n_runs) for p in found.points} == {
        ("zero_shot", None, 1), *((m, b, 2) for m in USUAL if m != "zero_shot" for b in (16, 64)),
    }  # fmt: skip
    for point in found.points:
        runs = [decided.run.predictions(point.method, budget=point.budget, seed=s) for s in ((0, 1) if point.budget else (None,))]
        right = [p.answer == e.target for run in runs for p, e in zip(run, task.test, strict=True)]
        assert point.value == pytest.approx(sum(right) / len(right))
        assert point.low <= point.value <= point.high
    at_top = {p.method: p.value for p in found.points if p.budget in (64, None)}
    assert found.choice.optimistic == pytest.approx(max(at_top.values()))
    assert found.choice.leader in [m for m, v in at_top.items() if v == max(at_top.values())]
    level = [r.name for r in found.choice.rivals if r.level]
    assert found.choice.winner in level
    assert (found.budget, found.n_items, found.n_runs) == (64, 40, 2)


def test_the_crossover_is_between_prompts_and_what_was_trained(decided):
    assert decided.crossover.first == 16
    assert decided.crossover.last == 64
    assert decided.crossover.n_items == 40
    assert decided.findings.trained == "embedding_head"
    assert decided.findings.prompt in ("zero_shot", "knn-8")
    assert {gain.n_labels for gain in decided.findings.gains} == {64}


def test_one_paragraph_says_all(decided):
    text = decided.text
    assert "\n" not in text
    winner = decided.findings.choice.winner
    assert winner in text
    assert f"{decided.findings.choice.value * 100:.1f} %" in text
    assert "95 % interval" in text
    assert "40 test items, 2 draws of the labels" in text
    assert "labels" in text
    assert "A query of" in text
    assert all(method in decided.table() for method in USUAL)
    assert text in repr(decided)
    assert winner in decided._repr_html_()


def test_the_page_of_the_run_has_the_answer_on_top(decided, tmp_path):
    page = (decided.folder / "report.html").read_text(encoding="utf-8")
    title = f"Use {decided.findings.choice.winner}" if decided.settled else "Not settled"
    assert page.index(f"<bdi>{title}</bdi>") < page.index("Learning curves")
    assert decided.to_html(tmp_path / "decision.html").read_text(encoding="utf-8") == page


def saved(decided, task, folder):
    """Two methods as winners, saved; what they answer here."""
    queries = [dict(e.fields) for e in task.test]
    here = []
    for name in ("embedding_head", "knn-8"):
        winner = dataclasses.replace(decided, found=_won_by(decided.findings, name)).winner
        assert winner.name == name
        winner.save(folder / name)
        here.append([[p.answer, dict(p.probabilities)] for p in winner.predict(queries)])
    return queries, here


def test_the_winner_is_saved_with_figures_and_a_regression_test(decided, task, tmp_path):
    """Whichever method wins."""
    queries, here = saved(decided, task, tmp_path)
    for name, expected in zip(("embedding_head", "knn-8"), here, strict=True):
        assert {p.name for p in (tmp_path / name).iterdir()} >= {"README.md", "predictor.json", "regression.jsonl", "measured.json"}
        assert "## Measured" in (tmp_path / name / "README.md").read_text()
        assert {r["method"] for r in json.loads((tmp_path / name / "measured.json").read_text())} == {name}
        assert [[p.answer, dict(p.probabilities)] for p in icl.load(tmp_path / name).predict(queries)] == expected
        assert check(tmp_path / name) == []


@pytest.mark.slow
def test_the_winner_answers_the_same_in_another_process(decided, task, tmp_path):
    queries, here = saved(decided, task, tmp_path)
    (tmp_path / "queries.json").write_text(json.dumps(queries))
    code = (
        "import icl, json\n"
        "queries = json.load(open('queries.json'))\n"
        "found = [icl.load(name).predict(queries) for name in ('embedding_head', 'knn-8')]\n"
        "print(json.dumps([[[p.answer, p.probabilities] for p in each] for each in found]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == here


def test_every_method_of_the_run_can_be_shipped_and_the_winner_is_by_default(decided, tmp_path):
    export(decided.folder, tmp_path / "winner")
    assert json.loads((tmp_path / "winner" / "predictor.json").read_text())["name"] == decided.findings.choice.winner
    assert check(tmp_path / "winner") == []
    export(decided.folder, tmp_path / "prompt", "knn-8")
    assert check(tmp_path / "prompt") == []


@pytest.mark.parametrize("method", ["knn_vote", "knn-8"])
def test_what_is_shipped_takes_new_examples_and_a_new_label(decided, tmp_path, method):
    shipped = icl.load(export(decided.folder, tmp_path / "shipped", method))
    new = icl.Task.load([{"text": f"goal oil film {n}", "label": "weather"} for n in range(20)]).train
    shipped.add(new)
    shipped.save(tmp_path / "more")
    for predictor in (shipped, icl.load(tmp_path / "more")):
        (found,) = predictor.predict(["goal oil film 7"])
        assert set(found.candidates) == {"sports", "business", "weather"}
        assert set(found.demonstrations) & {e.uid for e in new}
        assert found.answer == "weather" or method == "knn-8"  # a model made of noise says anything


def test_a_decision_that_was_made_is_given_again_at_once(decided, task, lm, places, monkeypatch):
    monkeypatch.setattr("icl.evaluate.guarded.fit", None)
    monkeypatch.setattr(course, "measure", None)
    again = decide(task, lm, places, out=decided.folder)
    assert again.text == decided.text
    wide = decide(task, lm, places, out=decided.folder, margin=1.0)
    cheapest = min(wide.findings.costs, key=lambda name: wide.findings.costs[name].item_s)
    assert wide.findings.choice.winner == cheapest  # with such a margin nothing but the cost matters


def test_another_question_in_the_same_folder_is_refused(decided, task, lm, places):
    with pytest.raises(InputError, match="holds another decision") as error:
        decide(task, lm, places, out=decided.folder, seeds=3)
    assert "seeds" in str(error.value)


class Stop:
    """Ctrl-C after so many cells."""

    def __init__(self, monkeypatch, n):
        self.left = n
        real = RunStore.finish_cell

        def finish(store, *args):
            real(store, *args)
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(RunStore, "finish_cell", finish)


def test_interrupted_and_gone_on_with_is_the_same_answer(decided, task, lm, places, tmp_path, monkeypatch):
    Stop(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt, match=r"ask again with out='.*part'"):
        decide(task, lm, places, out=tmp_path / "part")
    again = decide(task, lm, places, out=tmp_path / "part")
    assert (tmp_path / "part" / "results.json").read_bytes() == (decided.folder / "results.json").read_bytes()
    assert again.findings.points == decided.findings.points
    assert again.crossover == decided.crossover
    assert again.findings.choice.rivals[0].name == decided.findings.choice.rivals[0].name


def test_refit_learns_from_all_rows_and_says_that_it_is_not_measured(decided, tmp_path):
    again = dataclasses.replace(decided, found=_won_by(decided.findings, "knn-8"))
    refitted = again.refit()
    assert len(refitted.predictor.pool) == 80
    refitted.save(tmp_path / "all")
    assert "## Not measured" in (tmp_path / "all" / "README.md").read_text()
    assert not (tmp_path / "all" / "measured.json").exists()
    assert check(tmp_path / "all") == []


def _won_by(found, name):
    return dataclasses.replace(found, choice=dataclasses.replace(found.choice, winner=name))


def test_a_saved_run_is_a_whole_run(decided, tmp_path):
    decided.save(tmp_path / "copy")
    assert icl.compare(tmp_path / "copy", "knn_vote", "majority").records
    with pytest.raises(InputError, match="not an empty folder"):
        decided.save(tmp_path / "copy")


def test_chosen_on_dev_items(lm, places, tmp_path, monkeypatch):
    task = icl.Task.load(list(rows(60, 1)), test=list(rows(20, 2)), dev=list(rows(30, 3)), name="t")
    made = decide(task, lm, places, out=tmp_path / "run", methods=["majority", "embedding_head"], budgets=[16], seeds=1)
    assert made.findings.choice.chosen_on == "dev"
    assert made.findings.choice.halves is None
    assert {name: len(kept) for name, kept in json.loads((tmp_path / "run" / "dev.json").read_text()).items()} == {
        "majority": 20, "embedding_head": 20,
    }  # fmt: skip
    assert "on the test items" in made.text


def test_items_that_cannot_be_scored_are_counted_and_not_wrong(lm, places, tmp_path):
    test = [*rows(17, 2), *({"text": f"{'film joke ' * 400}{i}", "label": "sports"} for i in range(3))]
    task = icl.Task.load(list(rows(40, 1)), test=test, name="t")
    made = decide(task, lm, places, out=tmp_path / "run", methods=["majority", "zero_shot"], budgets=[16], seeds=1)
    (point,) = (p for p in made.findings.points if p.method == "zero_shot")
    assert point.n_unscored == 3
    run = made.run.predictions("zero_shot")
    assert point.value == pytest.approx(sum(p.answer == e.target for p, e in zip(run, task.test, strict=True)) / 17)
    assert "3 predictions could not be scored" in made.text


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_until_decided_ends_when_it_is_settled(lm, places, tmp_path, metric):
    task = icl.Task.load(list(rows(60, 1)), test=list(rows(100, 2)), name="t")
    asked = {"methods": ["majority", "embedding_head"], "budgets": [32], "seeds": 4, "until_decided": True, "metric": metric}
    made = decide(task, lm, places, out=tmp_path / "run", **asked)
    assert made.findings.n_runs < 4
    assert "since the answer was settled" in made.text
    again = decide(task, lm, places, out=tmp_path / "run", **asked)
    assert again.findings.n_runs == made.findings.n_runs


BAD = [
    ({"minutes": 0}, "minutes"),
    ({"minutes": float("nan")}, "minutes"),
    ({"margin": -0.1}, "margin"),
    ({"seeds": 0}, "seeds"),
    ({"budgets": []}, "budgets"),
    ({"budgets": [16, 500]}, "more than the 80 rows"),
    ({"budgets": [0]}, "no label budget"),
    ({"metric": "acuracy"}, "Did you mean 'accuracy'"),
    ({"metric": "token_f1"}, "judges a task of kind 'classify'"),
    ({"methods": []}, "no method is named"),
    ({"methods": ["knn8"]}, "Did you mean 'knn-8'"),
    ({"methods": ["nearest_answer"]}, "cannot do a task of kind 'classify'"),
    ({"until_decided": True, "seeds": 1}, "stop early"),
    ({"template": "no_such"}, "no_such"),
    ({"minutes": 1e-4}, "min is too short: the smallest comparison takes longer"),
]


@pytest.mark.parametrize(("wrong", "says"), BAD, ids=[next(iter(w)) + str(n) for n, (w, _) in enumerate(BAD)])
def test_bad_options_are_told_before_any_work(wrong, says, task, lm, places, tmp_path):
    with pytest.raises(InputError, match=says):
        decide(task, lm, places, out=tmp_path / "run", **wrong)
    assert not (tmp_path / "run" / "results.json").exists()


def test_all_problems_at_once(task, lm):
    with pytest.raises(InputError) as error:
        icl.decide(task, lm, margin=-1, minutes=-1, seeds=0)
    assert len(error.value.problems) == 3


def test_one_label_or_few_rows_decide_nothing(lm):
    same = [{"text": f"film {i}", "label": "sports"} for i in range(40)]
    with pytest.raises(InputError, match="have the label 'sports'"):
        icl.decide(icl.Task.load(same), lm)
    with pytest.raises(InputError, match="too few to decide anything"):
        icl.decide(icl.Task.load(list(rows(12, 1))), lm)
    each_its_own = [{"text": f"film {i}", "label": f"ticket {i}"} for i in range(40)]
    with pytest.raises(InputError, match="40 rows have 40 labels, so that too few can be held out"):
        icl.decide(icl.Task.load(each_its_own), lm)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("body,topic\n" + "".join(f"{r['text']},{r['label']}\n" for r in rows(120, 1)))
    return path


def test_the_command(file, places, tmp_path, capsys):
    model, encoder = map(str, places)
    words = ["decide", str(file), "--input", "text=body", "--label", "topic", "--model", model, "--encoder", encoder, "--minutes", "5"]
    words += ["--methods", "majority,embedding_head,zero_shot", "--budgets", "16,64", "--seeds", "1", "--out", str(tmp_path / "run")]
    assert main([*words, "--plan"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("plan: majority, embedding_head, zero_shot")
    assert "label budgets 16, 64, 1 draw of the labels" in said.out
    assert "plan:" not in said.err  # once is enough
    assert not (tmp_path / "run").exists()
    assert main([*words, "--ship", str(tmp_path / "shipped")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Use embedding_head: with 64 labels its accuracy on test items that it was not chosen on is ")
    assert f"Results: {tmp_path / 'run'}" in said.err
    assert check(tmp_path / "shipped") == []
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["winner"] == "embedding_head"
    assert main(["predict", str(tmp_path / "shipped"), str(file), "--input", "text=body", "--out", str(tmp_path / "p.jsonl")]) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--refit"], "Give --ship FOLDER"),
        (["--budgets", "16,x"], "'x' is no label budget"),
        (["--label", "topik"], "topik"),
        (["--minutes", "0"], "leave no time"),
    ],
)
def test_wrong_usage_is_2(words, says, file, places, capsys):
    base = ["decide", str(file), "--input", "text=body", "--model", str(places[0])]
    assert main([*base, *([] if "--label" in words else ["--label", "topic"]), *words]) == 2
    assert says in capsys.readouterr().err


def test_what_a_row_of_a_training_costs_is_its_whole_prompt(task, lm):
    """A fine-tuned model reads the prompt and every label of a row, and shares no beginning with other rows."""
    contest = Contest.of(task, Request("default", None, 0.01, None, ("zero_shot", "finetune"), None, 10.0), lm, ())
    prepared = contest.prepared(contest.suite(contest.methods, [16], 1, None))
    estimates, speeds = measure(prepared, [16, 64], (), 1.0)
    prompt = icl.FewShot(lm, shots=0).fit(task.train).prompt(task.test[0])
    assert speeds.row > prompt.n_tokens
    (tuned,) = (e for e in estimates if e.method == "finetune")
    assert tuned.fit[64] > 3 * speeds.token * prompt.n_tokens * 64
