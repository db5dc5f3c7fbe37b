"""icl.run on a small CSV: figures, files, failures, thresholds, resume. No weights are needed here."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import icl
from icl import suite as suites
from icl.data import Task, draw, leak_guard
from icl.errors import IclError, InputError
from icl.evaluate.store import RunStore


def go(folder, out="out", **options):
    return suites.run(folder / "suite.yaml", folder / out, plugins=[folder / "plugins"], **options)


def edit(folder, old, new):
    path = folder / "suite.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_the_figures_are_those_counted_by_hand(folder):
    run = go(folder)
    assert (run.exit_code, run.passed) == (0, True)
    task, _ = leak_guard(Task.load(folder / "train.csv", test=folder / "test.csv", label="colour"))
    values = []
    for seed in (0, 1):
        targets = [e.target for e in draw(task.train, 10, labels=task.labels, seed=seed)]
        most = next(label for label in task.labels if targets.count(label) == max(map(targets.count, task.labels)))
        values.append(sum(e.target == most for e in task.test) / len(task.test))
    of = [r for r in run.results if (r["method"], r["budget"], r["metric"]) == ("majority", 10, "accuracy")]
    assert [(r["seed"], r["value"], r["n_scored"]) for r in of] == [
        (0, pytest.approx(values[0]), 40),
        (1, pytest.approx(values[1]), 40),
        (None, pytest.approx(sum(values) / 2), 80),
    ]
    assert all(r["low"] <= r["value"] <= r["high"] for r in run.results)
    assert len(run.results) == 2 * 2 * 3 * 3  # methods, budgets, metrics, two seeds and their mean


def test_the_folder_holds_what_it_should(folder):
    run = go(folder)
    names = {p.name for p in run.folder.iterdir()}
    assert {"results.json", "timing.json", "manifest.json", "data.json", "store.sqlite", "suite.yaml", "predictors"} <= names
    text = (run.folder / "results.json").read_text()
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in results.json"))
    assert document["manifest"] == json.loads((run.folder / "manifest.json").read_text())
    assert str(folder) not in text  # a run elsewhere on the same data gives the same bytes
    saved = {p["method"]: p["path"] for p in document["predictors"]}
    assert saved == {"majority": "predictors/majority", "hashed": "predictors/hashed"}
    assert json.loads((run.folder / saved["hashed"] / "predictor.json").read_text())["n"] == document["tasks"]["colours"]["n_train"]
    assert icl.load(run.folder / saved["majority"]).predict(["x"])[0].answer is not None
    assert suites.open_run(run.folder).results == run.results


def test_the_same_again_gives_the_same_bytes(folder):
    first, second = go(folder, "a"), go(folder, "b")
    assert (first.folder / "results.json").read_bytes() == (second.folder / "results.json").read_bytes()


def test_what_else_the_process_has_loaded_is_no_part_of_the_manifest(folder):
    code = "import torch; torch.set_num_threads(1); " + SCRIPT
    subprocess.run([sys.executable, "-c", code, str(folder), "a"], check=True, capture_output=True)
    assert (folder / "a" / "results.json").read_bytes() == (go(folder, "b").folder / "results.json").read_bytes()


def test_predictions_are_at_hand(folder):
    run = go(folder)
    of_the_largest = run.predictions("hashed")
    with RunStore.read_only(run.folder) as store:
        assert of_the_largest == store.predictions('[null,"colours","hashed","all",0]')
    assert len(of_the_largest) == 40
    assert run.predictions("hashed", budget=10, seed=1) != of_the_largest
    with pytest.raises(InputError, match="Did you mean 'hashed'"):
        run.predictions("hashd")
    with pytest.raises(InputError, match="0 cells"):
        run.predictions("hashed", budget=11)


def test_the_table_says_what_was_done(folder):
    text = go(folder, limit=30).table()
    assert "30 of 40 test items" in text
    assert "accuracy in %" in text
    assert "ece in %, lower is better" in text
    assert "means over 2 draws" in text
    assert "Next: icl export" in text
    row = next(line for line in text.splitlines() if line.startswith("hashed"))
    assert row.count("[") == 2
    assert "*" in row
    assert all(len(line) < 140 for line in text.splitlines()[:20])
    assert "\x1b" not in text


def test_the_limit_does_not_depend_on_the_order_of_the_file(folder):
    first = {p.uid for p in go(folder, "a", limit=10).predictions("majority")}
    lines = (folder / "test.csv").read_text().splitlines()
    (folder / "test.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    assert {p.uid for p in go(folder, "b", limit=10).predictions("majority")} == first
    assert len(first) == 10


def test_one_bad_item_costs_one_item(folder):
    bad = (folder / "test.csv").read_text().splitlines()[5].rsplit(",", 1)[0].rsplit(" ", 1)[1]
    edit(folder, "  - hashed", f"  - {{hashed: {{fails_on: ' {bad}'}}}}")
    run = go(folder)
    assert run.exit_code == 4
    lost = [p for p in run.predictions("hashed") if p.answer is None]
    assert [p.why for p in lost] == ["ValueError: cannot read this"]
    record = next(r for r in run.results if (r["method"], r["seed"], r["metric"]) == ("hashed", 0, "accuracy"))
    assert (record["n_scored"], record["n_failed"]) == (39, 1)
    assert "not answered" in run.table()


def test_a_method_that_cannot_be_fitted_does_not_take_the_others_along(folder):
    edit(folder, "  - hashed", "  - {hashed: {fit_fails: true}}")
    run = go(folder)
    assert run.exit_code == 4
    assert {p.why for p in run.predictions("hashed")} == {"fitting failed: RuntimeError: this never fits"}
    assert all(r["value"] is None for r in run.results if r["method"] == "hashed")
    assert all(r["value"] is not None for r in run.results if r["method"] == "majority")
    assert "none scored" in run.table()


@pytest.mark.parametrize(("limits", "code"), [("{accuracy: 0.2}", 0), ("{accuracy: 0.999}", 3), ("{ece: 0.9}", 0), ("{ece: 0.0001}", 3)])
def test_thresholds(folder, limits, code):
    edit(folder, "seeds: 2", f"seeds: 2\nthresholds: {{hashed: {limits}}}")
    run = go(folder)
    assert run.exit_code == code
    assert run.passed is (code == 0)
    assert ("MISSED" in run.table()) is (code == 3)


def test_a_missed_threshold_outranks_a_failed_item(folder):
    edit(folder, "  - hashed", "  - {hashed: {fit_fails: true}}")
    edit(folder, "seeds: 2", "seeds: 2\nthresholds: {hashed: {accuracy: 0.1}}")
    assert go(folder).exit_code == 3


def test_a_finished_run_is_not_done_again(folder):
    first = go(folder)
    before = (first.folder / "results.json").read_bytes(), (first.folder / "store.sqlite").stat().st_size
    started = time.perf_counter()
    again = go(folder)
    assert ((again.folder / "results.json").read_bytes(), (again.folder / "store.sqlite").stat().st_size) == before
    assert again.timing["sessions"] == 2
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda f: edit(f, "seeds: 2", "seeds: 3"), "suite"),
        (lambda f: edit(f, "  - hashed", "  - {hashed: {seconds: 0.0001}}"), "suite"),
        (lambda f: (f / "train.csv").write_text((f / "train.csv").read_text() + "a new row,red\n"), "tasks.colours.data"),
        (
            lambda f: (f / "plugins" / "hashed.py").write_text((f / "plugins" / "hashed.py").read_text() + "\n# changed\n"),
            "plugins.hashed.py",
        ),
    ],
)
def test_another_run_in_the_same_folder_is_refused(folder, change, field):
    before = go(folder).folder.joinpath("results.json").read_bytes()
    change(folder)
    with pytest.raises(InputError) as caught:
        go(folder)
    assert field in [p.field for p in caught.value.problems]
    assert (folder / "out" / "results.json").read_bytes() == before


def test_limit_and_seed_are_part_of_the_manifest(folder):
    go(folder)
    for options in ({"limit": 7}, {"seed": 5}):
        with pytest.raises(InputError, match="the run was started with"):
            go(folder, **options)


def test_nothing_is_left_of_a_run_that_could_not_begin(folder):
    edit(folder, "[10, all]", "[10, 1000, all]")
    with pytest.raises(InputError, match=r"budgets.1: a label budget of 1000 is more than the \d+ rows"):
        go(folder)
    assert not (folder / "out").exists()


def test_a_folder_that_cannot_be_written(folder):
    (folder / "file").write_text("x")
    with pytest.raises(IclError, match="cannot be written"):
        go(folder, "file/out")
    assert (folder / "file").read_text() == "x"


def test_leaks_are_removed_and_counted(folder):
    line = (folder / "test.csv").read_text().splitlines()[1]
    (folder / "train.csv").write_text((folder / "train.csv").read_text() + line + "\n")
    run = go(folder)
    leaks = run.document["tasks"]["colours"]["leaks"]
    assert leaks["text"] == 1
    assert f"leak guard: {sum(leaks.values())} rows" in run.table()


def test_a_dict_is_a_suite_too(folder):
    rows = [{"text": f"row {i} {'up' if i % 2 else 'down'}", "label": "ab"[i % 2]} for i in range(120)]
    run = icl.run({"name": "mine", "tasks": [{"name": "t", "train": rows}], "methods": ["majority"], "budgets": ["all"]}, folder / "out")
    assert run.exit_code == 0
    assert "held out" in run.table()
    again = icl.run({"name": "mine", "tasks": [{"name": "t", "train": rows}], "methods": ["majority"], "budgets": ["all"]}, folder / "out")
    assert again.timing["sessions"] == 2
    assert [r["metric"] for r in run.results if r["seed"] is None] == ["accuracy", "macro_f1"]


@pytest.mark.parametrize("broken", ["fit", "items"])
def test_what_an_error_left_unanswered_is_done_again_when_asked(folder, monkeypatch, broken):
    """Memory that ran out in one session: in the fit, or at some items."""
    from icl.evaluate import guarded

    whole = go(folder, "whole")
    real = guarded.fit if broken == "fit" else guarded._checked

    def breaks(*args):
        if broken == "fit":
            if (args[1].method, args[1].seed) == ("hashed", 1):
                return None, "fitting failed: OutOfMemoryError: no memory"
        elif any(query.fields["text"].endswith("7") for query in args[1]):
            raise MemoryError("no memory")
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(guarded, real.__name__, breaks)
        assert go(folder).exit_code == 4
    again = go(folder)
    assert again.exit_code == 4  # the same command does nothing of it again
    done = go(folder, retry_failed=True)
    assert done.exit_code == 0
    assert (done.folder / "results.json").read_bytes() == (whole.folder / "results.json").read_bytes()


def test_crossed_seeds_vary_the_draw_alone(folder):
    edit(folder, "seeds: 2", "seeds: {draw: 2}")
    run = go(folder)
    assert {r["seed"] for r in run.results} == {0, 1, None}


def test_a_plan_computes_no_item(folder):
    edit(folder, "  - hashed", "  - {hashed: {fit_fails: true}}")
    plan = suites.plan(folder / "suite.yaml", plugins=[folder / "plugins"], limit=10)
    assert [c["n_items"] for c in plan.cells] == [10] * 8
    assert (plan.tokens, plan.seconds) == (0, None)
    assert "8 runs, 80 predictions" in plan.table()


# ── until it is settled ──


def test_a_run_ends_with_the_draw_that_settles_it_and_goes_on_without_the_flag(folder, capsys):
    edit(folder, "seeds: 2", "seeds: 4")
    edit(folder, "metrics: [accuracy, macro_f1, ece]", "metrics: [macro_f1, accuracy]")
    run = go(folder, until_decided=True, margin=0.0)
    (ended,) = run.document["ended_early"]
    assert ended == {"task": "colours", "draws": ended["draws"], "planned": 4, "margin": 0.0}
    assert 2 <= ended["draws"] < 4
    assert {c["seed"] for c in run.document["cells"]} == set(range(ended["draws"]))
    assert run.document["complete"]
    said = f"ended after {ended['draws']} of 4 draws of the labels: every method is told apart from the best one"
    assert said in run.table()
    assert said in (run.folder / "report.html").read_text()
    before = (run.folder / "results.json").read_bytes()
    go(folder, until_decided=True, margin=0.0)
    assert (run.folder / "results.json").read_bytes() == before
    whole = go(folder)
    assert "ended_early" not in whole.document
    assert (whole.folder / "results.json").read_bytes() == (go(folder, "at once").folder / "results.json").read_bytes()


def test_a_task_that_is_settled_gets_no_further_draw_while_another_does(folder):
    """Of the second task nothing can be told apart: it is judged on two methods that answer alike."""
    edit(folder, "seeds: 2", "seeds: 4")
    edit(
        folder,
        "methods:",
        "  - {name: same, train: train.csv, test: test.csv, label: colour}\nmethods:\n  - {name: twin, majority: {}, tasks: [same]}",
    )
    edit(folder, "  - hashed", "  - {hashed: {}, tasks: [colours]}")
    edit(folder, "metrics: [accuracy, macro_f1, ece]", "metrics: [macro_f1]")
    run = go(folder, until_decided=True, margin=0.0)
    assert [entry["task"] for entry in run.document["ended_early"]] == ["colours"]
    draws = {task: {c["seed"] for c in run.document["cells"] if c["task"] == task} for task in ("colours", "same")}
    assert draws["same"] == {0, 1, 2, 3}
    assert draws["colours"] < {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("seeds", "says"), [("seeds: 1", "nothing to stop early"), ("seeds: {draw: 3, train: 2}", "where seeds are crossed")]
)
def test_what_cannot_end_early_is_told_before_any_work(folder, seeds, says):
    edit(folder, "seeds: 2", seeds)
    with pytest.raises(InputError, match=says):
        go(folder, until_decided=True)
    assert not (folder / "out").exists()


# ── interruptions ────────────────────────────────────────────────────────────────────────────────────────────────────────

SCRIPT = """
import sys
from pathlib import Path
from icl import suite
folder = Path(sys.argv[1])
try:
    run = suite.run(folder / "suite.yaml", folder / sys.argv[2], plugins=[folder / "plugins"])
except KeyboardInterrupt:
    sys.exit(130)
print(run.table())
sys.exit(run.exit_code)
"""


def start(folder: Path, out: str) -> subprocess.Popen[str]:
    """A run in a process of its own, which Ctrl-C ends even where the tests themselves are a job in the background."""
    kept = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), out], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, kept)


def stored(path: Path) -> int:
    try:
        with RunStore.read_only(path) as store:
            return sum(len(store.predictions(cell)) for cell in store.cells())
    except Exception:  # the store is only being made
        return 0


def wait_for(path: Path, n: int, process: subprocess.Popen[str]) -> None:
    while stored(path) < n and process.poll() is None:
        time.sleep(0.003)


@pytest.fixture
def slow_suite(folder, monkeypatch):
    """40 units of 8 items: each process is killed somewhere in the middle. What is predicted is written down."""
    edit(folder, "  - hashed", f"  - {{hashed: {{seconds: 0.002, log: {folder / 'log'}}}}}")
    (folder / "sitecustomize.py").write_text("import icl.evaluate.loop as loop\nloop.UNIT_ITEMS_LIGHT = 8\n")
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{Path(icl.__file__).parent.parent}")
    monkeypatch.setattr("icl.evaluate.loop.UNIT_ITEMS_LIGHT", 8)
    return folder


def predicted(folder: Path) -> Counter[str]:
    """Item of a cell -> how often it was predicted; the log begins anew."""
    lines = (folder / "log").read_text(encoding="utf-8").splitlines()
    (folder / "log").unlink()
    return Counter(lines)


def test_killed_five_times_and_finished_is_the_same_as_never_killed(slow_suite):
    whole = go(slow_suite, "whole").folder
    once = predicted(slow_suite)
    assert set(once.values()) == {1}
    counts = []
    for n in (1, 60, 130, 200, 290):
        process = start(slow_suite, "out")
        wait_for(slow_suite / "out", n, process)
        process.kill()
        process.communicate()
        counts.append(stored(slow_suite / "out"))
    assert counts == sorted(counts)
    assert 0 < counts[0] < counts[-1] < 320
    process = start(slow_suite, "out")
    out, error = process.communicate()
    assert process.returncode == 0, error
    assert "not finished" not in out
    again = predicted(slow_suite)
    assert again.keys() == once.keys()
    assert again.total() - once.total() <= 5 * 8  # at most the unit in flight, each time
    assert (slow_suite / "out" / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    with RunStore.read_only(whole) as a, RunStore.read_only(slow_suite / "out") as b:
        assert sorted(a.cells()) == sorted(b.cells())
        assert all(a.predictions(cell) == b.predictions(cell) for cell in a.cells())


@pytest.mark.slow
def test_killed_fifty_times_at_random_moments(slow_suite):
    """Anywhere in the life of a process: while it starts, fits, predicts, saves, or writes the results."""
    rng = random.Random(0)
    whole = go(slow_suite, "whole").folder
    once = predicted(slow_suite)
    started = time.perf_counter()
    process = start(slow_suite, "timed")
    process.communicate()
    life = time.perf_counter() - started
    predicted(slow_suite)
    kills = since = n = 0
    while kills < 50 or since:
        out = slow_suite / f"out{n}"
        process = start(slow_suite, out.name)
        if kills < 50:
            if rng.random() < 0.5:  # among the predictions, so that runs get on
                wait_for(out, stored(out) + 1, process)
                time.sleep(rng.random() * 0.2)
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(rng.random() * life)
        else:
            process.wait()
        if process.poll() is None:
            process.kill()
            kills, since = kills + 1, since + 1
        _, error = process.communicate()
        if process.returncode == 0:
            assert (out / "results.json").read_bytes() == (whole / "results.json").read_bytes()
            again = predicted(slow_suite)
            assert again.keys() == once.keys()
            assert again.total() - once.total() <= since * 8
            since, n = 0, n + 1
        else:
            assert process.returncode == -signal.SIGKILL, error


WAITS = """
import time
from icl.evaluate.store import RunStore
real = RunStore.add_unit
def add_unit(store, *args):
    real(store, *args)
    if sum(len(store.predictions(cell)) for cell in store.cells()) > 50:
        time.sleep(300)
RunStore.add_unit = add_unit
"""
"""The process must not be done before the signal comes, however busy the machine is."""


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(slow_suite):
    with (slow_suite / "sitecustomize.py").open("a") as file:
        file.write(WAITS)
    process = start(slow_suite, "out")
    wait_for(slow_suite / "out", 51, process)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=240)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert "not finished" in out
    assert f"icl run {slow_suite / 'suite.yaml'} --out {slow_suite / 'out'}" in out
    assert not (slow_suite / "out" / "results.json").exists()
    with pytest.raises(InputError, match="not a finished run"):
        suites.open_run(slow_suite / "out")
    done = go(slow_suite, "out")
    assert done.exit_code == 0
    assert done.folder.joinpath("results.json").read_bytes() == go(slow_suite, "whole").folder.joinpath("results.json").read_bytes()


def test_two_processes_cannot_write_one_run(slow_suite):
    process = start(slow_suite, "out")
    wait_for(slow_suite / "out", 1, process)
    started = time.perf_counter()
    with pytest.raises(InputError, match=f"process {process.pid} on "):
        go(slow_suite)
    assert time.perf_counter() - started < 2
    process.kill()
    process.communicate()
