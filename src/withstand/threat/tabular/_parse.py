"""Expressions as people write them, read without running anything."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import date

from ..._errors import ThreatError, did_you_mean, listed, one_line
from ._tree import Both, Call, Choice, Column, Compare, Either, Number, Truth, Value, negated

_CHARACTERS = 20_000
_NODES = 5_000
_DEPTH = 60
_TOLERANCE = re.compile(r"~\s*(?P<size>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)\s*(?P<percent>%?)")
_QUOTED = re.compile(r"`(?P<name>[^`]*)`|(?P<text>'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
_STARRED = re.compile(r"\b([A-Za-z_]\w*)\*(?=\s*[,)])")
_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide",
    ast.Pow: "power", ast.Mod: "remainder",
}  # fmt: skip
_COMPARED: dict[type[ast.cmpop], tuple[str, bool]] = {
    ast.LtE: ("<=", False), ast.Lt: ("<", False), ast.GtE: ("<=", True), ast.Gt: ("<", True),
    ast.Eq: ("==", False), ast.NotEq: ("!=", False),
}  # fmt: skip
_UNARY = ("abs", "log", "exp", "sqrt", "floor", "ceil", "round")
_FOLDED = {"min": "minimum", "max": "maximum", "sum": "add"}
_LANGUAGE = "+ - * / % **, <= < == != >= >, and, or, not, ->, " + ", ".join(
    [*_UNARY, *_FOLDED, "where", "date"]
)


def read_truth(
    text: str, columns: Sequence[str], labels: Mapping[str, Sequence[str]] | None = None
) -> Truth:
    """What must hold, such as `paid <= billed`; raises ThreatError with the fix.

    `a -> b` is an implication, `a == b ~ 0.01` allows a difference, `~ 1 %` a share of the right
    side; `where r = rate / 1200, n = term` at the end names parts. `sum(paid_*)` takes all columns
    that begin so; other names than words stand in backquotes. `country == 'DE'` compares a column
    of categories, whose names are its `labels`. The functions are min, max, sum, abs, log, exp,
    sqrt, floor, ceil, round, where and date.
    """
    return _Reading(text, columns, labels).truth()


def read_value(
    text: str, columns: Sequence[str], labels: Mapping[str, Sequence[str]] | None = None
) -> Value:
    """A value, such as `amount / max(usual, 1)`; raises ThreatError with the fix."""
    return _Reading(text, columns, labels).value()


class _Reading:
    def __init__(
        self, text: str, columns: Sequence[str], labels: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.text, self.columns, self.labels = text, list(columns), labels or {}
        self.known = set(self.columns)
        self.quoted: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.bound: dict[str, Value] = {}
        self.sizes: dict[str, int] = {}
        self.depths: dict[str, int] = {}
        self.nodes = self.deepest = 0
        if len(text) > _CHARACTERS:
            raise self._wrong(f"it has {len(text)} characters, more than {_CHARACTERS}; split it")

    def truth(self) -> Truth:
        # As an operator that binds less than arithmetic and more than a comparison.
        text = _TOLERANCE.sub(
            lambda told: f" | {'__share__' if told['percent'] else '__size__'}({told['size']})",
            self._named(self.text),
        )
        sides = [self._truth(self._parsed(side)) for side in text.split("->")]
        found = sides.pop()
        while sides:
            found = Either((negated(sides.pop()), found))
        return found

    def value(self) -> Value:
        return self._value(self._parsed(self._named(self.text)))

    def _named(self, text: str) -> str:
        """The text with stand-ins for quoted and starred names, and without its where."""
        text = _QUOTED.sub(self._stand_in, text)
        text = _STARRED.sub(lambda found: f"__starred__({found[1]!r})", text)
        text, _, told = text.partition(" where ")
        for one in re.split(r",(?![^(]*\))", told) if told.strip() else ():
            name, equals, meant = one.partition("=")
            if not equals or not name.strip().isidentifier():
                raise self._wrong(f"{one_line(one)!r} names nothing; write where r = rate / 1200")
            before, self.deepest = self.nodes, 0
            self.bound[name.strip()] = self._value(self._parsed(meant))
            self.sizes[name.strip()] = self.nodes - before
            self.depths[name.strip()] = self.deepest
        return text

    def _stand_in(self, quoted: re.Match[str]) -> str:
        """For what is quoted, which may hold what means something elsewhere, as ->."""
        if quoted["name"] is None:
            found = f"__text{len(self.texts)}__"
            self.texts[found] = quoted["text"]
            return repr(found)
        self._must_know(quoted["name"])
        found = f"__column{len(self.quoted)}__"
        self.quoted[found] = quoted["name"]
        return found

    def _parsed(self, text: str) -> ast.expr:
        try:
            found = ast.parse(text.strip(), mode="eval").body
            for node in ast.walk(found):
                if isinstance(node, ast.Constant) and node.value in self.texts:
                    node.value = ast.literal_eval(self.texts[node.value])
            return found
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            why = error.msg if isinstance(error, SyntaxError) else str(error)
            raise self._wrong(f"{one_line(why, 60)} in {one_line(text, 60)!r}") from None

    def _truth(self, node: ast.expr, depth: int = 0) -> Truth:
        self._deep(depth)
        match node:
            case ast.BoolOp():
                parts = tuple(self._truth(value, depth + 1) for value in node.values)
                return Both(parts) if isinstance(node.op, ast.And) else Either(parts)
            case ast.UnaryOp(op=ast.Not()):
                return negated(self._truth(node.operand, depth + 1))
            case ast.Compare():
                sides = [node.left, *node.comparators]
                found = [
                    self._compared(op, left, right, depth + 1)
                    for op, left, right in zip(node.ops, sides, sides[1:], strict=False)
                ]
                return found[0] if len(found) == 1 else Both(tuple(found))
        raise self._wrong(f"{self._shown(node)} is no comparison; write what must hold, as a <= b")

    def _compared(self, op: ast.cmpop, left: ast.expr, right: ast.expr, depth: int) -> Compare:
        if type(op) not in _COMPARED:
            raise self._wrong("compare with <=, <, ==, !=, >= or >")
        name, swapped = _COMPARED[type(op)]
        absolute = relative = 0.0
        match right:
            case ast.BinOp(
                op=ast.BitOr(),
                left=ast.expr() as inner,
                right=ast.Call(func=ast.Name(id="__share__" | "__size__" as kind), args=[size]),
            ):
                if name != "==":
                    raise self._wrong("~ is for ==, as in a == b ~ 0.01; take it out")
                right, number = inner, self._value(size, depth)
                assert isinstance(number, Number)
                if kind == "__share__":
                    relative = number.value / 100
                else:
                    absolute = number.value
        sides = self._side(left, right, depth), self._side(right, left, depth)
        if _is_text(left) or _is_text(right):
            if name not in ("==", "!="):
                raise self._wrong("categories have no order; compare them with == or !=")
            absolute = relative = 0.0
        return Compare(name, *(sides[::-1] if swapped else sides), absolute, relative)

    def _side(self, node: ast.expr, other: ast.expr, depth: int) -> Value:
        """A side of a comparison, which may be the name of a category of the other."""
        if isinstance(node, ast.Name) and _is_text(other):
            return self._column(node.id, depth)
        if not _is_text(node):
            return self._value(node, depth)
        assert isinstance(node, ast.Constant)
        match self._column(other.id, depth) if isinstance(other, ast.Name) else None:
            case Column(name=name) if name in self.labels:
                labels = list(self.labels[name])
                if node.value not in labels:
                    hint = did_you_mean(node.value, labels) or f"; it is one of {listed(labels)}"
                    raise self._wrong(f"{name} has no category {one_line(node.value, 40)!r}{hint}")
                return Number(float(labels.index(node.value)))
        raise self._wrong(f"{self._shown(node)} is not known there; only columns of categories are")

    def _value(self, node: ast.expr, depth: int = 0) -> Value:
        self._deep(depth)
        match node:
            case ast.Constant(value=bool() | complex()):
                pass
            case ast.Constant(value=int() | float() as value):
                if not abs(value) <= sys.float_info.max:
                    raise self._wrong(f"{value} is too large a number")
                return Number(float(value))
            case ast.Name():
                return self._numbers(self._column(node.id, depth), depth)
            case ast.UnaryOp(op=ast.USub()):
                return Call("negate", (self._value(node.operand, depth + 1),))
            case ast.BinOp() if type(node.op) in _BINARY:
                sides = (self._value(node.left, depth + 1), self._value(node.right, depth + 1))
                return Call(_BINARY[type(node.op)], sides)
            case ast.IfExp():
                return Choice(
                    self._truth(node.test, depth + 1),
                    self._value(node.body, depth + 1),
                    self._value(node.orelse, depth + 1),
                )
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._call(name, args, depth + 1)
        raise self._wrong(f"{self._shown(node)} is not known; there are {_LANGUAGE}")

    def _call(self, name: str, arguments: list[ast.expr], depth: int) -> Value:
        if name == "date":
            return self._date(arguments)
        if name == "where" and len(arguments) == 3:
            condition = self._truth(arguments[0], depth)
            then, otherwise = (self._value(one, depth) for one in arguments[1:])
            return Choice(condition, then, otherwise)
        if name in _UNARY and len(arguments) == 1:
            return Call(name, (self._value(arguments[0], depth),))
        if name in _FOLDED and arguments:
            values = [one for node in arguments for one in self._spread(node, depth)]
            return Call(_FOLDED[name], tuple(values))
        raise self._wrong(
            f"{name}() with {len(arguments)} values is not known; there are {_LANGUAGE}"
        )

    def _spread(self, node: ast.expr, depth: int) -> list[Value]:
        """The columns of a starred name, or the one value that it is."""
        match node:
            case ast.Call(
                func=ast.Name(id="__starred__"), args=[ast.Constant(value=str() as start)]
            ):
                found = [Column(name) for name in self.columns if name.startswith(start)]
                self._deep(depth, len(found))
                if not found:
                    raise self._wrong(f"no column begins with {start!r}")
                return [self._numbers(one, depth) for one in found]
        return [self._value(node, depth)]

    def _date(self, arguments: list[ast.expr]) -> Value:
        """Days since 1970, as columns of dates have them; of a column it is the column."""
        match arguments:
            case [ast.Constant(value=str() as told)]:
                try:
                    return Number(float((date.fromisoformat(told) - date(1970, 1, 1)).days))
                except ValueError:
                    raise self._wrong(f"{one_line(told)!r} is no date; write 2026-01-31") from None
            case [ast.Name() as node]:
                return self._column(node.id)
        raise self._wrong("date() takes a column, or a text such as '2026-01-31'")

    def _column(self, name: str, depth: int = 0) -> Value:
        if name in self.quoted:
            return Column(self.quoted[name])
        if name in self.bound:
            # What stands in for a name counts each time: names of names would double and double.
            self._deep(depth + self.depths[name], self.sizes[name])
            return self.bound[name]
        self._must_know(name)
        return Column(name)

    def _numbers(self, value: Value, depth: int) -> Value:
        """A category by the number that its name is, where all of its column's names are such."""
        labels = self.labels.get(value.name, ()) if isinstance(value, Column) else ()
        named = [float(one) for one in labels if _NUMBER.fullmatch(one)]
        if len(named) != len(labels) or named == list(range(len(named))):
            return value
        self._deep(depth + len(named).bit_length(), 2 * len(named))

        def among(first: int, last: int) -> Value:
            if first == last:
                return Number(named[first])
            middle = (first + last) // 2
            below = Compare("<=", value, Number(float(middle)), 0.0, 0.0)
            return Choice(below, among(first, middle), among(middle + 1, last))

        return among(0, len(named) - 1)

    def _must_know(self, name: str) -> None:
        if name not in self.known:
            hint = did_you_mean(name, self.columns) or "; name a feature"
            raise self._wrong(f"{one_line(name, 40)!r} is no feature{hint}")

    def _deep(self, depth: int, nodes: int = 1) -> None:
        self.nodes += nodes
        self.deepest = max(self.deepest, depth)
        if depth > _DEPTH or self.nodes > _NODES:
            raise self._wrong(f"it is deeper than {_DEPTH} or has over {_NODES} parts; split it")

    def _shown(self, node: ast.expr) -> str:
        return one_line(repr(ast.unparse(node)), 60)

    def _wrong(self, why: str) -> ThreatError:
        return ThreatError(f"relation {one_line(self.text, 80)!r}: {why}")


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
