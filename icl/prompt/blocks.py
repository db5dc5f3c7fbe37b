"""From Jinja source to compiled blocks: parse, refuse what a template may not contain, compile each block by itself."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Template as JinjaTemplate
from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.meta import find_undeclared_variables

from ..errors import InputError, Problem, suggest
from . import sandbox
from .guard import guard

BLOCKS = ("instruction", "example", "rationale", "answer")
ONE_FILE = "A template is one file; write macros into it instead."


@dataclass(frozen=True, slots=True)
class Block:
    """One compiled block, with the template's own macros in it."""

    name: str
    names: frozenset[str]
    """Variables it needs."""
    optional: frozenset[str]
    """Variables it asks about first (`is defined`, `default(…)`)."""
    file: str
    lines: Mapping[str, int]
    """Variable -> line of its first use."""
    line: int
    code: JinjaTemplate

    def render(self, variables: Mapping[str, Any], given: int) -> str:
        """The block's text. given: characters in the variables. Raises InputError with file and line."""
        try:
            return sandbox.render(self.code, variables, given)
        except Exception as error:  # whatever a template does wrong is its author's to mend
            raise InputError(self._problem(error, variables)) from None

    def _problem(self, error: Exception, variables: Mapping[str, Any]) -> Problem:
        line = self.line
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == self.file and frame.lineno is not None:
                line = self.code.get_corresponding_lineno(frame.lineno)
        message = sandbox.without_address(str(error)) or type(error).__name__
        fix = "Mend the template there."
        if isinstance(error, sandbox.LimitError):
            message, fix = f"the template {message}", "Make loops, repetitions and paddings smaller."
        elif isinstance(error, RecursionError):
            message, fix = "the template calls itself too deeply", "Make the macro or loop end."
        elif isinstance(error, MemoryError):
            message, fix = "the template needs too much memory", "Make loops, repetitions and paddings smaller."
        elif isinstance(error, SecurityError):
            fix = "Templates may use text, numbers, lists and their plain methods only."
        elif message.endswith("is undefined"):
            fix = suggest(message.split("'")[1] if "'" in message else "", variables)
        elif not isinstance(error, TemplateError):
            message = f"{type(error).__name__}: {message}"
        return Problem(message, fix, self.file, line, f"block {self.name}")


def compile_blocks(source: str, file: str, first_line: int = 1) -> dict[str, Block]:
    """Compile the blocks of a template's body. first_line: the file's line the body starts on. Raises InputError, all problems at once."""
    tree = _parse("\n" * (first_line - 1) + source, file)
    problems = list(_refused(tree, file))
    found: dict[str, nodes.Block] = {}
    prelude: list[nodes.Node] = []
    for node in tree.body:
        if isinstance(node, nodes.Block):
            if node.name not in BLOCKS:
                problems.append(
                    Problem(f"a template has no block '{node.name}'", suggest(node.name, BLOCKS), file, node.lineno, f"block {node.name}")
                )
            if node.name in found:
                where = f"block {node.name}"
                problems.append(Problem(f"the block '{node.name}' is defined twice", "Keep one of the two.", file, node.lineno, where))
            found[node.name] = node
        elif isinstance(node, nodes.Macro | nodes.Assign | nodes.AssignBlock):
            prelude.append(node)
        elif not _blank(node):
            fix = "Put it into a block: instruction, example, rationale or answer."
            problems.append(Problem("text outside the blocks would never be shown", fix, file, _first_line(node)))
    for name in ("example", "answer"):
        if name not in found:
            problems.append(Problem(f"the block '{name}' is missing", f"Add {{% block {name} %}}…{{% endblock %}}.", file))
    if problems:
        raise InputError(problems)
    return {name: _compile(name, found[name], prelude, file) for name in BLOCKS if name in found}


def _parse(source: str, file: str) -> nodes.Template:
    try:
        return sandbox.ENVIRONMENT.parse(source)
    except TemplateSyntaxError as error:
        message = error.message or "not valid Jinja"
        raise InputError(Problem(message, _hint(message), file, error.lineno)) from None
    except Exception as error:  # RecursionError for deep nesting, ValueError for a number of 5,000 digits
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(Problem(f"not a valid template: {what}", "Make its expressions simpler.", file)) from None


def _hint(message: str) -> str:
    if "unknown tag" in message:
        return "Known: block, if, for, set, macro, call, filter, with, raw."
    return "Check the braces, quotes and end tags there."


def _refused(tree: nodes.Template, file: str) -> Iterator[Problem]:
    """Everything in the tree that a template may not contain."""
    for node in _walk(tree):
        line = node.lineno
        if isinstance(node, nodes.Extends | nodes.Include | nodes.Import | nodes.FromImport):
            yield Problem(f"'{_tag(node)}' is not allowed", ONE_FILE, file, line)
        elif isinstance(node, nodes.Stmt) and not isinstance(node, sandbox.STATEMENTS):
            yield Problem(f"the statement '{_tag(node)}' is not allowed", "Use block, if, for, set, macro, call, filter, with.", file, line)
        elif isinstance(node, nodes.Block):
            if node not in tree.body:
                yield Problem(f"the block '{node.name}' stands inside another", "Put the blocks side by side.", file, line)
            if node.scoped or node.required:
                yield Problem("'scoped' and 'required' mean nothing here", "Remove the word.", file, line)
        elif isinstance(node, nodes.Filter) and node.name not in sandbox.ENVIRONMENT.filters:
            yield Problem(f"there is no filter '{node.name}' in templates", _names(node.name, sandbox.ENVIRONMENT.filters), file, line)
        elif isinstance(node, nodes.Test) and node.name not in sandbox.ENVIRONMENT.tests:
            yield Problem(f"there is no test '{node.name}' in templates", _names(node.name, sandbox.ENVIRONMENT.tests), file, line)
        elif isinstance(node, nodes.Name) and (node.name in ("self", "super") or node.name.startswith("_")):
            yield Problem(f"the name '{node.name}' is not allowed", "Use the input fields and the template's variables.", file, line)
        elif isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
            yield Problem(f"the attribute '{node.attr}' is not allowed", "Templates see plain values only.", file, line)


def _names(name: str, known: Mapping[str, Any]) -> str:
    return suggest(name, [k for k in known if k[0] not in "<=!>"])


def _walk(tree: nodes.Node) -> Iterator[nodes.Node]:
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(list(node.iter_child_nodes())))


def _tag(node: nodes.Node) -> str:
    return {"FromImport": "from … import", "ExprStmt": "do"}.get(type(node).__name__, type(node).__name__.lower())


def _blank(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Output) and all(isinstance(n, nodes.TemplateData) and not n.data.strip() for n in node.nodes)


def _first_line(node: nodes.Node) -> int:
    for child in getattr(node, "nodes", ()):
        if isinstance(child, nodes.TemplateData) and child.data.strip():
            return int(child.lineno) + child.data[: len(child.data) - len(child.data.lstrip())].count("\n")
        if not isinstance(child, nodes.TemplateData):
            return int(child.lineno)
    return int(node.lineno)


def _compile(name: str, block: nodes.Block, prelude: Sequence[nodes.Node], file: str) -> Block:
    """One block as a template of its own: the macros and top-level `set`s that it needs, then its body."""
    lines: dict[str, int] = {}
    asked: set[str] = set()
    body = [*_needed(block, prelude), *block.body]
    for node in (n for part in body for n in _walk(part)):
        if isinstance(node, nodes.Name) and node.ctx == "load":
            lines[node.name] = min(node.lineno, lines.get(node.name, node.lineno))
        if isinstance(node, nodes.Test | nodes.Filter) and isinstance(node.node, nodes.Name) and node.name in _ASKS:
            asked.add(node.node.name)
    try:
        tree = nodes.Template(copy.deepcopy(body), lineno=1)  # the guards are put in by changing the tree
        tree.set_environment(sandbox.ENVIRONMENT)
        names = frozenset(find_undeclared_variables(tree)) - sandbox.ENVIRONMENT.globals.keys()
        code = sandbox.ENVIRONMENT.compile(guard(tree), None, file)
        template = JinjaTemplate.from_code(sandbox.ENVIRONMENT, code, sandbox.ENVIRONMENT.globals)
    except TemplateSyntaxError as error:
        raise InputError(Problem(error.message or "not valid Jinja", "Mend it there.", file, error.lineno)) from None
    except Exception as error:  # Python refuses, for example, twenty loops inside each other
        what = "nested too deeply" if isinstance(error, RecursionError | MemoryError | SyntaxError) else str(error)
        raise InputError(Problem(f"the block cannot be compiled: {what}", "Make it simpler.", file, block.lineno)) from None
    return Block(name, names, frozenset(asked), file, lines, block.lineno, template)


_ASKS = ("defined", "undefined", "default", "d")


def _needed(block: nodes.Block, prelude: Sequence[nodes.Node]) -> list[nodes.Node]:
    """The top-level macros and variables that a block uses, directly or through each other, in the file's order."""
    used = _loaded(block)
    keep: set[int] = set()
    while True:
        more = {i for i, node in enumerate(prelude) if i not in keep and _stored(node) & used}
        if not more:
            return [prelude[i] for i in sorted(keep)]
        keep |= more
        used |= set().union(*(_loaded(prelude[i]) for i in more))


def _loaded(node: nodes.Node) -> set[str]:
    return {n.name for n in _walk(node) if isinstance(n, nodes.Name) and n.ctx == "load"}


def _stored(node: nodes.Node) -> set[str]:
    if isinstance(node, nodes.Macro):
        return {node.name}
    target = getattr(node, "target", None)
    return {n.name for n in _walk(target) if isinstance(n, nodes.Name | nodes.NSRef)} if target is not None else set()
