"""New columns of a table out of others, by the expressions of templates: whatever a template may not do, they may not do either."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import nodes

from ..errors import InputError, Problem
from .blocks import Block, compile_blocks
from .sandbox import ENVIRONMENT


@dataclass(frozen=True)
class Column:
    """One new column."""

    name: str
    block: Block
    native: bool
    """The expression is all there is, so that the value is what it gives (a list, a number); else it is text."""

    def value(self, row: Mapping[str, Any]) -> Any:
        """Raises InputError."""
        known = {name: row[name] for name in self.block.names if name in row}
        text = self.block.render({**known, "fields": row}, sum(len(str(value)) for value in known.values()))
        return json.loads(text) if self.native else text


def columns(expressions: Mapping[str, str]) -> list[Column]:
    """The new columns in their order; each may use those before it. `{{ [a, b] }}` gives a list, `{{ n - 1 }}` a number, anything with text
    around it text. Raises InputError with every problem."""
    found: list[Column] = []
    problems: list[Problem] = []
    for name, source in expressions.items():
        try:
            inner = alone(source)
            shown = source if inner is None else "{{ (" + inner + ") | tojson }}"
            body = "{% block example %}" + shown + "{% endblock %}{% block answer %}{{ answer }}{% endblock %}"
            found.append(Column(name, compile_blocks(body, f"derive.{name}")["example"], inner is not None))
        except InputError as error:
            problems += [Problem(problem.message, problem.fix, field=f"derive.{name}") for problem in error.problems]
    if problems:
        raise InputError(problems)
    return found


def alone(source: str) -> str | None:
    """The expression, if `{{ … }}` is all that a template is; else None."""
    text = source.strip()
    if not (text.startswith("{{") and text.endswith("}}")):
        return None
    try:
        body = ENVIRONMENT.parse(text).body
    except Exception:  # compiling it says what is wrong
        return None
    single = len(body) == 1 and isinstance(body[0], nodes.Output) and len(body[0].nodes) == 1
    if not single or isinstance(body[0].nodes[0], nodes.TemplateData):  # type: ignore[attr-defined]
        return None
    return text.removeprefix("{{").removesuffix("}}").strip().lstrip("-+").rstrip("-+")  # signs there trim white space around it


def derived(rows: Sequence[Mapping[str, Any]], expressions: Mapping[str, str]) -> tuple[list[dict[str, Any]], int]:
    """(the rows with the new columns, how many values could not be made: those are None).

    Raises InputError with the first reason if a column could be made for no row at all, or if an expression is not valid.
    """
    made = columns(expressions)
    failed: dict[str, list[InputError]] = {column.name: [] for column in made}
    result = []
    for row in rows:
        new = dict(row)
        for column in made:
            try:
                new[column.name] = column.value(new)
            except InputError as error:
                failed[column.name].append(error)
                new[column.name] = None
        result.append(new)
    hopeless = {name: errors[0].problems[0] for name, errors in failed.items() if rows and len(errors) == len(rows)}
    if hopeless:
        raise InputError([Problem(f"for no row: {p.message}", p.fix, field=f"derive.{name}") for name, p in hopeless.items()])
    return result, sum(map(len, failed.values()))
