"""Pieces of HTML: everything that comes from outside is escaped here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from .svg import series

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Safe(str):
    """Text that is HTML already."""

    __slots__ = ()


class Num(NamedTuple):
    """A cell that holds a figure: aligned to the right. note: what stands beside it, smaller. mark: a class for its colour."""

    value: str
    note: str = ""
    mark: str = ""


Cell = str | Safe | Num


def clean(page: str) -> str:
    """Without what no page may hold: control characters and halves of surrogate pairs."""
    return _UNFIT.sub("\ufffd", page)


def esc(content: object) -> Safe:
    return content if isinstance(content, Safe) else Safe(escape(str(content)))


def name(content: object) -> Safe:
    """A name from outside, whose writing direction stays its own."""
    return Safe(f"<bdi>{escape(str(content))}</bdi>")


def paragraph(content: object, kind: str = "") -> Safe:
    return Safe(f"<p{_class(kind)}>{esc(content)}</p>")


def table(head: Sequence[Cell], rows: Iterable[Sequence[Cell]], *, kind: str = "") -> Safe:
    """A table in a frame that scrolls sideways. A column is a column of figures where its head is `Num`; empty ones are left out."""
    body = [list(row) for row in rows]
    kept = [i for i in range(len(head)) if any(_said(row[i]) for row in body)]
    heads = "".join(_cell(head[i], "th", ' scope="col"') for i in kept)
    lines = (
        "<tr>" + "".join(_cell(row[i], "th" if not i else "td", ' scope="row"' if not i else "") for i in kept) + "</tr>" for row in body
    )
    inside = f"<table{_class(kind)}><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return Safe(f'<div class="scroll" tabindex="0">{inside}</div>')


def _said(cell: Cell) -> bool:
    return bool(cell.value if isinstance(cell, Num) else cell)


def _cell(cell: Cell, tag: str, more: str) -> str:
    if isinstance(cell, Num):
        note = f" <small>{esc(cell.note)}</small>" if cell.note else ""
        return f'<{tag}{more} class="{" ".join(filter(None, ("n", cell.mark)))}">{esc(cell.value)}{note}</{tag}>'
    return f"<{tag}{more}>{cell if isinstance(cell, Safe) else name(cell)}</{tag}>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def sample(n: int) -> Safe:
    """The n-th series' colour and dash."""
    return Safe(
        f'<svg class="sample" width="20" height="10" viewBox="0 0 20 10" aria-hidden="true"><path d="M1 5h18" stroke-width="3" {series(n)}/></svg>'
    )


def legend(names: Iterable[tuple[int, str]]) -> Safe:
    """Which series has which colour: (number, name) of each, for all figures of a part."""
    return Safe(f'<ul class="legend">{"".join(f"<li>{sample(n)}{name(each)}</li>" for n, each in names)}</ul>')


MOST_DRAWN = 350_000
"""Characters of the figures of one group: a suite of many tasks would else fill the page with them."""


def figures(drawn: Iterable[str]) -> Safe:
    """SVG figures side by side, as many as fit; how many were left out is said."""
    shown: list[str] = []
    n_left_out = 0
    for svg in filter(None, drawn):
        if shown and sum(map(len, shown)) + len(svg) > MOST_DRAWN:
            n_left_out += 1
        else:
            shown.append(f"<figure>{svg}</figure>")
    more = paragraph(f"{n_left_out:,} more figures are left out to keep the page small.", "note") if n_left_out else ""
    kind = "figures three" if len(shown) % 3 == 0 else "figures"
    return Safe(f'<div class="{kind}">{"".join(shown)}</div>{more}' if shown else "")


def fold(summary: object, body: str, *, is_open: bool = False) -> Safe:
    """A part that opens on a click; in print it is open."""
    return Safe(f"<details{' open' if is_open else ''}><summary>{esc(summary)}</summary>{body}</details>" if body else "")


class Section(NamedTuple):
    """A part of the page; without a body it is left out."""

    key: str
    """Its anchor."""
    title: str
    body: str
    short: str = ""
    """Its name in the list of parts."""

    def html(self) -> Safe:
        heading = f'<h2 id="{self.key}-h">{escape(self.title)}</h2>'
        return Safe(f'<section id="{self.key}" aria-labelledby="{self.key}-h">{heading}{self.body}</section>' if self.body else "")


_FIGURE = re.compile("<figure>.*?</figure>", re.DOTALL)
_TABLE = re.compile('<div class="scroll".*?</table></div>', re.DOTALL)


def n_bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def fitted(sections: Sequence[Section], most: int) -> list[Section]:
    """The parts with this many bytes at most together: of the largest ones the last figures are left out, then their last tables."""
    sizes = sorted(n_bytes(section.body) for section in sections)
    share, left = 0, most
    for n, size in enumerate(sizes):  # what small parts do not need is left for the others
        share = left // (len(sizes) - n)
        if size > share:
            break
        left -= size
    else:
        return list(sections)
    return [section if n_bytes(section.body) <= share else section._replace(body=_shortened(section.body, share)) for section in sections]


def _shortened(body: str, most: int) -> str:
    for kind, what in ((_FIGURE, "figures"), (_TABLE, "tables")):
        found = list(kind.finditer(body))
        n_left_out, excess = 0, n_bytes(body) + 200 - most
        while found and excess > 0:
            last = found.pop()
            body = body[: last.start()] + body[last.end() :]
            excess -= n_bytes(last[0])
            n_left_out += 1
        if n_left_out:
            body += paragraph(f"{n_left_out:,} {what} are left out to keep the page small.", "note")
        if excess <= 0:
            return body
    return paragraph("This part is left out to keep the page small.", "note")
