"""What an expression comes to, for whole columns at once; the same for numpy and torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add, and_, or_
from typing import Any, cast

import numpy as np

from ._tree import FOLDED, Both, Call, Choice, Column, Compare, Number, Truth, Value

_STEP = 1e-9
Array = Any
"""numpy's or torch's, float64, of shape (...)."""


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """The functions of a library of arrays: those of FUNCTIONS by name, a choice, and numbers."""

    functions: Mapping[str, Callable[..., Array]]
    where: Callable[[Array, Array, Array], Array]
    number: Callable[[float], Array] = np.float64


NUMPY = Arithmetic(
    functions={
        "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
        "power": np.power, "remainder": np.remainder, "negate": np.negative,
        "minimum": np.minimum, "maximum": np.maximum, "abs": np.abs, "log": np.log,
        "exp": np.exp, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "round": np.rint,
    },
    where=np.where,
)  # fmt: skip


def value(tree: Value, column: Callable[[str], Array], by: Arithmetic = NUMPY) -> Array:
    """The value (...); not a number or infinite where there is none, as for 1 / 0.

    column: the values of a feature by its name.
    """
    match tree:
        case Number():
            return by.number(tree.value)
        case Column():
            return column(tree.name)
        case Choice():
            branches = [value(one, column, by) for one in (tree.then, tree.otherwise)]
            return by.where(holds(tree.condition, column, by), *branches)
        case Call():
            found = [value(one, column, by) for one in tree.arguments]
            function = by.functions[tree.name]
            with np.errstate(all="ignore"):
                return reduce(function, found) if tree.name in FOLDED else function(*found)


def holds(tree: Truth, column: Callable[[str], Array], by: Arithmetic = NUMPY) -> Array:
    """Whether it holds (...), exactly; False where a value of it does not exist."""
    if isinstance(tree, Compare):
        left, right = value(tree.left, column, by), value(tree.right, column, by)
        with np.errstate(all="ignore"):
            # Infinity less itself is not a number: what is infinite is as little a value as none.
            there = (left - left == 0) & (right - right == 0)
            if tree.op == "<=":
                return there & (left <= right)
            if tree.op == "<":
                return there & (left < right)
            gap, most = abs(left - right), tree.absolute + tree.relative * abs(right)
            return there & (gap <= most if tree.op == "==" else gap > most)
    found = [holds(part, column, by) for part in tree.parts]
    return reduce(and_ if isinstance(tree, Both) else or_, found)


def excess(tree: Truth, column: Callable[[str], Array], by: Arithmetic = NUMPY) -> Array:
    """How far it is from holding (...): 0 where it holds, else more than 0, in its own units."""
    if isinstance(tree, Compare):
        left, right = value(tree.left, column, by), value(tree.right, column, by)
        with np.errstate(all="ignore"):
            gap = left - right
            if tree.op in ("==", "!="):
                most = tree.absolute + tree.relative * abs(right)
                gap = abs(gap) - most if tree.op == "==" else most - abs(gap)
        # Where a strict one is only just missed the gap is 0, and it does not hold.
        far = by.where(gap > _STEP, gap, _STEP)
        missed = by.where(gap == gap, far, math.inf)
        return by.where(holds(tree, column, by), 0.0, missed)
    found = [excess(part, column, by) for part in tree.parts]
    return reduce(add if isinstance(tree, Both) else by.functions["minimum"], found)


def affine(tree: Value) -> tuple[dict[str, float], float] | None:
    """The factor of each column and the constant, None for what is not linear."""
    match tree:
        case Number():
            return {}, tree.value
        case Column():
            return {tree.name: 1.0}, 0.0
        case Call(name="negate"):
            return _scaled(affine(tree.arguments[0]), -1.0)
        case Call(name="add" | "subtract"):
            first, *others = (affine(one) for one in tree.arguments)
            return reduce(_added, (_scaled(one, _SIGN[tree.name]) for one in others), first)
        case Call(name="multiply"):
            left, right = (affine(one) for one in tree.arguments)
            if left is not None and not left[0]:
                return _scaled(right, left[1])
            return None if right is None or right[0] else _scaled(left, right[1])
        case Call(name="divide"):
            left, right = (affine(one) for one in tree.arguments)
            if right is None or right[0] or right[1] == 0:
                return None
            return _scaled(left, 1 / right[1])
    return None


_Affine = tuple[dict[str, float], float] | None
_SIGN = {"add": 1.0, "subtract": -1.0}


def _added(left: _Affine, right: _Affine) -> _Affine:
    if left is None or right is None:
        return None
    names = {**left[0], **right[0]}
    factors = {name: left[0].get(name, 0.0) + right[0].get(name, 0.0) for name in names}
    return factors, left[1] + right[1]


def _scaled(form: _Affine, factor: float) -> _Affine:
    if form is None or not math.isfinite(factor):
        return None
    return {name: one * factor for name, one in form[0].items()}, form[1] * factor


def column_of(rows: np.ndarray[Any, Any], index: Mapping[str, int]) -> Callable[[str], Array]:
    """Columns by name of rows (..., F)."""
    return lambda name: cast(Array, rows[..., index[name]])
