"""The page of a run: every part of it, what is in it as data, and that nothing of a run becomes markup."""

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser

import pytest
import tiny
from hostile import HOSTILE, hostile_folder, hostile_source

import icl
from icl.cli import main
from icl.errors import InputError
from icl.evaluate.store import RunStore
from icl.report.items import pack_items
from icl.report.markup import clean
from icl.report.page import report_page
from icl.report.page_training import trainings
from icl.report.runs import Runs, Series, Source, said_seconds
from icl.report.svg import colour
from icl.report.svg import series as stroke
from icl.suite import open_run

HTML, SVG = (
    {"html", "head", "meta", "title", "style", "body", "main", "header", "nav", "section", "h1", "h2", "h3", "p", "ul", "li", "a", "dl", "dt", "dd",
     "div", "table", "thead", "tbody", "tr", "th", "td", "small", "bdi", "pre", "details", "summary", "figure", "noscript", "script"},
    {"svg", "g", "path", "circle", "rect", "text", "tspan", "title", "desc"},
)  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "id", "class", "href", "aria-label", "aria-labelledby", "aria-hidden", "role", "scope", "tabindex",
    "open", "type", "data-first", "data-task", "data-labels", "data-series", "data-row", "data-column", "xmlns", "viewbox", "width", "height", "font-family", "font-size",
    "font-weight", "fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "d", "x", "y", "cx", "cy", "r", "rx",
    "text-anchor", "transform", "pointer-events", "stroke-linejoin", "stroke-linecap",
}  # fmt: skip
EMPTY = {"meta"}


class Page(HTMLParser):
    """What a browser finds: elements with attributes, and texts by the element they are in."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts, self.scripts, self.styles, self.ids = [], [], [], [], [], []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inside = self.open[-1] if self.open else None
        (self.scripts if inside == "script" else self.styles if inside == "style" else self.texts).append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())

    @property
    def data(self):
        return json.loads(zlib.decompress(base64.b64decode(json.loads(self.scripts[0])["packed"])))

    def check(self):
        """Nothing but what the page itself writes."""
        tags = {tag for tag, _ in self.elements}
        assert tags <= HTML | SVG, tags - HTML - SVG
        names = {key for _, attributes in self.elements for key in attributes}
        assert names <= ATTRIBUTES, names - ATTRIBUTES
        assert all(attributes["href"].startswith("#") for _, attributes in self.elements if "href" in attributes)
        assert {attributes["href"][1:] for tag, attributes in self.elements if tag == "a"} <= set(self.ids)
        assert len(set(self.ids)) == len(self.ids), "an id occurs twice"
        assert [attributes.get("type") for tag, attributes in self.elements if tag == "script"] == ["application/json", None]
        policy = next(a["content"] for tag, a in self.elements if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
        for kind, source in (("script-src", "".join(self.scripts[1:])), ("style-src", "".join(self.styles))):
            digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
            assert f"{kind} 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy
        return self


def rows(n, seed, texts=("film",), labels=("yes", "no")):
    return [{"text": f"{texts[(i + seed) % len(texts)]} {seed} {i}", "label": labels[i % len(labels)]} for i in range(n)]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("models") / "tiny", "llama")


def run_of(root, model, **more):
    suite = {
        "name": "made up",
        "description": "Two labels",
        "models": [str(model)],
        "tasks": [{"name": "t", "train": rows(30, 1), "test": rows(24, 2)}],
        "methods": ["majority", "zero_shot", {"name": "two", "few_shot": {"retriever": "random", "shots": 2}}],
        "budgets": [4, "all"],
        "seeds": 2,
        "metrics": ["accuracy", "macro_f1", "ece"],
        "thresholds": {"majority": {"accuracy": 0.99}},
    } | more
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("icl.evaluate.prepare._encoders", lambda loaded: {})
        return icl.run(suite, root)


@pytest.fixture(scope="module")
def run(tmp_path_factory, model):
    return run_of(tmp_path_factory.mktemp("page") / "first", model)


@pytest.fixture(scope="module")
def page(run):
    return Page((run.folder / "report.html").read_text(encoding="utf-8")).check()


def test_a_run_writes_its_page_with_every_part(page, run):
    titles = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert titles == [
        "answer", "figures", "curves", "differences", "cost", "spread", "trust", "confusion", "items", "work", "data", "manifest",
    ]  # fmt: skip
    assert "made up" in page.text
    assert "Two labels" in page.text
    assert '{"retriever": "random", "shots": 2}' in page.text
    assert "threshold missed: t · majority: accuracy" in page.text
    best = next(r for r in run.document["best"] if r["metric"] == "accuracy" and r["budget"] == "all")
    value = next(r["value"] for r in run.results if (r["method"], r["metric"], r["seed"], r["budget"]) in {
        (best["best"][1], "accuracy", None, "all"), (best["best"][1], "accuracy", None, None)})  # fmt: skip
    assert f"{best['best'][1]} leads" in page.text
    assert f"{value * 100:.1f} %" in page.text
    for record in run.results:
        if record["seed"] is None and record["metric"] == "accuracy":
            assert f"{record['value'] * 100:.1f}" in page.text


def test_every_item_is_there_with_prompt_scores_and_demonstrations(page, run):
    data = page.data
    assert data["series"] == ["majority", "zero_shot", "two"]
    (task,) = data["tasks"]
    assert len(task["items"]) == 24
    assert len(data["cells"]) == 4 + 1 + 4
    budgets = [(c["budget"], c["seed"]) for c in data["cells"] if c["series"] == 2]
    assert budgets == [(4, 0), (4, 1), ("all", 0), ("all", 1)]
    cell = next(c for c in data["cells"] if (c["series"], c["budget"], c["seed"]) == (2, "all", 1))
    predictions = run.predictions("two", budget="all", seed=1)
    tests = {e.uid: e for e in _tests(run)}
    predictor = icl.load(run.folder / "predictors" / "two")
    for at, prediction in enumerate(predictions):
        item = task["items"][cell["i"][at]]
        assert item[1] == prediction.uid
        assert data["strings"][item[3]] == tests[prediction.uid].target
        assert data["strings"][cell["a"][at]] == prediction.answer
        assert cell["v"][at] == (prediction.answer == tests[prediction.uid].target)
        shown = [data["rows"][n] for n in cell["d"][at]]
        assert [row[0] for row in shown] == list(prediction.demonstrations)
        prompt = "\n".join(data["lines"][n] for n in cell["q"][at])
        assert all(row[2] in prompt for row in shown)
        assert item[2]["text"] in prompt
        names, sums = cell["k"][at][::3], cell["k"][at][1::3]
        assert {data["strings"][n] for n in names} == {"yes", "no"}
        assert sorted(sums) == sorted(round(s, 2) for s in prediction.scores.sums)
    first = next(c for c in data["cells"] if (c["series"], c["budget"], c["seed"]) == (2, "all", 0))
    texts = ["\n".join(data["lines"][n] for n in lines) for lines in first["q"]]
    assert texts == [prompt.text for prompt in predictor.prompts(_tests(run))], "the prompts are not those of the predictor"


def _tests(run):
    with RunStore.read_only(run.folder) as store:
        return store.tests("t")


def test_the_same_run_gives_the_same_page(run):
    assert report_page([run.source]) == report_page([open_run(run.folder).source])


@pytest.fixture(scope="module")
def other(tmp_path_factory, model):
    return run_of(tmp_path_factory.mktemp("page") / "second", model, methods=["majority", "zero_shot"], thresholds={})


def test_two_runs_on_one_page(run, other, tmp_path, capsys):
    assert main(["report", str(run.folder), str(other.folder), "--html", str(tmp_path / "both.html")]) == 0
    out = capsys.readouterr().out
    assert str(run.folder) in out
    assert str(other.folder) in out
    page = Page((tmp_path / "both.html").read_text(encoding="utf-8")).check()
    assert page.data["series"] == ["majority (first)", "zero_shot (first)", "two (first)", "majority (second)", "zero_shot (second)"]
    assert len(page.data["tasks"][0]["items"]) == 24, "the same items are listed once"
    assert "first minus second, t" in page.text
    assert "differs" in page.text
    assert main(["report", str(run.folder), str(other.folder), "--figures", str(tmp_path)]) == 2


def test_the_page_is_written_again_where_one_says(run, tmp_path, capsys):
    assert main(["report", str(run.folder), "--html", str(tmp_path / "a" / "page.html")]) == 0
    assert (tmp_path / "a" / "page.html").read_text(encoding="utf-8") == (run.folder / "report.html").read_text(encoding="utf-8")
    assert run.to_html("report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_run_is_done_though_its_page_fails(tmp_path, model, monkeypatch, capsys):
    monkeypatch.delenv("ICL_QUIET", raising=False)
    monkeypatch.setattr("icl.report.page.report_page", lambda *a: 1 / 0)
    done = run_of(tmp_path / "run", model, methods=["majority"], thresholds={})
    assert done.passed
    assert (done.folder / "results.json").is_file()
    assert not (done.folder / "report.html").exists()
    assert "report.html: not written: ZeroDivisionError" in capsys.readouterr().err


def test_a_run_that_was_killed_has_the_same_items_in_the_end(tmp_path, model, run, monkeypatch):
    """Also where the prompts of a unit were kept and the unit itself was not."""
    plain, done = RunStore.add_unit, []

    def add_unit(self, *what):
        done.append(what)
        if len(done) in (3, 6):
            raise SystemExit
        plain(self, *what)

    monkeypatch.setattr(RunStore, "add_unit", add_unit)
    for _ in range(2):
        with pytest.raises(SystemExit):
            run_of(tmp_path / "first", model)
    again = run_of(tmp_path / "first", model)
    pages = [Page((each.folder / "report.html").read_text(encoding="utf-8")).check() for each in (run, again)]
    assert pages[0].data == pages[1].data


def test_a_run_is_done_though_its_prompts_cannot_be_kept(tmp_path, model, run, monkeypatch, capsys):
    monkeypatch.delenv("ICL_QUIET", raising=False)
    monkeypatch.setattr("icl.evaluate.loop.prompts_of", lambda *a: 1 / 0)
    done = run_of(tmp_path / "run", model)
    assert (done.folder / "results.json").read_bytes() == (run.folder / "results.json").read_bytes(), "what is kept changed the results"
    assert "the report will lack the prompts of 24 items" in capsys.readouterr().err
    data = Page((done.folder / "report.html").read_text(encoding="utf-8")).check().data
    assert all(not cell["q"] for cell in data["cells"])


def test_with_one_label_budget_there_are_intervals_instead_of_curves(other):
    records = [r for r in other.results if r["budget"] in ("all", None)]
    page = Page(report_page([Source(other.folder, {**other.document, "records": records}, other.timing)])).check()
    assert "at the one label budget there is" in page.text
    assert "Learning curves" not in page.text


def test_an_old_store_has_a_page_too(tmp_path, run):
    """One that kept no prompts, and one that kept no test items."""
    import shutil
    import sqlite3

    folder = shutil.copytree(run.folder, tmp_path / "old")
    with sqlite3.connect(folder / "store.sqlite") as db:
        db.execute("DROP TABLE shown")
        db.execute("DROP TABLE prompts")
    page = Page(report_page([open_run(folder).source])).check()
    assert page.data["rows"][0][2] is None
    with sqlite3.connect(folder / "store.sqlite") as db:
        db.execute("DELETE FROM meta WHERE key = 'judging'")
    page = Page(report_page([open_run(folder).source])).check()
    assert "did not keep the items it was judged on" in page.text
    (folder / "store.sqlite").unlink()
    page = Page(report_page([open_run(folder).source])).check()
    assert "no store.sqlite" in page.text


def test_an_unfinished_run_says_so(run):
    records = [r for r in run.results if r["method"] == "majority"]
    document = {**run.document, "complete": False, "records": records, "best": []}
    page = Page(report_page([Source(run.folder, document, run.timing)])).check()
    assert "not finished" in page.text


def test_training_curves_and_costs(run):
    curve = [{"epoch": e, "step": 3 * e, "loss": 1 / e, "validation_loss": 2 / e, "accuracy": 0.4 + e / 10} for e in (1, 2, 3)]
    record = {
        "curve": curve, "n_steps": 9, "epochs": 3, "best_epoch": 2, "stopped_early": True, "n_parameters": 1000, "n_trained": 10,
        "n_tokens": 500, "operations": 1e9, "seconds": 2.0, "peak_memory_mb": 100.0, "seed": 0,
    }  # fmt: skip
    cells = [{**cell, "training": record} if cell["method"] == "two" else cell for cell in run.timing["cells"]]
    page = Page(report_page([Source(run.folder, run.document, {**run.timing, "cells": cells})])).check()
    assert "training" in page.ids
    assert "two, t, all labels" in page.text
    assert "validation loss" in page.text
    assert "stopped early" in page.text
    assert "epoch 2: 0.5, kept" in page.text


def test_groups_and_label_bias(run):
    figures = [
        {"group": g, "value": v, "low": v - 0.1, "high": v + 0.1, "n_items": 12, "n_unscored": 0}
        for g, v in (("north", 0.4), (HOSTILE[0], 0.7))
    ]
    gap = {"highest": HOSTILE[0], "lowest": "north", "value": 0.3, "low": 0.0, "high": 0.5}
    whole = {"task": "t", "metric": "accuracy", "column": HOSTILE[1], "figures": figures, "left_out": []}
    groups = [
        {**whole, "model": None, "method": "majority", "budget": 4, "gap": None},
        {**whole, "model": None, "method": "majority", "budget": "all", "gap": gap},
        {**whole, "model": "tiny", "method": "two", "budget": "all", "gap": None},
    ]
    bias = {"shares": {"yes": 0.75, "no": 0.25}, "bias": 0.25}
    cells = [{**cell, "label_bias": bias} if cell["method"] == "two" else cell for cell in run.document["cells"]]
    page = Page(report_page([Source(run.folder, {**run.document, "by_group": groups, "cells": cells}, run.timing)])).check()
    for part in (
        "majority, all labels",
        "30.0 [0.0, 50.0]",
        f"{HOSTILE[0]} over north",
        "north 12 items",
        "answers to inputs that say nothing",
        "75.0",
    ):
        assert part in page.text, part
    assert "majority, 4 labels" not in page.text


def test_crossed_seeds_show_where_the_uncertainty_comes_from(run):
    parts = [{"of": [of] if isinstance(of, str) else of, "variance": v, "of_mean": v, "clipped": False}
             for of, v in (("draw", 0.03), ("item", 0.01), (["draw", "order"], 0.01), ("train", 0.0))]  # fmt: skip
    record = {"model": "tiny", "task": "t", "method": "two", "metric": "accuracy", "sizes": {}, "components": parts, "error": 0.2}
    variance = [{**record, "budget": budget, "one_more": {"draw": share, "order": 0.0}} for budget, share in ((4, 0.5), ("all", 0.25))]
    page = Page(report_page([Source(run.folder, {**run.document, "variance": variance}, run.timing)])).check()
    for part in ("Where the uncertainty of accuracy comes from", "two, draw of labels: 60", "two, draw of labels × order: 20", "25 %"):
        assert part in page.text, part
    assert "50 %" not in page.text.split("one more of these")[1].split("Can the probabilities")[0]
    assert "two, training" not in page.text


def test_trainings_are_found_wherever_a_cell_keeps_them():
    one = {"curve": [{"step": 1, "loss": 2.0}]}
    assert list(trainings({"teacher": one, "student": [one, {"no": 3}], "n": 4})) == [one, one]
    assert list(trainings(None)) == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 µs"), (3e-6, "3 µs"), (0.00011, "110 µs"), (0.0234, "23 ms"), (0.9999, "1 s"), (2.34, "2.3 s"), (88, "88 s"), (150, "2.5 min")],
)
def test_times_are_said_in_the_unit_that_fits(seconds, said):
    assert said_seconds(seconds) == said


def test_a_method_has_one_colour_in_every_run(run, other):
    runs = Runs((run.source, other.source))
    first, second = (Series(n, None, "majority") for n in (0, 1))
    assert colour(runs.style(first)) == colour(runs.style(second))
    assert stroke(runs.style(first)) != stroke(runs.style(second))
    assert len({stroke(runs.style(series)) for series in runs.names}) == len(runs.names) == 5


def test_a_large_run_keeps_to_the_size(run, monkeypatch):
    full = report_page([run.source])
    monkeypatch.setattr("icl.report.page.pack_items", lambda runs, stored, most: pack_items(runs, stored, 1_500))
    page = Page(report_page([run.source])).check()
    assert re.search(r"\d+ of 24 items are listed", page.text)
    assert "listed for the first seed only" in page.text
    assert len(full) < 3_000_000


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory, model):
    return hostile_folder(tmp_path_factory.mktemp("hostile") / "run", model)


@pytest.fixture(scope="module")
def many(tmp_path_factory, model):
    tasks = [{"name": f"t{n}", "train": rows(20, 1), "test": rows(12, 2)} for n in range(10)]
    return run_of(tmp_path_factory.mktemp("many") / "run", model, tasks=tasks, methods=["majority", "zero_shot"], seeds=1, thresholds={})


@pytest.mark.parametrize("most", [250_000, 140_000, 80_000])
def test_a_page_of_many_tasks_keeps_to_the_size_too(many, monkeypatch, most):
    """As many as there are: figures go first, then tables."""
    whole = Page(report_page([many.source])).check()
    assert "left out to keep the page small" not in whole.text
    monkeypatch.setattr("icl.report.page.MOST", most)
    monkeypatch.setattr("icl.report.page.LEAST_ITEMS", 20_000)
    html = report_page([many.source])
    page = Page(html).check()
    assert len(html.encode()) <= most
    assert "left out to keep the page small" in page.text
    assert page.data["cells"] == whole.data["cells"], "the items are there all the same"


def test_nothing_of_a_run_becomes_markup(hostile_run):
    page = Page((hostile_run / "report.html").read_text(encoding="utf-8")).check()
    shown = "".join(page.texts)
    for text in HOSTILE[:5]:
        assert clean(text) in shown
    assert f"fitting failed: RuntimeError: {HOSTILE[8]}" in {
        page.data["strings"][n] for cell in page.data["cells"] for n in cell.get("w", ()) if n >= 0
    }
    fields = [item[2]["text"] for item in page.data["tasks"][0]["items"]]
    assert {field.strip() for field in fields} == {text.strip() for text in HOSTILE}


def test_nothing_of_a_manifest_or_a_decision_becomes_markup(run):
    source, answer = hostile_source(run)
    html = report_page([source], answer)
    shown = "".join(Page(html).check().texts)
    for text in HOSTILE:
        assert shown.count(clean(text)) > 5


def test_what_is_no_run_has_no_page(tmp_path):
    with pytest.raises(InputError, match=re.escape("results.json")):
        open_run(tmp_path)


def test_notebooks(run):
    found = Page(run._repr_html_())
    assert {tag for tag, _ in found.elements} <= HTML | SVG
    assert "leads" in found.text
    assert "macro_f1 in %" in found.text
