"""The page in a real browser: it opens without errors and asks for nothing, its filters do what they say, it fits phones, it prints.

Where no browser is installed these are skipped; with ICL_NEED_BROWSER=1, as in continuous integration, that is an error instead.
"""

import os
import re

import browser
import pytest
from hostile import ADDRESS, HOSTILE, hostile_source
from test_page import hostile_run, model, other, rows, run, run_of  # noqa: F401

from icl.evaluate.store import RunStore
from icl.report.page import report_page

pytestmark = pytest.mark.browser
READY = "document.querySelector('#explorer')?.dataset.ready === 'yes'"
PHONE, DESKTOP, PAPER = 390, 1280, 718


@pytest.fixture(scope="module")
def tab():
    program = browser.find()
    if program is None:
        reason = "no browser: install chromium, or name one with ICL_BROWSER"
        if os.environ.get("ICL_NEED_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    opened = browser.Browser(program)
    yield opened
    opened.close()


def open_page(tab, path, width=DESKTOP, **more):
    tab.open(path, width, **more)
    tab.wait(READY)
    return tab


def alone(tab, path):
    """It asked for itself and nothing else, and its console is empty."""
    assert tab.requests == [path.resolve().as_uri()]
    assert tab.console == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_it_opens_and_fits(tab, run, width, dark):  # noqa: F811
    path = run.folder / "report.html"
    open_page(tab, path, width, dark=dark)
    assert tab.run("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert tab.run(OUTSIDE) == [], "parts stand out of the page"
    assert tab.run(OVERLAPPING) == [], "texts of a figure lie on each other"
    ink, paper = (tab.run(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    assert (brightness(ink) > brightness(paper)) is dark
    assert tab.run(SMALL) == [], "text too small to read"
    alone(tab, path)


OUTSIDE = """[...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll, nav, pre') && !e.closest('svg, details:not([open]) > :not(summary)'))
  .filter((e) => { const b = e.getBoundingClientRect(); return b.width && (b.left < -1 || b.right > innerWidth + 1); }).map((e) => e.outerHTML.slice(0, 90))"""
OVERLAPPING = """[...document.querySelectorAll('figure svg')].flatMap((svg) => {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].filter((t) => t.textContent).map((t) => [t.textContent, t.getBoundingClientRect()]).filter(([, b]) => b.width);
  const out = texts.filter(([, b]) => b.left < frame.left - 1 || b.right > frame.right + 1 || b.bottom > frame.bottom + 1).map(([t]) => `${t} stands out`);
  const both = texts.flatMap(([t, b], n) => texts.slice(n + 1).filter(([, c]) =>
    Math.min(b.right, c.right) - Math.max(b.left, c.left) > 1 && Math.min(b.bottom, c.bottom) - Math.max(b.top, c.top) > 3).map(([u]) => `${t} / ${u}`));
  return [...out, ...both];
})"""
SMALL = """[...document.querySelectorAll('figure svg text')].filter((t) => t.textContent && t.getBoundingClientRect().width)
  .filter((t) => (({ a, b, c, d }) => parseFloat(getComputedStyle(t).fontSize) * Math.sqrt(Math.abs(a * d - b * c)) < 8.5)(t.getScreenCTM())).map((t) => t.textContent)"""


def brightness(colour):
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3])


def choose(tab, name, text):
    """Take an option of a filter as a reader does."""
    tab.run(f"""(() => {{ const s = document.querySelector('select[name={name}]');
        s.value = [...s.options].find((o) => o.textContent.startsWith({text!r})).value; s.dispatchEvent(new Event('change')); }})()""")


def search(tab, words):
    tab.run(
        f"(() => {{ const s = document.querySelector('input[type=search]'); s.value = {words!r}; s.dispatchEvent(new Event('input')); }})()"
    )
    tab.run("new Promise((done) => setTimeout(done, 200))")


def listed(tab):
    """(how many items are found, of how many, how many wrong)"""
    return tuple(int(n) for n in re.findall(r"\d+", tab.run("document.querySelector('#explorer .count').textContent")))


def texts(tab):
    return tab.run("[...document.querySelectorAll('#explorer .item .clip')].map((e) => e.textContent)")


def facts(run, method, budget, seed):  # noqa: F811
    """(item, prediction) pairs."""
    with RunStore.read_only(run.folder) as store:
        tests = store.tests("t")
    return list(zip(tests, run.predictions(method, budget=budget, seed=seed), strict=True))


def test_filters_find_what_they_say(tab, run):  # noqa: F811
    open_page(tab, run.folder / "report.html")
    choose(tab, "series", "two")
    choose(tab, "budget", "all")
    choose(tab, "seed", "1")
    pairs = facts(run, "two", "all", 1)
    wrong = [e for e, p in pairs if p.answer != e.target]
    assert listed(tab) == (24, 24, len(wrong))
    choose(tab, "outcome", "wrong")
    assert listed(tab)[0] == len(wrong)
    assert texts(tab) == [e.fields["text"] for e in wrong]
    choose(tab, "outcome", "all items")
    choose(tab, "truth", "yes")
    assert texts(tab) == [e.fields["text"] for e, _ in pairs if e.target == "yes"]
    answer = pairs[0][1].answer
    choose(tab, "answer", answer)
    assert texts(tab) == [e.fields["text"] for e, p in pairs if e.target == "yes" and p.answer == answer]
    choose(tab, "truth", "any")
    choose(tab, "answer", "any")
    search(tab, "FILM 13")
    assert texts(tab) == [e.fields["text"] for e, _ in pairs if "13" in e.fields["text"] or "13" in e.uid]
    search(tab, "no such words")
    assert listed(tab)[0] == 0
    assert texts(tab) == []
    search(tab, "")
    choose(tab, "outcome", "methods disagree")
    others = [facts(run, "majority", "all", 1), facts(run, "zero_shot", None, None), pairs]
    assert texts(tab) == [each[0][0].fields["text"] for each in zip(*others, strict=True) if len({p.answer for _, p in each}) > 1]
    choose(tab, "outcome", "wrong by every method")
    assert texts(tab) == [each[0][0].fields["text"] for each in zip(*others, strict=True) if all(p.answer != e.target for e, p in each)]
    alone(tab, run.folder / "report.html")


def test_answers_in_words_are_not_called_wrong(tab, tmp_path, model):  # noqa: F811
    """They are compared with the references, and judged by their metrics."""
    train, test = ([{**row, "label": f"it is {row['label']}"} for row in rows(n, seed)] for n, seed in ((8, 1), (4, 2)))
    task = {"name": "t", "train": train, "test": test, "kind": "answer", "input": "text", "label": "label"}
    made = run_of(tmp_path / "run", model, tasks=[task], methods=["zero_shot"], budgets=[4], seeds=1, metrics=["token_f1"], thresholds={})
    open_page(tab, made.folder / "report.html")
    said = tab.run("document.querySelector('#explorer').textContent")
    assert "of them other than the references" in said
    assert "Reference" in said
    assert "✗" not in said
    assert "wrong" not in said
    assert "True label" not in said
    alone(tab, made.folder / "report.html")


def test_an_item_opens_with_all_that_is_known(tab, run):  # noqa: F811
    open_page(tab, run.folder / "report.html", PHONE)
    choose(tab, "series", "two")
    choose(tab, "seed", "0")
    tab.run("document.querySelector('#explorer .item > summary').click()")
    tab.wait("document.querySelector('#explorer .item .body') !== null")
    shown = tab.run("document.querySelector('#explorer .item .body').innerText")
    (example, prediction), *_ = facts(run, "two", "all", 0)
    with RunStore.read_only(run.folder) as store:
        (prompt,) = (
            text for text in store.prompts('["tiny","t","two","all",0]').values() if example.fields["text"] in text.split("\n")[-2]
        )
    assert tab.run("document.querySelector('#explorer .item .body pre').textContent") == prompt
    for part in (example.fields["text"], example.uid, "Every method on this item", "majority", "zero_shot", "nats", "Demonstrations"):
        assert part in shown
    assert f"{max(prediction.scores.sums):.2f}" in shown
    assert tab.run("document.querySelectorAll('#explorer .item .body li').length") == 3 + len(prediction.demonstrations)
    assert tab.run("document.documentElement.scrollWidth") <= PHONE


def test_a_cell_of_a_confusion_matrix_lists_its_items(tab, run):  # noqa: F811
    open_page(tab, run.folder / "report.html")
    place = "[...document.querySelectorAll('.confusions [data-series]')].find((e) => e.dataset.series === '1')"
    cell = f"{place}.querySelector('rect[data-row]')"
    row, column = tab.run(f"[{cell}.dataset.row, {cell}.dataset.column]")
    labels = run.document["tasks"]["t"]["labels"]
    tab.run(f"{cell}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    pairs = facts(run, "zero_shot", None, None)
    assert texts(tab) == [e.fields["text"] for e, p in pairs if (e.target, p.answer) == (labels[int(row)], labels[int(column)])] != []
    assert tab.run("document.querySelector('select[name=series]').selectedOptions[0].textContent") == "zero_shot"


def test_two_runs_on_one_page(tab, run, other, tmp_path):  # noqa: F811
    path = run.to_html(tmp_path / "both.html", other)
    open_page(tab, path)
    choose(tab, "series", "zero_shot (second)")
    assert texts(tab) == [e.fields["text"] for e, _ in facts(other, "zero_shot", None, None)]
    assert tab.run("document.documentElement.scrollWidth") <= DESKTOP
    alone(tab, path)


def test_it_prints(tab, run):  # noqa: F811
    open_page(tab, run.folder / "report.html")
    pdf = tab.pdf()
    assert pdf.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 30
    tab.run("window.dispatchEvent(new Event('beforeprint'))")
    tab.send("Emulation.setEmulatedMedia", media="print")
    tab.send("Emulation.setDeviceMetricsOverride", width=PAPER, height=1000, deviceScaleFactor=1, mobile=False)
    assert tab.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert tab.run("[...document.querySelectorAll('details:not(.item)')].every((e) => e.open)"), "what is folded is missing on paper"
    assert tab.run("document.documentElement.scrollWidth") <= PAPER, "a table is cut at the paper's edge"
    tab.run("window.dispatchEvent(new Event('afterprint'))")
    assert tab.run("document.querySelectorAll('details:not([open])').length") > 0, "what was folded before is folded again"


@pytest.mark.parametrize("policy", ["with its policy", "without"])
def test_hostile_strings_do_nothing(tab, hostile_run, policy):  # noqa: F811
    """Nor without the policy that would stop them."""
    path = hostile_run / "report.html"
    script = tab.send("Page.addScriptToEvaluateOnNewDocument", source="window.hits = []; window.hit = (n) => window.hits.push(n);")
    tab.send("Page.setBypassCSP", enabled=policy == "without")
    try:
        open_page(tab, path)
        tab.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        n_seen = 0
        for series in range(3):
            tab.run(
                f"""(() => {{ const s = document.querySelector('select[name=series]'); s.selectedIndex = {series}; s.dispatchEvent(new Event('change')); }})()"""
            )
            while True:
                tab.run(
                    "new Promise((done) => { document.querySelectorAll('.item > summary').forEach((each) => each.click()); setTimeout(done, 60); })"
                )
                n_seen += tab.run("document.querySelectorAll('.item .body').length")
                if not tab.run(
                    "(() => { const b = [...document.querySelectorAll('.found button')].at(-1); b.click(); return !b.disabled; })()"
                ):
                    break
        assert n_seen == 3 * len(HOSTILE) == 600
        search(tab, "<script>hit(")
        assert listed(tab)[0] > 0
        assert tab.run("window.hits") == []
        alone(tab, path)
    finally:
        tab.send("Page.setBypassCSP", enabled=False)
        tab.send("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])


def test_hostile_manifests_and_decisions_do_nothing(tab, run, tmp_path):  # noqa: F811
    source, answer = hostile_source(run)
    path = tmp_path / "hostile.html"
    path.write_text(report_page([source], answer), encoding="utf-8")
    script = tab.send("Page.addScriptToEvaluateOnNewDocument", source="window.hits = []; window.hit = (n) => window.hits.push(n);")
    tab.send("Page.setBypassCSP", enabled=True)
    try:
        open_page(tab, path, PHONE)
        tab.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        tab.run("new Promise((done) => setTimeout(done, 300))")
        assert tab.run("window.hits") == []
        assert tab.run("document.documentElement.scrollWidth") <= PHONE
        alone(tab, path)
    finally:
        tab.send("Page.setBypassCSP", enabled=False)
        tab.send("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])


def test_the_hostile_strings_would_do_something_else_where(tab, tmp_path):
    """Else the test above could not fail."""
    page = tmp_path / "naive.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><body>{' '.join(HOSTILE[:50:5])}", encoding="utf-8")
    script = tab.send("Page.addScriptToEvaluateOnNewDocument", source="window.hits = []; window.hit = (n) => window.hits.push(n);")
    tab.open(page)
    tab.run("new Promise((done) => setTimeout(done, 300))")
    assert len(tab.run("window.hits")) > 3
    assert any(url.startswith(ADDRESS) for url in tab.requests)
    tab.send("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])


def test_a_page_without_items_says_why(tab, run, tmp_path):  # noqa: F811
    """The page is no worse for it."""
    import shutil

    from icl.suite import open_run

    folder = shutil.copytree(run.folder, tmp_path / "bare")
    (folder / "store.sqlite").unlink()
    path = tmp_path / "bare.html"
    path.write_text(report_page([open_run(folder).source]), encoding="utf-8")
    tab.open(path)
    assert "no store.sqlite" in tab.run("document.querySelector('#items').innerText")
    alone(tab, path)
