"""The Python code of a template, with limits built in: see ``template_meter``."""

from collections.abc import Iterable
from typing import Any

import jinja2.runtime
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame

from .template_meter import LOOKED_AT, LimitExceeded, Meter

MAX_SOURCE = 256 * 1024
"""Characters. The longest templates of known models have 30 thousand."""

_MAX_NODES = 20_000
"""Of a template's syntax tree; those of known models have less than 5000."""

_MAX_TRACKED = 500_000
"""Names times conditions: for each of these, the compiler copies what it knows of those. Known
templates have less than 20 thousand."""

_MAX_UNWATCHED = 8
"""Additions in a row."""

_MAX_UNWATCHED_SEARCHES = 64
"""In all of a template."""

_SHORT = 1000
"""Characters of a constant next to which an operator is not watched."""


class MeteredContext(jinja2.runtime.Context):
    """The variables of one rendering, and its meter."""

    meter: Meter

    def derived(self, locals: dict[str, object] | None = None) -> jinja2.runtime.Context:  # noqa: A002
        context = super().derived(locals)
        assert isinstance(context, MeteredContext)
        context.meter = self.meter
        return context


def check_source(source: str) -> None:
    """Before it is parsed. Raises LimitExceeded."""
    if len(source) > MAX_SOURCE:
        raise LimitExceeded(f"the template is longer than {MAX_SOURCE} characters")


def check_tree(tree: nodes.Template) -> None:
    """Before code is made of it. Raises LimitExceeded."""
    n_nodes = sum(1 for _ in tree.find_all(nodes.Node))
    if n_nodes > _MAX_NODES:
        raise LimitExceeded(f"the template has more than {_MAX_NODES} parts")
    names = {name.name for name in tree.find_all(nodes.Name)}
    n_branches = sum(1 for _ in tree.find_all(nodes.If))
    if len(names) * n_branches > _MAX_TRACKED:
        raise LimitExceeded("the template has too many variables and conditions")


class MeteredCodeGenerator(CodeGenerator):
    """Nothing is computed while compiling, and what is computed while rendering is watched. The
    variables of templates have prefixes in the code, so our names in it can be plain."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loop_bodies: set[int] = set()
        """Identities of lists of nodes, which the tree keeps alive."""
        self._n_unwatched = 0
        self._n_searches = 0

    # Statements

    def write_commons(self) -> None:
        super().write_commons()
        self.writeline("meter = context.meter")
        self.writeline("now, expired = meter.now, meter.expired")
        self.writeline("tick, checked, printed = meter.tick, meter.checked, meter.text")
        self.writeline("concat = meter.concat")

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802
        self._loop_bodies.add(id(node.body))
        super().visit_For(node, frame)

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        if id(nodes) in self._loop_bodies:
            self.writeline("if now() > meter.deadline: expired()")
        super().blockvisit(nodes, frame)

    def visit_ScopedEvalContextModifier(  # noqa: N802
        self,
        node: nodes.ScopedEvalContextModifier,
        frame: Frame,  # noqa: ARG002
    ) -> None:
        self.fail("Chat templates cannot switch escaping on", node.lineno)

    # Output

    def _output_child_to_const(
        self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo
    ) -> str:
        if isinstance(node, nodes.TemplateData | nodes.Const):
            return super()._output_child_to_const(node, frame, finalize)
        raise nodes.Impossible

    def _output_child_pre(
        self,
        node: nodes.Expr,
        frame: Frame,  # noqa: ARG002
        finalize: CodeGenerator._FinalizeInfo,  # noqa: ARG002
    ) -> None:
        self.write("(" if isinstance(node, nodes.Concat) else "(_v if (_v := ")

    def _output_child_post(
        self,
        node: nodes.Expr,
        frame: Frame,  # noqa: ARG002
        finalize: CodeGenerator._FinalizeInfo,  # noqa: ARG002
    ) -> None:
        is_text = isinstance(node, nodes.Concat)
        self.write(")" if is_text else ").__class__ is str else printed(_v))")

    # Operators

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.left, nodes.List) or isinstance(node.right, nodes.List):
            self._call("add", (node.left, node.right), frame)
        else:
            self._add(node, frame, watched=True)

    def _add(self, node: nodes.BinExpr, frame: Frame, *, watched: bool) -> None:
        """Of a row of additions, which templates write for one text after the other, the last one
        is watched, each that may double the text, and one in eight."""
        self.write("(_v if (_v := (" if watched else "(")
        left = node.left
        if isinstance(left, nodes.Add):
            doubles = not (_is_short(left.left) or _is_short(left.right))
            self._n_unwatched = 0 if watched else self._n_unwatched + 1
            self._add(left, frame, watched=doubles or self._n_unwatched >= _MAX_UNWATCHED)
        else:
            self.visit(left, frame)
        self.write(" + ")
        self.visit(node.right, frame)
        self.write(")")
        if watched:
            self.write(f").__class__ is str and len(_v) < {LOOKED_AT} else checked(_v))")

    def visit_Mul(self, node: nodes.BinExpr, frame: Frame) -> None:  # noqa: N802
        self._call("multiply", (node.left, node.right), frame)

    def visit_Pow(self, node: nodes.BinExpr, frame: Frame) -> None:  # noqa: N802
        self._call("power", (node.left, node.right), frame)

    def visit_Mod(self, node: nodes.BinExpr, frame: Frame) -> None:  # noqa: N802
        self._call("modulo", (node.left, node.right), frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("meter.join(")
        super().visit_Tuple(nodes.Tuple(node.nodes, "load"), frame)
        self.write(")")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        if self._is_quick(node):
            super().visit_Compare(node, frame)
            return
        self.write("(tick() or ")
        super().visit_Compare(node, frame)
        self.write(")")

    def _is_quick(self, node: nodes.Compare) -> bool:
        """Whether a comparison takes few steps whatever is compared: with a short constant, or
        whether something is in a list of them. Looking for a short constant is quick too, but not
        if it is done for ever in a row."""
        left: nodes.Expr = node.expr
        for one in node.ops:
            right = one.expr
            if one.op not in ("in", "notin"):
                if not (_is_short(left) or _is_short(right)):
                    return False
            elif isinstance(right, nodes.List | nodes.Tuple):
                if not all(map(_is_short, right.items)):
                    return False
            elif not _is_short(right):
                self._n_searches += 1
                if not _is_short(left) or self._n_searches > _MAX_UNWATCHED_SEARCHES:
                    return False
            left = right
        return True

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        part = node.arg
        if not isinstance(part, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self._call("cut", (node.node, part.start, part.stop, part.step), frame)

    def _call(self, method: str, arguments: tuple[nodes.Expr | None, ...], frame: Frame) -> None:
        self.write(f"meter.{method}(")
        for argument in arguments:
            if argument is None:
                self.write("None")
            else:
                self.visit(argument, frame)
            self.write(", ")
        self.write(")")

    # Values

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._watched_literal(node, node.items, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._watched_literal(node, node.items, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._watched_literal(
            node, [part for pair in node.items for part in (pair.key, pair.value)], frame
        )

    def _watched_literal(
        self,
        node: nodes.Literal,
        items: list[nodes.Expr],
        frame: Frame,
    ) -> None:
        write = getattr(super(), f"visit_{type(node).__name__}")
        if all(isinstance(item, nodes.Const) for item in items):
            write(node, frame)
            return
        self.write("checked(")
        write(node, frame)
        self.write(")")


def _is_short(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Const):
        return not isinstance(node.value, str) or len(node.value) < _SHORT
    return isinstance(node, nodes.Compare | nodes.Test | nodes.Not)
