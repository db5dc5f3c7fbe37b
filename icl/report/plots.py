"""The figures of the report page as SVG text: curves with bands, points with intervals, rows of intervals, dots and bars, matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from .svg import WIDTH, Plot, axes, band, colour, dots, figure, legend, line, ring, series, text, ticks

ROW = 24.0
"""Pixels of a row in figures that list things."""
NAME_LENGTH = 26
"""Characters of a name in a figure; the whole of it is in the tip."""


class Mark(NamedTuple):
    """A figure with its interval at a place."""

    x: float
    value: float
    low: float | None = None
    high: float | None = None
    tip: str = ""


class Crossing(NamedTuple):
    """From how many labels on training wins; infinity is beyond the last label budget, an estimate of None too."""

    estimate: float | None
    low: float
    high: float
    tip: str = ""


class Curve(NamedTuple):
    """A series: its number (colour and dash), its name, its marks by x. is_flat: the same at every x, so it has one mark."""

    n: int
    name: str
    marks: Sequence[Mark]
    is_flat: bool = False


def short(name: str, length: int = NAME_LENGTH) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _extent(values: Sequence[float], bounds: tuple[float, float] | None = None) -> tuple[float, float]:
    """A range with a little room, within the bounds."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    low, high = low - room, high + room
    return (max(low, bounds[0]), min(high, bounds[1])) if bounds else (low, high)


def _ends(mark: Mark) -> list[float]:
    return [v for v in (mark.value, mark.low, mark.high) if v is not None]


def curves_svg(
    curves: Sequence[Curve], title: str, y_label: str, bounds: tuple[float, float] | None, crossing: Crossing | None = None
) -> str:
    """Learning curves with bands of their intervals, over the logarithm of the labels owned. A flat one is a line with a dot at its right
    end. crossing: from how many labels on training wins."""
    xs = sorted({mark.x for curve in curves if not curve.is_flat for mark in curve.marks}) or [1.0]
    logs = [math.log(max(x, 1e-9)) for x in xs]
    percent = bounds == (0.0, 1.0)
    plot = Plot((logs[0], logs[-1]), _extent([v for c in curves for m in c.marks for v in _ends(m)], bounds))
    parts = [axes(plot, "labels owned", y_label, percent=percent, x_ticks=False, x_room=True), _names_of_x(plot, xs)]
    parts.append(_crossing(plot, crossing) if crossing is not None and len(xs) > 1 else "")
    for curve in curves:
        marks = sorted(curve.marks)
        at = [(logs[0] if curve.is_flat else math.log(max(m.x, 1e-9)), m.value) for m in marks]
        if curve.is_flat and at:
            at = [at[0], (logs[-1], at[0][1])]
        known = [(x, m) for (x, _), m in zip(at, marks, strict=False) if m.low is not None and m.high is not None]
        if not curve.is_flat and len(known) > 1:
            ends = [m.low or 0.0 for _, m in known], [m.high or 0.0 for _, m in known]
            parts.append(band(plot, [x for x, _ in known], ends, colour(curve.n), 0.2 if len(curves) < 4 else 0.12))
        elif not curve.is_flat:
            parts += [_whisker(plot, x, m, curve.n) for x, m in known]
        parts.append(line(plot, at, series(curve.n), width=1.5 if curve.is_flat else 2))
        parts.append(dots(plot, at[-1:] if curve.is_flat else at, ring(curve.n), [m.tip for m in marks]))
    last = [f"{c.name}: {c.marks[-1].tip}" for c in curves if c.marks]
    return figure(title, "; ".join(last), parts, (WIDTH, plot.top + plot.height + 46))


def _crossing(plot: Plot, crossing: Crossing) -> str:
    """An upright stroke at the estimate, over the shade of its interval; what lies beyond the last label budget ends there."""
    left, right = (plot.at(math.log(max(x, 1e-9)) if x < math.inf else plot.x[1], plot.y[1])[0] for x in (crossing.low, crossing.high))
    shade = f'<rect x="{left:.1f}" y="{plot.top:.1f}" width="{max(right - left, 1):.1f}" height="{plot.height:.1f}" fill="currentColor" fill-opacity=".07"/>'
    stroke = ""
    if crossing.estimate is not None:
        x = plot.at(math.log(max(crossing.estimate, 1e-9)), plot.y[1])[0]
        stroke = f'<path d="M{x:.1f} {plot.top:.1f}v{plot.height:.1f}" stroke="currentColor" stroke-width="1.5" stroke-dasharray="5 3"/>'
    return f"<g>{shade}{stroke}<title>{escape(crossing.tip)}</title></g>"


def _names_of_x(plot: Plot, xs: Sequence[float]) -> str:
    """The measured x themselves, left out where they would overlap."""
    parts, last = [], -math.inf
    for x in xs:
        left, bottom = plot.at(math.log(max(x, 1e-9)), plot.y[0])
        parts.append(f'<path d="M{left:.1f} {bottom:.1f}v4" stroke="currentColor"/>')
        if left - last > 34:
            parts.append(text(left, bottom + 17, f"{x:,.6g}", anchor="middle"))
            last = left
    return "".join(parts)


def _whisker(plot: Plot, x: float, mark: Mark, n: int) -> str:
    (left, top), (_, bottom) = plot.at(x, mark.high or 0.0), plot.at(x, mark.low or 0.0)
    return f'<path d="M{left:.1f} {top:.1f}V{bottom:.1f}" stroke="{colour(n)}" stroke-opacity=".55" stroke-width="1.5"/>'


def cost_svg(
    curves: Sequence[Curve], title: str, labels: tuple[str, str], bounds: tuple[float, float] | None, tick: Callable[[float], str]
) -> str:
    """What a figure costs: one point per series with its interval, over the logarithm of the cost. Costs must be above 0.

    labels: of x and y. tick: a round cost in words.
    """
    marks = [mark for curve in curves for mark in curve.marks]
    logs = [math.log10(mark.x) for mark in marks]
    low, high = min(logs), max(logs)
    room = max(0.15, 0.06 * (high - low))
    plot = Plot((low - room, high + room), _extent([v for m in marks for v in _ends(m)], bounds))
    parts = [axes(plot, *labels, percent=bounds == (0.0, 1.0), x_ticks=False, x_room=True)]
    for power in _powers(plot.x):
        x, y = plot.at(math.log10(power), plot.y[0])
        parts.append(f'<path d="M{x:.1f} {y:.1f}v4" stroke="currentColor"/>{text(x, y + 17, tick(power), anchor="middle")}')
    for curve in curves:
        for mark in curve.marks:
            at = math.log10(mark.x)
            if mark.low is not None:
                parts.append(_whisker(plot, at, mark, curve.n))
            parts.append(dots(plot, [(at, mark.value)], ring(curve.n), [f"{curve.name}: {mark.tip}"], radius=5))
    said = "; ".join(f"{c.name}: {m.tip}" for c in curves for m in c.marks)
    return figure(title, said, parts, (WIDTH, plot.top + plot.height + 46))


def _powers(extent: tuple[float, float]) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, and with fewer than three of them multiples between those."""
    powers = range(math.floor(extent[0]) - 1, math.ceil(extent[1]) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8)):
        found = [f * 10.0**p for p in powers for f in factors if extent[0] <= math.log10(f * 10.0**p) <= extent[1]]
        if len(found) > 2:
            break
    step = max(1, math.ceil(len(found) / 7))
    return found[::step]


class Row(NamedTuple):
    """A line of a figure that lists things: a name, and marks in it."""

    n: int
    name: str
    marks: Sequence[Mark]
    mean: float | None = None


def rows_svg(rows: Sequence[Row], title: str, x_label: str, *, percent: bool, zero: bool = False) -> str:
    """One row per name: its marks with their intervals. zero: with a line at 0; else an upright stroke at each row's mean."""
    values = [v for row in rows for mark in row.marks for v in _ends(mark)] + ([0.0] if zero else [])
    plot = Plot(_extent(values), (0, 1), left=178, top=34, width=WIDTH - 178 - 22, height=ROW * len(rows) + 8)
    parts = []
    for value in ticks(plot.x, 7):
        x, y = plot.at(value, 0)
        shown = (
            "0"
            if zero and abs(value) < 1e-12
            else f"{value * 100:+.6g}"
            if zero and percent
            else f"{value * 100:.6g} %"
            if percent
            else f"{value:.6g}"
        )
        parts.append(f'<path d="M{x:.1f} {y:.1f}v{-plot.height:.1f}" stroke="currentColor" stroke-opacity=".15"/>')
        parts.append(text(x, y + 17, shown, anchor="middle"))
    if zero:
        x, y = plot.at(0, 0)
        parts.append(f'<path d="M{x:.1f} {y:.1f}v{-plot.height:.1f}" stroke="currentColor" stroke-dasharray="4 3"/>')
    for at, row in enumerate(rows):
        y = plot.top + ROW * (at + 0.5) + 4
        parts.append(f"<g>{text(plot.left - 10, y + 4, short(row.name), anchor='end')}<title>{escape(row.name)}</title></g>")
        if row.mean is not None:
            x = plot.at(row.mean, 0)[0]
            parts.append(f'<path d="M{x:.1f} {y - 8:.1f}v16" stroke="{colour(row.n)}" stroke-width="3"/>')
        for mark in row.marks:
            parts.append(_interval(plot, mark, y, row.n))
    parts.append(text(plot.left + plot.width / 2, plot.top + plot.height + 36, x_label, anchor="middle"))
    said = "; ".join(f"{row.name}: {', '.join(m.tip for m in row.marks)}" for row in rows)
    return figure(title, said, parts, (WIDTH, plot.top + plot.height + 44))


def _interval(plot: Plot, mark: Mark, y: float, n: int) -> str:
    x = plot.at(mark.value, 0)[0]
    stroke = ""
    if mark.low is not None and mark.high is not None:
        left, right = plot.at(mark.low, 0)[0], plot.at(mark.high, 0)[0]
        stroke = f'<path d="M{left:.1f} {y:.1f}H{right:.1f}" stroke="{colour(n)}" stroke-width="2"/>'
    dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill-opacity=".8" {ring(n)}/>'
    return f"<g>{stroke}{dot}<title>{escape(mark.tip)}</title></g>"


def bars_svg(rows: Sequence[tuple[str, Sequence[float]]], kinds: Sequence[str], title: str, x_label: str) -> str:
    """Stacked horizontal bars: a row per name, a part per kind."""
    most = max((sum(parts) for _, parts in rows), default=1.0) or 1.0
    plot = Plot((0, most), (0, len(rows)), left=178, top=34, width=WIDTH - 178 - 22, height=ROW * len(rows) + 8)
    shown = []
    for value in ticks(plot.x, 5):
        x = plot.at(value, 0)[0]
        shown.append(f'<path d="M{x:.1f} {plot.top:.1f}v{plot.height:.1f}" stroke="currentColor" stroke-opacity=".15"/>')
        shown.append(text(x, plot.top + plot.height + 17, f"{value:,.6g}", anchor="middle"))
    for at, (name, values) in enumerate(rows):
        y = plot.top + ROW * at + 4
        shown.append(f"<g>{text(plot.left - 10, y + ROW / 2 + 4, short(name), anchor='end')}<title>{escape(name)}</title></g>")
        start = 0.0
        for n, value in enumerate(values):
            left, right = plot.at(start, 0)[0], plot.at(start + value, 0)[0]
            if value > 0:
                size = f'x="{left:.1f}" y="{y + 4:.1f}" width="{max(right - left, 0.6):.1f}" height="{ROW - 8:.1f}"'
                tip = f"{name}, {kinds[n]}: {value:,.3g}"
                shown.append(f'<rect {size} fill="{colour(n)}"><title>{escape(tip)}</title></rect>')
            start += value
    bottom = plot.top + plot.height + 36
    shown.append(text(plot.left + plot.width / 2, bottom, x_label, anchor="middle"))
    shown.append(legend(plot.left, bottom + 22, list(enumerate(kinds))))
    said = "; ".join(f"{name}: {', '.join(f'{k} {v:,.3g}' for k, v in zip(kinds, values, strict=True))}" for name, values in rows)
    return figure(title, said, shown, (WIDTH, bottom + 12 + 18 * len(kinds)))


def matrix_svg(labels: Sequence[str], counts: Mapping[tuple[int, int], int], title: str, most_numbers: int = 14) -> str:
    """A confusion matrix: rows are the true labels, columns the answers; the last column is what was not answered if a count has it.

    counts: (row, column) -> items. Shade is the share of the row. Up to `most_numbers` labels have their counts written in.
    """
    n_rows = len(labels)
    n_columns = n_rows + any(column >= n_rows for _, column in counts)
    names = [*labels, "not answered"][:n_columns]
    left, top = 132.0, 34.0
    cell = min(44.0, (WIDTH - left - 12) / max(1, n_columns))
    totals = [sum(n for (row, _), n in counts.items() if row == at) for at in range(n_rows)]
    parts = []
    for (row, column), n in sorted(counts.items()):
        share = n / totals[row]
        x, y = left + column * cell, top + row * cell
        right = row == column
        tip = f"{labels[row]} → {names[column]}: {n:,} of {totals[row]:,}"
        size = f'x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}"'
        fill = f'fill="{colour(0 if right else 1)}" fill-opacity="{0.08 + 0.72 * share:.2f}"'
        parts.append(f'<rect {size} {fill} data-row="{row}" data-column="{column}"><title>{escape(tip)}</title></rect>')
        if n_rows <= most_numbers:
            parts.append(text(x + cell / 2, y + cell / 2 + 4, f"{n:,}", anchor="middle", more=' pointer-events="none"'))
    size_of_type = min(12.0, max(6.0, cell))
    for at, name in enumerate(labels):
        more = f' font-size="{size_of_type:g}"'
        parts.append(
            f"<g>{text(left - 6, top + (at + 0.5) * cell + 4, short(name, 19), anchor='end', more=more)}<title>{escape(name)}</title></g>"
        )
    bottom = top + n_rows * cell
    for at, name in enumerate(names):
        x = left + (at + 0.5) * cell + 4
        turn = f' font-size="{size_of_type:g}" transform="rotate(-90 {x:.1f} {bottom + 6:.1f})"'
        parts.append(f"<g>{text(x, bottom + 6, short(name, 19), anchor='end', more=turn)}<title>{escape(name)}</title></g>")
    frame = f'x="{left:.1f}" y="{top:.1f}" width="{cell * n_columns:.1f}" height="{cell * n_rows:.1f}"'
    parts.append(f'<rect {frame} fill="none" stroke="currentColor" stroke-opacity=".4" pointer-events="none"/>')
    right_ones = sum(n for (row, column), n in counts.items() if row == column)
    said = f"{right_ones:,} of {sum(totals):,} answers are right; rows are the true labels, columns the answers"
    return figure(title, said, parts, (WIDTH, bottom + 130))


def losses_svg(curves: Sequence[Curve], title: str, labels: tuple[str, str]) -> str:
    """Training curves: a value over the epochs. labels: of x and y."""
    marks = [mark for curve in curves for mark in curve.marks]
    xs = [mark.x for mark in marks]
    plot = Plot((min(xs), max(xs)), _extent([mark.value for mark in marks]), height=190)
    parts = [axes(plot, "", labels[1], percent=False, x_ticks=False, x_room=True)]
    for value in (v for v in ticks(plot.x, 8) if float(v).is_integer()):
        x, y = plot.at(value, plot.y[0])
        parts.append(f'<path d="M{x:.1f} {y:.1f}v4" stroke="currentColor"/>{text(x, y + 17, f"{value:g}", anchor="middle")}')
    for curve in curves:
        at = [(mark.x, mark.value) for mark in curve.marks]
        parts += [line(plot, at, series(curve.n)), dots(plot, at, colour(curve.n), [mark.tip for mark in curve.marks])]
    bottom = plot.top + plot.height + 34
    parts.append(text(plot.left + plot.width / 2, bottom, labels[0], anchor="middle"))
    names = [(c.n, short(c.name, 54)) for c in curves if len(curves) > 1]
    parts.append(legend(plot.left, bottom + 24, names))
    said = "; ".join(f"{c.name}: {c.marks[-1].value:.4g} after {labels[0]} {c.marks[-1].x:g}" for c in curves)
    return figure(title, said, parts, (WIDTH, bottom + 10 + 18 * len(names)))
