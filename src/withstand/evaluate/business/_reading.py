"""From the rows that fooled a model to what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...threat.tabular import Capability, Table
from ._budgets import budget_points, cost_limits
from ._business import Business, Counterfactual, Rows
from ._counterfactuals import chosen, steps_of
from ._money import money_of
from ._parts import parts_of
from ._weakness import typical, weaknesses

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """Rows x and x_adv (N, F), which were right at first, and which of those were fooled (N,).

    label, before, after: the true class of each and the answers to x and x_adv, in words;
    confidence (N, 2): the share that the scores give the true class at x and x_adv, NaN where it is
    not known. groups (N,): whose row each is, None where that is not told.
    """

    x: Array
    x_adv: Array
    correct: Array
    fooled: Array
    label: Sequence[str]
    before: Sequence[str]
    after: Sequence[str]
    confidence: Array
    groups: Array | None = None


def business_of(table: Table, capability: Capability, rows: Attacked) -> Business:
    """The reading of an attack on a table; capability: the threat's, with the limits that it has.

    Figures are the same in whatever order the rows are.
    """
    parts = parts_of(capability)
    priced = any(part.priced for part in parts)
    x, x_adv = (np.asarray(one, np.float64) for one in (rows.x, rows.x_adv))
    changed = np.asarray(capability.changed(x, x_adv), np.int64)
    cost = np.asarray(capability.cost(x, x_adv))
    stakes = _stakes(table, x, x_adv)
    hit = np.flatnonzero(rows.fooled)
    limits = cost_limits(cost[hit], capability.most_cost)
    counts = range(int(np.max(changed[hit], initial=0)) + 1) if len(hit) else ()
    points = rows.correct, rows.fooled, stakes, rows.groups
    before, after = table.decode(rows.x[hit]), table.decode(rows.x_adv[hit])
    paid = cost if priced else None
    spent = table.spent(x, x_adv) if priced else None
    return Business(
        currency=table.currency,
        changeable=sum(part.changeable for part in parts),
        features_total=len(parts) + len(capability.derived),
        relations=len(capability.relations),
        most_changed=capability.most_changed,
        most_cost=capability.most_cost if priced else None,
        caught=int(rows.correct.sum()),
        classes=len({rows.label[row] for row in np.flatnonzero(rows.correct).tolist()}),
        fooled=len(hit),
        changed=typical(changed[hit]),
        cost=typical(cost[hit]) if priced else None,
        money=None
        if stakes is None
        else money_of(*stakes, rows.correct, rows.fooled, paid, spent, rows.groups),
        features=weaknesses(parts, x[hit], x_adv[hit], before, after),
        by_cost=budget_points(limits, cost, *points) if priced else (),
        by_changed=budget_points(counts, changed, *points),
        counterfactuals=_counterfactuals(table, capability, rows, changed, paid, spent, stakes),
        rows=Rows(
            row=hit,
            changed=changed[hit],
            cost=None if paid is None else paid[hit],
            stake_before=None if stakes is None else stakes[0][hit],
            stake_after=None if stakes is None else stakes[1][hit],
            profit=_profit(stakes, spent, hit),
        ),
    )


def _stakes(table: Table, x: Array, x_adv: Array) -> tuple[Array, Array] | None:
    with np.errstate(all="ignore"):
        before, after = table.at_stake(x), table.at_stake(x_adv)
    return None if before is None or after is None else (before, after)


def _profit(stakes: tuple[Array, Array] | None, spent: Array | None, hit: Array) -> Array | None:
    return None if stakes is None or spent is None else np.asarray((stakes[1] - spent)[hit])


def _counterfactuals(
    table: Table,
    capability: Capability,
    rows: Attacked,
    changed: Array,
    cost: Array | None,
    spent: Array | None,
    stakes: tuple[Array, Array] | None,
) -> tuple[Counterfactual, ...]:
    parts, hit = parts_of(capability), np.flatnonzero(rows.fooled)
    x, x_adv = (np.asarray(one, np.float64)[hit] for one in (rows.x, rows.x_adv))
    profit = _profit(stakes, spent, hit)
    effort = (changed if cost is None else cost)[hit]
    gain = (
        profit if profit is not None else np.zeros(len(hit)) if stakes is None else stakes[1][hit]
    )
    places = chosen(parts, x, x_adv, effort, np.nan_to_num(gain, nan=-np.inf))
    picked = hit[places]
    before, after = table.decode(rows.x[picked]), table.decode(rows.x_adv[picked])
    steps = steps_of(parts, capability.order, x[places], x_adv[places], before, after)
    return tuple(
        Counterfactual(
            row=int(row),
            label=rows.label[row],
            answer_before=rows.before[row],
            answer_after=rows.after[row],
            confidence_before=_known(rows.confidence[row, 0]),
            confidence_after=_known(rows.confidence[row, 1]),
            changed=int(changed[row]),
            cost=None if cost is None else float(cost[row]),
            stake_before=None if stakes is None else _known(stakes[0][row]),
            stake_after=None if stakes is None else _known(stakes[1][row]),
            profit=None if profit is None else _known(profit[place]),
            steps=found,
        )
        for place, row, found in zip(places, picked, steps, strict=True)
    )


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
