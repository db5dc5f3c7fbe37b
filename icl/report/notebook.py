"""For notebooks: a run, a decision, a predictor as a piece of HTML. It has no script and no style of its own, and everything is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .markup import Cell, Num, Safe, clean, esc, name, paragraph, table
from .page_answer import Answer, default_answer
from .page_results import figures_section
from .runs import Runs, Source


def run_html(source: Source) -> str:
    """Which method leads, and the figures by label budget."""
    runs = Runs((source,))
    return _piece(answer_html(default_answer(runs)), figures_section(runs).body)


def answer_html(answer: Answer | None) -> str:
    """The answer without its key figures."""
    if answer is None:
        return ""
    return f"<h3>{name(answer.title)}</h3>{''.join(paragraph(name(each)) for each in answer.paragraphs)}"


def rows_html(rows: Sequence[Sequence[str]], note: str = "") -> str:
    """A table whose first row is its head and whose first column is names."""
    head: list[Cell] = [rows[0][0], *map(Num, rows[0][1:])]
    body: list[list[Cell]] = [[row[0], *map(Num, row[1:])] for row in rows[1:]]
    return table(head, body) + (paragraph(note) if note else "")


def predictor_html(title: str, figures: Mapping[str, str]) -> str:
    """A predictor with what is known of it."""
    rows = "".join(f"<tr><th>{name(key)}</th><td>{name(value)}</td></tr>" for key, value in figures.items())
    return _piece(f"<table><caption>{name(title)}</caption>{rows}</table>")


def decision_html(answer: Answer, rows: Sequence[Sequence[str]], note: str) -> str:
    """The answer and the table of all methods."""
    return _piece(answer_html(answer), rows_html(rows, note))


def _piece(*parts: str) -> str:
    return clean(Safe(f"<div>{''.join(map(esc, map(Safe, parts)))}</div>"))
