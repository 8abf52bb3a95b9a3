"""What an expression can come to within a box: interval arithmetic, rounded outward."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from ._tree import FOLDED, Both, Call, Choice, Column, Compare, Number, Truth, Value

Array = Any
"""numpy's, float64 or bool, of shape (...), or a number of its."""


class Span(NamedTuple):
    """Bounds of a value (...); sure: whether it exists everywhere in the box, as 1 / x need not."""

    low: Array
    high: Array
    sure: Array


class Verdict(NamedTuple):
    """must: it holds everywhere in the box; may: it is not proven to fail everywhere."""

    must: Array
    may: Array


Box = Callable[[str], tuple[Array, Array]]


def span(tree: Value, box: Box) -> Span:
    """Bounds of a value over a box, which gives lower and upper ends (...) of a feature."""
    match tree:
        case Number():
            value = np.float64(tree.value)
            return Span(value, value, np.True_)
        case Column():
            low, high = (np.asarray(end, np.float64) for end in box(tree.name))
            return Span(low, high, np.isfinite(low) & np.isfinite(high))
        case Choice():
            verdict = verdict_of(tree.condition, box)
            then, other = span(tree.then, box), span(tree.otherwise, box)
            either = Span(
                np.minimum(then.low, other.low),
                np.maximum(then.high, other.high),
                then.sure & other.sure,
            )
            ends = zip(then, either, other, strict=True)
            where = [verdict.must, verdict.may]
            return Span(*(np.select(where, [one, both], last) for one, both, last in ends))
        case Call():
            spans = [span(one, box) for one in tree.arguments]
            with np.errstate(all="ignore"):
                found = _applied(tree.name, spans)
            low, high = found.low, found.high
            sure = reduce(np.logical_and, [one.sure for one in spans], found.sure)
            return Span(low, high, sure & np.isfinite(low) & np.isfinite(high))


def _applied(name: str, spans: list[Span]) -> Span:
    function = _OF[name] if name in _EXACT else _outward(_OF[name])
    return reduce(function, spans) if name in FOLDED else function(*spans)


def _outward(function: Callable[..., Span]) -> Callable[..., Span]:
    """The same, rounded so that no exact result lies outside."""

    def found(*spans: Span) -> Span:
        low, high, sure = function(*spans)
        return Span(np.nextafter(low, -np.inf), np.nextafter(high, np.inf), sure)

    return found


def verdict_of(tree: Truth, box: Box) -> Verdict:
    """Whether it holds over a box: everywhere, nowhere, or not known."""
    if isinstance(tree, Compare):
        left, right = span(tree.left, box), span(tree.right, box)
        sure = left.sure & right.sure
        if tree.op in ("<=", "<"):
            compare = np.less_equal if tree.op == "<=" else np.less
            return Verdict(sure & compare(left.high, right.low), compare(left.low, right.high))
        size = np.maximum(np.abs(right.low), np.abs(right.high))
        most = tree.absolute + tree.relative * np.nan_to_num(size)
        most = np.where(most > 0, np.nextafter(most, np.inf), 0.0)
        apart = (left.low - right.high > most) | (right.low - left.high > most)
        same = sure & (left.low == left.high) & (right.low == right.high) & (left.low == right.low)
        if tree.op == "==":
            return Verdict(same, ~apart)
        return Verdict(sure & apart, ~same)
    found = [verdict_of(part, box) for part in tree.parts]
    join = np.logical_and if isinstance(tree, Both) else np.logical_or
    return Verdict(
        reduce(join, [one.must for one in found]), reduce(join, [one.may for one in found])
    )


def _multiply(left: Span, right: Span) -> Span:
    ends = [a * b for a in (left.low, left.high) for b in (right.low, right.high)]
    # 0 times infinity: whatever finite value stands for the infinite end, it comes to 0.
    ends = [np.where(np.isnan(end), 0.0, end) for end in ends]
    return Span(reduce(np.minimum, ends), reduce(np.maximum, ends), np.True_)


def _divide(left: Span, right: Span) -> Span:
    away = (right.low > 0) | (right.high < 0)
    turned = Span(1 / np.where(away, right.high, 1), 1 / np.where(away, right.low, 1), away)
    turned = Span(np.nextafter(turned.low, -np.inf), np.nextafter(turned.high, np.inf), away)
    found = _multiply(left, turned)
    return Span(np.where(away, found.low, -np.inf), np.where(away, found.high, np.inf), away)


def _power(base: Span, exponent: Span) -> Span:
    """Corners where the base is positive; even and odd whole powers of any base."""
    ends = [a**b for a in (base.low, base.high) for b in (exponent.low, exponent.high)]
    low, high = reduce(np.fmin, ends), reduce(np.fmax, ends)
    whole = (exponent.low == exponent.high) & (exponent.low == np.rint(exponent.low))
    whole &= exponent.low >= 0
    even = whole & (np.remainder(exponent.low, 2) == 0)
    inside = even & (base.low < 0) & (base.high > 0)
    low = np.where(inside, np.where(exponent.low == 0, 1.0, 0.0), low)
    known = (base.low > 0) | whole
    # Powers of libraries are not rounded correctly: a few units more than for the others.
    slack = 4 * np.spacing(np.maximum(np.abs(low), np.abs(high)))
    slack = np.where(np.isfinite(slack), slack, 0.0)
    return Span(np.where(known, low - slack, -np.inf), np.where(known, high + slack, np.inf), known)


def _remainder(left: Span, right: Span) -> Span:
    known = right.low > 0
    return Span(np.where(known, 0.0, -np.inf), np.where(known, right.high, np.inf), known)


def _abs(one: Span) -> Span:
    across = (one.low < 0) & (one.high > 0)
    ends = np.abs(one.low), np.abs(one.high)
    return Span(np.where(across, 0.0, np.minimum(*ends)), np.maximum(*ends), np.True_)


def _rising(
    function: Callable[[Array], Array], least: float = -np.inf, *, strict: bool = False
) -> Callable[[Span], Span]:
    """Of a function that never falls, and has a value from `least` on."""

    def found(one: Span) -> Span:
        sure = one.low > least if strict else one.low >= least
        low = np.where(sure, function(np.where(sure, one.low, 1.0)), -np.inf)
        high = function(np.maximum(one.high, least))
        slack = np.where(np.isfinite(high), 2 * np.spacing(np.abs(high)), 0.0)
        return Span(low - np.where(sure, 2 * np.spacing(np.abs(low)), 0.0), high + slack, sure)

    return found


_EXACT = ("negate", "minimum", "maximum", "abs", "floor", "ceil", "round")
_OF: dict[str, Callable[..., Span]] = {
    "add": lambda a, b: Span(a.low + b.low, a.high + b.high, np.True_),
    "subtract": lambda a, b: Span(a.low - b.high, a.high - b.low, np.True_),
    "multiply": _multiply,
    "divide": _divide,
    "power": _power,
    "remainder": _remainder,
    "negate": lambda a: Span(-a.high, -a.low, np.True_),
    "minimum": lambda a, b: Span(np.minimum(a.low, b.low), np.minimum(a.high, b.high), np.True_),
    "maximum": lambda a, b: Span(np.maximum(a.low, b.low), np.maximum(a.high, b.high), np.True_),
    "abs": _abs,
    "log": _rising(np.log, 0.0, strict=True),
    "exp": _rising(np.exp),
    "sqrt": _rising(np.sqrt, 0.0),
    "floor": lambda a: Span(np.floor(a.low), np.floor(a.high), np.True_),
    "ceil": lambda a: Span(np.ceil(a.low), np.ceil(a.high), np.True_),
    "round": lambda a: Span(np.rint(a.low), np.rint(a.high), np.True_),
}
