"""What expressions are made of: numbers, columns, arithmetic, comparisons and their joints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True)
class Column:
    """The value of a feature."""

    name: str


@dataclass(frozen=True)
class Call:
    """An operation, one of FUNCTIONS, on values: any number of them for those of FOLDED."""

    name: str
    arguments: tuple[Value, ...]


@dataclass(frozen=True)
class Choice:
    """`where(condition, then, otherwise)`."""

    condition: Truth
    then: Value
    otherwise: Value


@dataclass(frozen=True)
class Compare:
    """Two values compared; op: <=, <, == or !=.

    absolute, relative: how far apart values that count as equal may be, the latter as a share of
    the right one.
    """

    op: str
    left: Value
    right: Value
    absolute: float = 0.0
    relative: float = 0.0


@dataclass(frozen=True)
class Both:
    """All of them hold."""

    parts: tuple[Truth, ...]


@dataclass(frozen=True)
class Either:
    """At least one of them holds."""

    parts: tuple[Truth, ...]


Value = Number | Column | Call | Choice
Truth = Compare | Both | Either

FUNCTIONS = (
    "add", "subtract", "multiply", "divide", "power", "remainder", "negate", "minimum", "maximum",
    "abs", "log", "exp", "sqrt", "floor", "ceil", "round",
)  # fmt: skip
FOLDED = ("add", "minimum", "maximum")


def names(tree: Value | Truth) -> Iterator[str]:
    """The columns that a tree speaks of, each as often as it does."""
    if isinstance(tree, Column):
        yield tree.name
    for part in parts(tree):
        yield from names(part)


def parts(tree: Value | Truth) -> tuple[Value | Truth, ...]:
    """What a tree is made of."""
    match tree:
        case Call():
            return tree.arguments
        case Choice():
            return (tree.condition, tree.then, tree.otherwise)
        case Compare():
            return (tree.left, tree.right)
        case Both() | Either():
            return tree.parts
    return ()


def negated(tree: Truth) -> Truth:
    """The opposite. What has no value, such as 1 / 0 < 2, holds neither way."""
    match tree:
        case Both():
            return Either(tuple(map(negated, tree.parts)))
        case Either():
            return Both(tuple(map(negated, tree.parts)))
    tolerated = (tree.absolute, tree.relative)
    if tree.op in ("<=", "<"):
        return Compare("<" if tree.op == "<=" else "<=", tree.right, tree.left)
    return Compare("!=" if tree.op == "==" else "==", tree.left, tree.right, *tolerated)
