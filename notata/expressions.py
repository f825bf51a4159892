"""Conditions on runs as people write them, such as `omega > 1 and status == "failed"`.

They are parsed, and never evaluated as Python: there are names, values, comparisons, arithmetic of
numbers and a few functions, and nothing else.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from typing import Any
from unicodedata import normalize

from notata import cells
from notata.errors import QueryError

Look = Callable[[str], Any]
_Node = Callable[[Look], Any]

MISSING = None  # what a name stands for in a run that has no such value

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_DIGITS = 400  # more than any number has; rounding to millions of them takes hours
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "len": len,
    "max": max,
    "min": min,
    "round": lambda value, digits=0: round(value, max(-_DIGITS, min(_DIGITS, int(digits)))),
}
_ALONE = re.compile(r"(?<![=!<>:])=(?!=)")
_LONGEST = 10_000  # characters
_ANY = "run"  # run["learning rate"] is the value of any name


class Expression:
    """A condition or a value, made once and asked of many runs.

    Where a run has no value, a comparison with it is false, except with `None`; and so is one of
    things that have no order, such as text and numbers.

    Attributes:
        text: The expression.
        names: The names in it, such as `omega` or `metrics.energy`.

    Args:
        text: The expression.

    Raises:
        QueryError: If it is none, or asks for more than it may (a `ValueError`).

    Example:
        >>> wish = Expression("omega > 1 and scheme in ('rk4', 'leapfrog')")
        >>> sorted(wish.names)
        ['omega', 'scheme']
        >>> wish({"omega": 2, "scheme": "rk4"}.get)
        True
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        if len(text) > _LONGEST:
            raise QueryError(f"an expression may have {_LONGEST} characters")
        self._source = text.strip()
        try:
            self._node = self._made(ast.parse(self._source, mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, QueryError):
                raise
            why = error.msg if isinstance(error, SyntaxError) else str(error)
            if _ALONE.search(text):
                why = "values are compared by ==, not ="
            raise QueryError(f"{text!r} is no expression: {why}") from None

    def __call__(self, look: Look) -> Any:
        """The value for one run.

        Args:
            look: Gives the value of a name, or None where the run has none.

        Ranks: independent.
        """
        return self._node(look)

    def _made(self, node: ast.expr) -> _Node:
        make = getattr(self, f"_of_{type(node).__name__.lower()}", None)
        if make is None:
            raise QueryError(
                f"{ast.unparse(node)!r} can't stand in an expression: there are names, numbers, "
                "text, lists, comparisons, and, or, not, in, + - * / // % and "
                + ", ".join(_FUNCTIONS)
            )
        made: _Node = make(node)
        return made

    # ----- a function for each kind of node -----

    def _of_constant(self, node: ast.Constant) -> _Node:
        if not isinstance(node.value, int | float | str | None):
            raise QueryError(f"{ast.unparse(node)} can't stand in an expression")
        return lambda _: node.value

    def _of_name(self, node: ast.Name) -> _Node:
        return self._named(self._typed(node, node.id))

    def _of_attribute(self, node: ast.Attribute) -> _Node:
        parts: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            raise QueryError(f"{ast.unparse(node)!r} is no name")
        return self._named(self._typed(node, ".".join([inner.id, *reversed(parts)])))

    def _typed(self, node: ast.expr, parsed: str) -> str:
        """A name as it was typed: Python's parser takes `µ`, the sign, for `μ`, the letter."""
        if self._source.isascii():
            return parsed
        typed = "".join((ast.get_source_segment(self._source, node) or "").split())
        return typed if normalize("NFKC", typed) == parsed else parsed

    def _of_subscript(self, node: ast.Subscript) -> _Node:
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if isinstance(node.value, ast.Name) and node.value.id == _ANY and isinstance(key, str):
            return self._named(key)
        raise QueryError(f'{ast.unparse(node)!r}: only {_ANY}["any name"] has brackets')

    def _named(self, name: str) -> _Node:
        self.names.add(name)
        return lambda look: look(name)

    def _of_list(self, node: ast.List | ast.Tuple | ast.Set) -> _Node:
        items = [self._made(item) for item in node.elts]
        return lambda look: [item(look) for item in items]

    _of_tuple = _of_set = _of_list

    def _of_boolop(self, node: ast.BoolOp) -> _Node:
        parts = [self._made(part) for part in node.values]
        every = isinstance(node.op, ast.And)
        if every:
            return lambda look: all(part(look) for part in parts)
        return lambda look: any(part(look) for part in parts)

    def _of_unaryop(self, node: ast.UnaryOp) -> _Node:
        inner = self._made(node.operand)
        if isinstance(node.op, ast.Not):
            return lambda look: not inner(look)
        sign = {ast.USub: -1, ast.UAdd: 1}.get(type(node.op))
        if sign is None:
            raise QueryError(f"{ast.unparse(node)!r} can't stand in an expression")
        return lambda look: _calculated(operator.mul, sign, inner(look))

    def _of_binop(self, node: ast.BinOp) -> _Node:
        work = _ARITHMETIC.get(type(node.op))
        if work is None:
            raise QueryError(f"{ast.unparse(node)!r}: there are + - * / // % alone")
        left, right = self._made(node.left), self._made(node.right)
        return lambda look: _calculated(work, left(look), right(look))

    def _of_compare(self, node: ast.Compare) -> _Node:
        first = self._made(node.left)
        others = [
            (_comparison(op, node), self._made(other))
            for op, other in zip(node.ops, node.comparators, strict=True)
        ]

        def compare(look: Look) -> bool:
            left = first(look)
            for holds, other in others:
                right = other(look)
                if not holds(left, right):
                    return False
                left = right
            return True

        return compare

    def _of_call(self, node: ast.Call) -> _Node:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _FUNCTIONS or node.keywords:
            raise QueryError(
                f"{ast.unparse(node)!r}: the functions are {', '.join(_FUNCTIONS)}, without names "
                "for what they take"
            )
        work, given = _FUNCTIONS[name], [self._made(given) for given in node.args]

        def call(look: Look) -> Any:
            try:
                return work(*(one(look) for one in given))
            except (TypeError, ValueError, OverflowError):
                return MISSING

        return call


def _calculated(work: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """Arithmetic of numbers alone: a text times a number could fill the memory."""
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        return MISSING
    try:
        return work(left, right)
    except (ZeroDivisionError, OverflowError):
        return MISSING


def _comparison(op: ast.cmpop, node: ast.Compare) -> Callable[[Any, Any], bool]:
    if isinstance(op, ast.Eq | ast.Is):
        return _are_equal
    if isinstance(op, ast.NotEq | ast.IsNot):
        with_none = any(_is_none(one) for one in (node.left, *node.comparators))
        return lambda left, right: (
            not _are_equal(left, right) and (with_none or _are_there(left, right))
        )
    if isinstance(op, ast.In):
        return _is_in
    if isinstance(op, ast.NotIn):
        return lambda left, right: _are_there(left, right) and not _is_in(left, right)
    order = _ORDER[type(op)]

    def ordered(left: Any, right: Any) -> bool:
        try:
            return _are_there(left, right) and bool(order(left, right))
        except TypeError:
            return False

    return ordered


def _are_there(left: Any, right: Any) -> bool:
    return left is not MISSING and right is not MISSING


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _are_equal(left: Any, right: Any) -> bool:
    """Whether values are equal, as for `select`, but that NaN equals nothing: `x != x` finds it."""
    return bool(left == right) and cells.same(left, right)


def _is_in(left: Any, right: Any) -> bool:
    if isinstance(right, list):
        return any(_are_equal(left, one) for one in right)
    try:
        return left in right
    except TypeError:
        return False
