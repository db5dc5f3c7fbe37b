"""Figures: geometry, escaped texts, nothing that runs or is fetched, ink that follows the page."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from icl.evaluate.confidence import coverage_curve, reliability
from icl.report import figures
from icl.report.svg import SERIES, Plot, axes, band, bar, coverage_svg, dots, figure, legend, line, reliability_svg, ticks

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("x")</script> & "quotes" \''


def parsed(svg):
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return root


def answers(n=400, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.beta(3, 1.2, n)
    return confidence, rng.random(n) < confidence


@pytest.mark.parametrize(
    ("extent", "expected"),
    [
        ((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ((0.6, 1), [0.6, 0.7, 0.8, 0.9, 1]),
        ((0, 1000), [0, 200, 400, 600, 800, 1000]),
        ((-3, 4), [-2, 0, 2, 4]),
        ((5, 5), [5]),
    ],
)
def test_ticks_are_round(extent, expected):
    assert ticks(extent) == pytest.approx(expected)


def test_points_lie_where_they_belong():
    plot = Plot((0, 2), (-1, 1), left=10, top=20, width=200, height=100)
    assert plot.at(0, -1) == (10, 120)
    assert plot.at(2, 1) == (210, 20)
    assert plot.at(1, 0) == (110, 70)
    assert plot.at(9, -9) == (210, 120)  # kept inside
    assert Plot((1, 1), (0, 1)).at(1, 0)[0] == Plot((0, 2), (0, 1)).at(1, 0)[0]
    assert 'd="M10.0 120.0L110.0 70.0"' in line(plot, [(0, -1), (1, 0)], "")
    assert 'd="M10.0 20.0L210.0 20.0L210.0 70.0L10.0 70.0Z"' in band(plot, [0, 2], ([0, 0], [1, 1]), "red")
    assert 'x="10.0" y="70.0" width="100.0" height="50.0"' in bar(plot, (0, 1), (-1, 0), "red")
    assert 'cx="110.0" cy="70.0"' in dots(plot, [(1, 0)], "red")
    assert line(plot, [], "") == band(plot, [], ([], []), "red") == dots(plot, [], "red") == ""


@pytest.mark.parametrize("alone", [True, False])
def test_a_figure_is_read_out_and_runs_nothing(alone):
    plot = Plot((0, 1), (0, 1))
    parts = [axes(plot, HOSTILE, HOSTILE), legend(0, 0, [HOSTILE] * 8), dots(plot, [(0, 0)], "red", [HOSTILE])]
    svg = figure(HOSTILE, HOSTILE, parts, (100, 100), alone=alone)
    root = parsed(svg)
    assert root.attrib["role"] == "img"
    ids = root.attrib["aria-labelledby"].split()
    titles = {element.attrib["id"]: element.text for element in root.iter() if element.attrib.get("id") in ids}
    assert titles == dict.fromkeys(ids, HOSTILE)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {"svg", "title", "desc", "style", "g", "path", "text", "circle"}
    assert not re.search(r"<script|href|url\(|@import|\bon[a-z]+=", svg)
    assert svg.count("http") == 1  # the namespace
    assert ("<style>" in svg) is alone
    assert sum(element.text == HOSTILE for element in root.iter(f"{SVG}text")) == 11
    strokes = [element.attrib.get("stroke", "") for element in root.iter(f"{SVG}path")]
    assert all(s == "currentColor" or s.startswith("var(--icl-series-") for s in strokes)
    lines = [
        (e.attrib["stroke"], e.attrib.get("stroke-dasharray")) for e in root.iter(f"{SVG}path") if e.attrib["stroke"].startswith("var")
    ]
    assert len(set(lines)) == 8  # more series than colours, all told apart


def test_two_figures_on_a_page_have_names_of_their_own():
    one, two = (parsed(figure("Same", text, [], (1, 1))).attrib["aria-labelledby"] for text in ("a", "b"))
    assert set(one.split()).isdisjoint(two.split())


def test_the_reliability_diagram_shows_its_bins():
    confidence, right = answers()
    bins = reliability(confidence, right, 10)
    root = parsed(reliability_svg(bins, 10, "t"))
    bars = [e for e in root.iter(f"{SVG}rect") if e.attrib["fill"].startswith("var")]
    assert len(bars) == len(bins)
    plot = Plot((0, 1), (0, 1))
    for drawn, each in zip(bars, bins, strict=True):
        at = min(9, int(np.ceil(each.confidence * 10)) - 1)
        left, top = plot.at(at / 10, each.accuracy)
        assert float(drawn.attrib["x"]) == pytest.approx(left, abs=0.06)
        assert float(drawn.attrib["y"]) == pytest.approx(top, abs=0.06)
        assert float(drawn.attrib["width"]) == pytest.approx(plot.width / 10, abs=0.11)
        assert float(drawn.attrib["height"]) == pytest.approx(plot.height * each.accuracy, abs=0.11)
        assert drawn[0].text == f"said {each.confidence:.1%}, right {each.accuracy:.1%}, {each.n:,} answers"
    centres = [(float(e.attrib["cx"]), float(e.attrib["cy"])) for e in root.iter(f"{SVG}circle")]
    assert centres == [pytest.approx(plot.at(b.confidence, b.accuracy), abs=0.06) for b in bins]
    gap = sum(abs(b.accuracy - b.confidence) * b.n for b in bins) / 400
    assert root.find(f"{SVG}desc").text.endswith(f"is {gap:.3f}.")
    whole = [e for e in root.iter() if "x" in e.attrib or "cx" in e.attrib]
    width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
    for element in whole:
        assert 0 <= float(element.attrib.get("x", element.attrib.get("cx"))) <= width
        assert 0 <= float(element.attrib.get("y", element.attrib.get("cy"))) <= height
    parsed(reliability_svg([], 10))
    assert next(e.attrib["x"] for e in parsed(reliability_svg([(1.0, 1.0, 3)], 10)).iter(f"{SVG}rect")) == f"{plot.at(0.9, 0)[0]:.1f}"


def test_the_curve_goes_through_its_points():
    curves = {"one": coverage_curve(*answers()), "two": coverage_curve(*answers(seed=1))}
    root = parsed(coverage_svg(curves, "t"))
    lowest = min(p.accuracy for points in curves.values() for p in points)
    plot = Plot((0, 1), (np.floor(lowest * 10) / 10, 1))
    centres = [(float(e.attrib["cx"]), float(e.attrib["cy"])) for e in root.iter(f"{SVG}circle")]
    assert centres == [pytest.approx(plot.at(p.coverage, p.accuracy), abs=0.06) for points in curves.values() for p in points]
    assert [e.text for e in root.iter(f"{SVG}text")][-2:] == ["one", "two"]
    assert "right where all are answered" in root.find(f"{SVG}desc").text
    assert all(color in coverage_svg(curves) for color in SERIES[:2])
    parsed(coverage_svg({}))


def test_the_figures_of_a_run():
    confidence, right = answers()
    bins, curve = ([list(each) for each in found] for found in (reliability(confidence, right), coverage_curve(confidence, right)))

    def record(method, budget, model=None):
        return {"model": model, "task": "../x", "method": method, "budget": budget, "n": 400, "n_bins": 15, "bins": bins, "curve": curve}

    found = figures(
        {"confidence": [record("zero", None, "m"), record("a", 16), record("a", "all"), record("b", 16, "m"), record("b", 16, "n")]}
    )
    assert len(found) == 5 + 2
    assert not any(name.startswith((".", "/")) or ".." in name for name in found)
    (small,) = (svg for name, svg in found.items() if name.endswith("coverage-16.svg"))
    assert [name for name in ("zero (m)", "a", "b (m)", "b (n)") if f">{name}<" in small] == ["zero (m)", "a", "b (m)", "b (n)"]
    for svg in found.values():
        parsed(svg)
    assert figures({"records": []}) == {}
