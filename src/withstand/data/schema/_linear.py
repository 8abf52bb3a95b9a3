"""What follows from linear rules, and what contradicts them: linear programmes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...threat.tabular import Both, Call, Capability, Compare, Truth, affine

Array = NDArray[Any]

_SLACK = 1e-6


class Half(NamedTuple):
    """A rule that factors (F,) times a row, plus the constant, is at most 0, or below it."""

    factors: Array
    constant: float
    strict: bool


def halves(tree: Truth, index: dict[str, int]) -> list[Half] | None:
    """The linear rules that a relation comes to, None where it comes to others as well."""
    if isinstance(tree, Both):
        found = [halves(part, index) for part in tree.parts]
        return (
            None if any(one is None for one in found) else [h for one in found for h in one or ()]
        )
    if not isinstance(tree, Compare) or tree.op == "!=" or tree.relative:
        return None
    form = affine(Call("subtract", (tree.left, tree.right)))
    if form is None:
        return None
    factors = np.zeros(len(index))
    for name, factor in form[0].items():
        factors[index[name]] = factor
    if tree.op != "==":
        return [Half(factors, form[1], tree.op == "<")]
    return [
        Half(factors, form[1] - tree.absolute, False),
        Half(-factors, -form[1] - tree.absolute, False),
    ]


def follows(wanted: Sequence[Half], given: Sequence[Half], low: Array, high: Array) -> bool:
    """Whether every row (F,) within low and high that keeps the given rules keeps those wanted."""
    for half in wanted:
        if not half.factors.any():
            continue
        most = _largest(half.factors, given, low, high)
        edge = _SLACK * _size(half, low, high)
        if most is None or most + half.constant > (-edge if half.strict else edge):
            return False
    return True


def impossible(given: Sequence[Half], low: Array, high: Array) -> bool:
    """Whether no row (F,) within low and high keeps all the rules."""
    if not given:
        return False
    from scipy.optimize import linprog

    sizes = np.array([_size(half, low, high) for half in given])
    table = np.stack([half.factors for half in given])
    table = np.concatenate((table / sizes[:, None], -np.ones((len(given), 1))), 1)
    limits = np.array([-half.constant for half in given]) / sizes
    aim = np.zeros(table.shape[1])
    aim[-1] = 1
    bounds = [*zip(low, high, strict=True), (-1, None)]
    found = linprog(aim, table, limits, bounds=bounds, method="highs")
    return bool(found.status == 2 or (found.status == 0 and found.fun > _SLACK))


def contradiction(
    rules: Sequence[Sequence[Half]], always: Sequence[Half], low: Array, high: Array
) -> list[int] | None:
    """The fewest of some rules, by number, that no row keeps together; None where one does.

    Each of them is needed: without it there is a row. always: what is not in question.
    """

    def together(numbers: Sequence[int]) -> bool:
        return impossible([*always, *(h for n in numbers for h in rules[n])], low, high)

    left = list(range(len(rules)))
    if not together(left) or together([]):
        return None
    for number in range(len(rules)):
        rest = [one for one in left if one != number]
        if together(rest):
            left = rest
    return left


def derived_halves(capability: Capability) -> list[Half]:
    """What is derived in a linear way, as rules; room for the rounding of what is derived."""
    found = []
    for one in capability.derived:
        form = affine(one.tree)
        if form is None:
            continue
        factors = np.zeros(len(capability.index))
        for name, factor in form[0].items():
            factors[capability.index[name]] += factor
        factors[capability.index[one.name]] -= 1
        found += [Half(factors, form[1], False), Half(-factors, -form[1], False)]
    return found


def _largest(factors: Array, given: Sequence[Half], low: Array, high: Array) -> float | None:
    """The most that factors times a row come to; None where that has no limit."""
    from scipy.optimize import linprog

    table = np.stack([half.factors for half in given]) if given else None
    limits = np.array([-half.constant for half in given]) if given else None
    bounds = list(zip(low, high, strict=True))
    found = linprog(-factors, table, limits, bounds=bounds, method="highs")
    if found.status == 2:
        # No row keeps the given rules: anything follows, and that is told on its own.
        return -np.inf
    return -float(found.fun) if found.status == 0 else None


def _size(half: Half, low: Array, high: Array) -> float:
    """How large the terms of a rule become, as a measure of rounding."""
    ends = np.maximum(np.abs(low), np.abs(high))
    terms = np.abs(half.factors) * np.where(np.isfinite(ends), ends, 1.0)
    return float(max(terms.max(initial=0.0), abs(half.constant), 1e-12))
