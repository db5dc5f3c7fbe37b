"""Puts the meter where Jinja does not let an environment intercept: loops, literals, slices, comparisons, repeated text."""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from .sandbox import ENVIRONMENT


class _Guard(NodeTransformer):
    """Rewrites a template so that loops, literals, slices, comparisons and repeated text pay the meter too."""

    def __init__(self) -> None:
        self.repeated = 0

    def _wrap(self, node: Any, name: str, args: list[nodes.Expr] | None = None) -> nodes.Filter:
        return nodes.Filter(node, name, args or [], [], None, None, lineno=node.lineno)

    def _body(self, node: nodes.Node) -> nodes.Node:
        self.repeated += 1
        node = self.generic_visit(node)
        self.repeated -= 1
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self._body(node)
        node.iter = self._wrap(node.iter, "<each>")
        return node

    visit_Macro = visit_CallBlock = _body

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        return self._wrap(nodes.Const(node.data, lineno=node.lineno), "<made>") if self.repeated else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._wrap(nodes.List(node.nodes, lineno=node.lineno), "<concat>")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        bounds = [b or nodes.Const(None, lineno=node.lineno) for b in (node.arg.start, node.arg.stop, node.arg.step)]
        return self._wrap(node.node, "<slice>", bounds)

    def _literal(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else self._wrap(node, "<made>")

    visit_List = visit_Tuple = visit_Dict = _literal

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:
        self.generic_visit(node)
        node.expr = self._wrap(node.expr, "<made>")
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = self._wrap(node.expr, "<made>")
        return node


def guard(tree: nodes.Template) -> nodes.Template:
    """The tree with its guards, changed in place."""
    _Guard().visit(tree)
    tree.set_environment(ENVIRONMENT)
    return tree
