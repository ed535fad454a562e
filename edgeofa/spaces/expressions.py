"""Conditions in a space file: comparisons over ties, the resolution and a block's shape.

    width % 8 == 0 and (style == "deep" or width <= 2 * first)

The grammar is a small part of Python's: numbers, strings, names, ``+ - * / // %``, comparisons
(with ``in [..]``), ``and``, ``or``, ``not``. It is parsed with :mod:`ast` and walked here; nothing
is ever evaluated as code.
"""

from __future__ import annotations

import ast
import difflib
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

MAX_LENGTH = 300
Scalar = int | float | str | bool

_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_ORDER: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class ConditionError(ValueError):
    """A condition that cannot be read, or that has no value; the text says why."""


@dataclass(frozen=True)
class Condition:
    """A condition by its text, which names the ties and figures in ``names``."""

    text: str
    names: frozenset[str]

    def holds(self, values: Mapping[str, Scalar]) -> bool:
        """Its value; a name that has none (a tie that does not exist here) is an error."""
        try:
            found = _value(_tree(self.text), values)
        except ZeroDivisionError:
            raise ConditionError(f"{self.text!r} divides by zero") from None
        if not isinstance(found, bool):
            raise ConditionError(f"{self.text!r} is {found!r}, neither true nor false")
        return found


def parse_condition(text: object, names: Iterable[str]) -> Condition:
    """The condition of a text that may use ``names``; ``ConditionError`` for anything else."""
    if not isinstance(text, str) or not 0 < len(text) <= MAX_LENGTH:
        raise ConditionError(f"a condition is a text of 1 to {MAX_LENGTH} characters")
    known = sorted(names)
    used: set[str] = set()
    for node in ast.walk(_tree(text)):
        if isinstance(node, ast.Name):
            if node.id not in known:
                near = difflib.get_close_matches(node.id, known, n=1, cutoff=0.4)
                also = f"; did you mean {near[0]}?" if near else ""
                raise ConditionError(
                    f"{text!r}: no tie or figure {node.id!r} (known: {', '.join(known)}{also})"
                )
            used.add(node.id)
        elif not isinstance(node, _ALLOWED) or (
            isinstance(node, ast.Constant) and not isinstance(node.value, (bool, int, float, str))
        ):
            raise ConditionError(f"{text!r}: {type(node).__name__} is not part of a condition")
    return Condition(text, frozenset(used))


_ALLOWED = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Load),
    *(ast.BinOp, ast.operator, ast.Compare, ast.cmpop, ast.Constant, ast.List, ast.Tuple),
)


@lru_cache(maxsize=1024)
def _tree(text: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConditionError(f"{text!r} is not a condition, such as width % 8 == 0") from None


def _value(node: ast.expr, values: Mapping[str, Scalar]) -> Scalar:
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
        return node.value
    if isinstance(node, ast.Name):
        if node.id not in values:
            raise ConditionError(f"tie {node.id!r} does not exist here")
        return values[node.id]
    if isinstance(node, ast.BoolOp):
        stop = isinstance(node.op, ast.Or)
        return stop if any(_truth(x, values) is stop for x in node.values) else not stop
    if isinstance(node, ast.UnaryOp):
        if isinstance(node.op, ast.Not):
            return not _truth(node.operand, values)
        return -_number(node.operand, values)
    if isinstance(node, ast.BinOp):
        calculate = _ARITHMETIC.get(type(node.op))
        if calculate is not None:
            return calculate(_number(node.left, values), _number(node.right, values))
    if isinstance(node, ast.Compare):
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            if not _compared(left, op, right, values):
                return False
            left = right
        return True
    raise ConditionError(f"{ast.unparse(node)!r} is not part of a condition")


def _compared(left: ast.expr, op: ast.cmpop, right: ast.expr, values: Mapping[str, Scalar]) -> bool:
    order = _ORDER.get(type(op))
    if order is not None:
        return order(_number(left, values), _number(right, values))
    if isinstance(op, (ast.In, ast.NotIn)):
        if not isinstance(right, (ast.List, ast.Tuple)):
            raise ConditionError(f"{ast.unparse(right)!r} is not a list, such as [8, 16]")
        found = _value(left, values) in [_value(x, values) for x in right.elts]
        return found is isinstance(op, ast.In)
    if isinstance(op, (ast.Eq, ast.NotEq)):
        same = _value(left, values) == _value(right, values)
        return same is isinstance(op, ast.Eq)
    raise ConditionError("compare with ==, !=, <, <=, >, >=, in or not in")


def _truth(node: ast.expr, values: Mapping[str, Scalar]) -> bool:
    found = _value(node, values)
    if not isinstance(found, bool):
        raise ConditionError(f"{ast.unparse(node)!r} is {found!r}, neither true nor false")
    return found


def _number(node: ast.expr, values: Mapping[str, Scalar]) -> float:
    found = _value(node, values)
    if isinstance(found, (bool, str)):
        raise ConditionError(f"{ast.unparse(node)!r} is {found!r}, not a number")
    return found
