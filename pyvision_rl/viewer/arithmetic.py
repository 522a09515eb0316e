"""What a program computes with numbers, without ever running it: a tiny subset of Python.

Names, numbers, tuples, arithmetic and loops over known values; all else is `UNKNOWN`, whose parts
are read all the same. Every step is counted, so that no program holds a reader up.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeGuard

MAX_STEPS = 20_000
"""Nodes read in all programs of a trajectory; what comes later stays unknown."""
_MAX_NUMBER = 1e12
_MAX_LENGTH = 512
_IN_PLACE = frozenset(
    {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort", "thumbnail"}
)
"""Methods after which a list or an image is another one."""


class Unknown:
    """A value that the text alone does not tell."""


UNKNOWN = Unknown()
Number = int | float

_OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


class TooLongError(Exception):
    """The steps are used up."""


def is_number(value: object) -> TypeGuard[Number]:
    """Whether it is a plain number of a size to reckon with."""
    return isinstance(value, (int, float)) and abs(value) < _MAX_NUMBER


def numbers(value: object, count: int) -> tuple[float, ...] | None:
    """A sequence of exactly `count` numbers, else None."""
    if isinstance(value, tuple) and len(value) == count and all(map(is_number, value)):
        return tuple(map(float, value))
    return None


class Arithmetic:
    """Reads programs one after the other; `names` live on from one to the next.

    Subclasses give meaning to attributes, subscripts and methods of values of their own.
    """

    def __init__(self, names: Mapping[str, object]) -> None:
        self.names: dict[str, object] = dict(names)
        self._steps = 0

    def read(self, code: str) -> None:
        """Follow a program as far as it can be read; one that does not parse says nothing."""
        try:
            body = ast.parse(code).body
            self._block(body)
        except (SyntaxError, ValueError, RecursionError, MemoryError, TooLongError):
            return

    def attribute(self, value: object, name: str) -> object:
        """What `value.name` is."""
        return UNKNOWN

    def item(self, value: object, index: ast.expr) -> object:
        """What `value[index]` is."""
        key = self.evaluate(index)
        if isinstance(value, tuple) and isinstance(key, int) and -len(value) <= key < len(value):
            return value[key]
        return UNKNOWN

    def method(
        self, value: object, name: str, args: Sequence[object], named: Mapping[str, object]
    ) -> object:
        """What `value.name(...)` is."""
        return UNKNOWN

    def function(self, name: str, args: Sequence[object], named: Mapping[str, object]) -> object:
        """What a call by name is; `name` is the last part of a dotted one."""
        if name in ("tuple", "list") and len(args) == 1 and isinstance(args[0], tuple):
            return args[0]
        if name == "len" and len(args) == 1 and isinstance(args[0], tuple):
            return len(args[0])
        named = {word: value for word, value in named.items() if word != "dtype"}
        if name not in _FUNCTIONS or not args or not all(map(_is_plain, (*args, *named.values()))):
            return UNKNOWN
        try:
            return _FUNCTIONS[name](*args, **named)
        except (TypeError, ValueError, OverflowError, ZeroDivisionError):
            return UNKNOWN

    def evaluate(self, node: ast.expr) -> object:
        """The value of an expression; parts that are not understood are read for what they do."""
        self._count()
        reader = self._EXPRESSIONS.get(type(node))
        if reader is not None:
            return reader(self, node)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.evaluate(child)
        return UNKNOWN

    def _count(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise TooLongError

    def _block(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:
        self._count()
        if isinstance(node, ast.Assign):
            value = self.evaluate(node.value)
            for target in node.targets:
                self._bind(target, value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._bind(node.target, self.evaluate(node.value))
        elif isinstance(node, ast.AugAssign):
            left, right = self.evaluate(node.target), self.evaluate(node.value)
            self._bind(node.target, _calculate(node.op, left, right))
        elif isinstance(node, ast.For):
            self._loop(node)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self._inner(node)

    def _inner(self, node: ast.AST) -> None:
        """What an `if`, `with`, `try` or bare expression holds, every branch of it."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                self._statement(child)
            elif isinstance(child, ast.expr):
                self.evaluate(child)
            else:
                self._inner(child)
        if isinstance(node, ast.withitem) and node.optional_vars:
            self._bind(node.optional_vars, UNKNOWN)

    def _loop(self, node: ast.For) -> None:
        values = self.evaluate(node.iter)
        for value in values if isinstance(values, tuple) else (UNKNOWN,):
            self._bind(node.target, value)
            self._block(node.body)
        self._block(node.orelse)

    def _bind(self, target: ast.expr, value: object) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            fits = isinstance(value, tuple) and len(value) == len(target.elts)
            for place, part in enumerate(target.elts):
                self._bind(part, value[place] if fits and isinstance(value, tuple) else UNKNOWN)
        elif isinstance(target, ast.Subscript) and isinstance(self.evaluate(target.value), tuple):
            self._forget(target.value)

    def _forget(self, node: ast.expr) -> None:
        """What was changed in place is not known any more."""
        if isinstance(node, ast.Name):
            self.names[node.id] = UNKNOWN

    def _constant(self, node: ast.Constant) -> object:
        return node.value if is_number(node.value) else UNKNOWN

    def _name(self, node: ast.Name) -> object:
        return self.names.get(node.id, UNKNOWN)

    def _sequence(self, node: ast.Tuple | ast.List) -> object:
        return tuple(self.evaluate(part) for part in node.elts)

    def _binary(self, node: ast.BinOp) -> object:
        return _calculate(node.op, self.evaluate(node.left), self.evaluate(node.right))

    def _unary(self, node: ast.UnaryOp) -> object:
        value = self.evaluate(node.operand)
        if not isinstance(value, (int, float)) or not isinstance(node.op, (ast.USub, ast.UAdd)):
            return UNKNOWN
        return -value if isinstance(node.op, ast.USub) else value

    def _attribute(self, node: ast.Attribute) -> object:
        return self.attribute(self.evaluate(node.value), node.attr)

    def _subscript(self, node: ast.Subscript) -> object:
        return self.item(self.evaluate(node.value), node.slice)

    def _call(self, node: ast.Call) -> object:
        args = [self.evaluate(argument) for argument in node.args]
        named = {word.arg or "": self.evaluate(word.value) for word in node.keywords}
        if isinstance(node.func, ast.Name):
            return self.function(node.func.id, args, named)
        if isinstance(node.func, ast.Attribute):
            owner = self.evaluate(node.func.value)
            if owner is UNKNOWN:
                return self.function(node.func.attr, args, named)
            if node.func.attr in _IN_PLACE:
                self._forget(node.func.value)
            return self.method(owner, node.func.attr, args, named)
        return UNKNOWN

    def _named(self, node: ast.NamedExpr) -> object:
        value = self.evaluate(node.value)
        self._bind(node.target, value)
        return value

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp) -> object:
        first = node.generators[0]
        values = self.evaluate(first.iter)
        if len(node.generators) > 1 or first.ifs or not isinstance(values, tuple):
            values = (UNKNOWN,)
        results = []
        for value in values:
            self._bind(first.target, value)
            results.append(self.evaluate(node.elt))
        return tuple(results)

    _EXPRESSIONS: ClassVar[dict[type[ast.expr], Callable[..., object]]] = {
        ast.Constant: _constant,
        ast.Name: _name,
        ast.Tuple: _sequence,
        ast.List: _sequence,
        ast.BinOp: _binary,
        ast.UnaryOp: _unary,
        ast.Attribute: _attribute,
        ast.Subscript: _subscript,
        ast.Call: _call,
        ast.NamedExpr: _named,
        ast.ListComp: _comprehension,
        ast.GeneratorExp: _comprehension,
    }


def _calculate(sign: ast.operator, left: object, right: object) -> object:
    if type(sign) not in _OPERATORS or not is_number(left) or not is_number(right):
        return UNKNOWN
    try:
        value = _OPERATORS[type(sign)](left, right)
    except (ZeroDivisionError, OverflowError):
        return UNKNOWN
    return value if is_number(value) else UNKNOWN


def _is_plain(value: object) -> bool:
    return is_number(value) or (isinstance(value, tuple) and all(map(is_number, value)))


def _range(first: Number, last: Number | None = None, step: Number = 1) -> tuple[Number, ...]:
    """As Python's, and numpy's for fractions."""
    first, last = (0, first) if last is None else (first, last)
    count = min(math.ceil((last - first) / step), _MAX_LENGTH)
    return tuple(first + step * index for index in range(count))


def _linspace(
    start: float, stop: float, num: int = 50, endpoint: object = True
) -> tuple[float, ...]:
    num = min(int(num), _MAX_LENGTH)
    step = (stop - start) / max(num - bool(endpoint), 1)
    return tuple(start + step * index for index in range(num))


def _int(value: float | tuple[float, ...]) -> object:
    return int(value) if isinstance(value, (int, float)) else UNKNOWN


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "int": _int,
    "float": float,
    "round": round,
    "abs": abs,
    "min": min,
    "max": max,
    "range": _range,
    "arange": _range,
    "linspace": _linspace,
}
