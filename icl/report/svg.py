"""Figures as SVG text: a plot with axes, and lines, bands, bars and dots in it. No script, nothing from the network.

Ink is `currentColor` and series are `var(--icl-series-N, …)`, so that a page sets both, light or dark. Texts are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ..values import digest

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6f4fa0", "#7d6b4f")
"""Okabe and Ito 2008, told apart by colour-blind readers too, and a violet and a brown."""
WIDTH = 466.0
DASHES = ("", "6 3", "2 3")
"""Series beyond the colours repeat them with another dash."""
_OWN_PAPER = (
    ".icl-figure{color:#1a1a1a;background:#ffffff}@media (prefers-color-scheme:dark){"
    ".icl-figure{color:#e6e6e6;background:#161616;--icl-series-0:#56b4e9;--icl-series-5:#b3a5f2;--icl-series-6:#e8e06a;--icl-series-7:#c2b59b}}"
)
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Plot:
    """A rectangle of the figure, in pixels, that shows a range of x and y. x or y of no extent is widened."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 64
    top: float = 34
    width: float = 374
    height: float = 240

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels, from the upper left corner of the figure, of a point; one outside the ranges lies on the border."""
        return self.left + self.width * _share(x, self.x), self.top + self.height * (1 - _share(y, self.y))


def _share(value: float, extent: tuple[float, float]) -> float:
    low, high = extent
    return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5


def ticks(extent: tuple[float, float], most: int = 6) -> list[float]:
    """At most `most` round values within a range, at steps of 1, 2 or 5 times a power of ten."""
    low, high = extent
    if not high > low:
        return [low]
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def series(n: int) -> str:
    """Colour and dash of the n-th series, from 0, as attributes of a stroke."""
    dash = DASHES[n // len(SERIES) % len(DASHES)]
    return f'stroke="{colour(n)}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def colour(n: int) -> str:
    """Of the n-th series, from 0."""
    return f"var(--icl-series-{n % len(SERIES)}, {SERIES[n % len(SERIES)]})"


def axes(plot: Plot, x_label: str, y_label: str, *, percent: bool = True, x_ticks: bool = True, x_room: bool = False) -> str:
    """Frame, grid, ticks and the names of both axes. x_room: the name of x leaves room for ticks that are drawn otherwise."""
    parts = []
    for value in ticks(plot.y):
        x, y = plot.at(plot.x[0], value)
        parts.append(f'<path d="M{x:.1f} {y:.1f}h{plot.width:.1f}" stroke="currentColor" stroke-opacity=".15"/>')
        parts.append(text(x - 6, y + 4, _number(value, percent), anchor="end"))
    for value in ticks(plot.x) if x_ticks else ():
        x, y = plot.at(value, plot.y[0])
        parts.append(f'<path d="M{x:.1f} {y:.1f}v4" stroke="currentColor"/>')
        parts.append(text(x, y + 17, _number(value, percent), anchor="middle"))
    x, y = plot.at(plot.x[0], plot.y[1])
    parts.append(f'<path d="M{x:.1f} {y:.1f}v{plot.height:.1f}h{plot.width:.1f}" fill="none" stroke="currentColor"/>')
    parts.append(text(plot.left + plot.width / 2, plot.top + plot.height + (34 if x_ticks or x_room else 17), x_label, anchor="middle"))
    middle = plot.top + plot.height / 2
    parts.append(text(13, middle, y_label, anchor="middle", more=f' transform="rotate(-90 13 {middle:.1f})"'))
    return "".join(parts)


def _number(value: float, percent: bool) -> str:
    return f"{value * 100:.6g} %" if percent else f"{value:.6g}"


def text(x: float, y: float, content: str, *, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(content)}</text>'


def line(plot: Plot, points: Points, stroke: str, *, width: float = 2) -> str:
    """stroke: attributes, as `series` gives them."""
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (plot.at(*p) for p in points))
    return f'<path d="M{path}" fill="none" stroke-width="{width:g}" {stroke}/>' if points else ""


def band(plot: Plot, xs: Sequence[float], ends: tuple[Sequence[float], Sequence[float]], fill: str, opacity: float = 0.2) -> str:
    """The area between two curves, such as an interval's lower and upper ends."""
    lows, highs = ends
    outline = [*zip(xs, highs, strict=True), *reversed(list(zip(xs, lows, strict=True)))]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (plot.at(*p) for p in outline))
    return f'<path d="M{path}Z" fill="{fill}" fill-opacity="{opacity:g}"/>' if outline else ""


def bar(plot: Plot, x: tuple[float, float], y: tuple[float, float], fill: str, tip: str = "", opacity: float = 0.45) -> str:
    """A filled rectangle with a text that a pointer shows."""
    left, bottom = plot.at(x[0], y[0])
    right, top = plot.at(x[1], y[1])
    size = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
    return f'<rect {size} fill="{fill}" fill-opacity="{opacity:g}" stroke="{fill}">{_tip(tip)}</rect>'


def ring(n: int) -> str:
    """How a dot of the n-th series is filled, as attributes: series that share a colour with an earlier one have rings."""
    if n // len(SERIES) % 2 == 0:
        return f'fill="{colour(n)}"'
    return f'fill="var(--icl-paper, #fff)" stroke="{colour(n)}" stroke-width="2"'


def dots(plot: Plot, points: Points, fill: str, tips: Sequence[str] = (), radius: float = 3) -> str:
    """A dot for each point, each with a text that a pointer shows. fill: a colour, or attributes as `ring` gives them."""
    filled = fill if "=" in fill else f'fill="{fill}"'
    at = [plot.at(*p) for p in points]
    said = tips or [""] * len(at)
    return "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" {filled}>{_tip(tip)}</circle>' for (x, y), tip in zip(at, said, strict=True)
    )


def _tip(content: str) -> str:
    return f"<title>{escape(content)}</title>" if content else ""


def legend(x: float, y: float, names: Iterable[str | tuple[int, str]]) -> str:
    """The names of the series, one below the other; each the next series, or that of a given number."""
    shown = [(n, name) if isinstance(name, str) else name for n, name in enumerate(names)]
    return "".join(
        f'<path d="M{x:.1f} {y + 18 * at - 4:.1f}h22" stroke-width="2" {series(n)}/>{text(x + 28, y + 18 * at, name)}'
        for at, (n, name) in enumerate(shown)
    )


def figure(title: str, description: str, parts: Iterable[str], size: tuple[float, float], *, alone: bool = False) -> str:
    """A whole figure. title is shown and read out, description read out. alone: for a file of its own, with its own paper and ink."""
    body = "".join(parts)
    key = digest([title, description, body], size=6)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="icl-figure" viewBox="0 0 {size[0]:g} {size[1]:g}" width="{size[0]:g}" '
        f'height="{size[1]:g}" font-family="system-ui, sans-serif" font-size="12" role="img" aria-labelledby="t{key} d{key}">'
    )
    style = f"<style>{_OWN_PAPER}</style>" if alone else ""
    words = f'<title id="t{key}">{escape(title)}</title><desc id="d{key}">{escape(description)}</desc>'
    shown = text(size[0] / 2, 18, title, anchor="middle", more=' font-weight="600"')
    return f'{head}{words}{style}<g fill="currentColor">{shown}{body}</g></svg>\n'


def reliability_svg(bins: Sequence[tuple[float, float, int]], n_bins: int, title: str = "Reliability", *, alone: bool = False) -> str:
    """How often answers are right, against how probable they were said to be, with the number of answers below.

    bins: (mean confidence, accuracy, answers) of each bin of equal width that holds any, as `evaluate.confidence.reliability` gives them.
    Calibrated answers lie on the diagonal.
    """
    plot, below = Plot((0, 1), (0, 1)), Plot((0, 1), (0, 1), top=288, height=46)
    total = sum(n for *_, n in bins)
    most = max((n for *_, n in bins), default=1)
    gap = sum(abs(accuracy - confidence) * n for confidence, accuracy, n in bins) / max(1, total)
    parts = [axes(plot, "", "right", x_ticks=False)]
    for confidence, accuracy, n in bins:
        at = min(n_bins - 1, max(0, math.ceil(confidence * n_bins - 1e-9) - 1))
        edges = at / n_bins, (at + 1) / n_bins
        tip = f"said {confidence:.1%}, right {accuracy:.1%}, {n:,} answers"
        parts += [bar(plot, edges, (0, accuracy), colour(0), tip), bar(below, edges, (0, n / most), "currentColor", tip, 0.3)]
    parts.append(line(plot, [(0, 0), (1, 1)], 'stroke="currentColor" stroke-dasharray="4 3"', width=1))
    parts.append(dots(plot, [(c, a) for c, a, _ in bins], colour(1)))
    parts.append(axes_of_counts(below, most))
    said = f"{total:,} answers in {len(bins)} of {n_bins} bins of confidence; the mean gap between confidence and accuracy is {gap:.3f}."
    return figure(title, said, parts, (WIDTH, 376), alone=alone)


def axes_of_counts(plot: Plot, most: int) -> str:
    """The lower panel: the same x axis, and how many answers the highest bar stands for."""
    x, y = plot.at(0, 0)
    marks = "".join(
        f'<path d="M{plot.at(v, 0)[0]:.1f} {y:.1f}v4" stroke="currentColor"/>'
        + text(plot.at(v, 0)[0], y + 17, _number(v, True), anchor="middle")
        for v in ticks(plot.x)
    )
    frame = f'<path d="M{x:.1f} {y:.1f}h{plot.width:.1f}" stroke="currentColor"/>'
    return f"{frame}{marks}{text(x - 6, plot.top + 8, f'{most:,}', anchor='end')}" + text(
        plot.left + plot.width / 2, y + 34, "probability of the answer", anchor="middle"
    )


def coverage_svg(
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    title: str = "Accuracy against coverage",
    *,
    alone: bool = False,
    numbers: Sequence[int] | None = None,
) -> str:
    """Accuracy of the answers given, against the share of items that are answered, a line per series.

    curves: name -> (coverage, accuracy, threshold), as `evaluate.confidence.coverage_curve` gives them. numbers: of the series, whose
    names then stand elsewhere; by default the names stand below.
    """
    lowest = min((accuracy for points in curves.values() for _, accuracy, _ in points), default=0.0)
    plot = Plot((0, 1), (min(0.9, math.floor(lowest * 10 + 1e-9) / 10), 1))
    parts = [axes(plot, "share of items answered", "right among those answered")]
    for n, points in zip(numbers or range(len(curves)), curves.values(), strict=True):
        at = [(coverage, accuracy) for coverage, accuracy, _ in points]
        tips = [
            f"{coverage:.1%} answered, {accuracy:.1%} of them right, from a probability of {t:.3f} on" for coverage, accuracy, t in points
        ]
        parts += [line(plot, at, series(n)), dots(plot, at, colour(n), tips)]
    bottom = plot.top + plot.height + (58 if numbers is None else 46)
    parts.append(legend(plot.left, bottom, curves) if numbers is None else "")
    ends = [f"{name}: {points[-1][1]:.1%} right where all are answered" for name, points in curves.items() if points]
    size = (WIDTH, bottom + (18 * len(curves) if numbers is None else 0))
    return figure(title, f"{'; '.join(ends)}.", parts, size, alone=alone)
