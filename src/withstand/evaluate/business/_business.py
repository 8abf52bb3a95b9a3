"""What fooled rows of a table mean to the people whose money it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from ...stats import Interval

Array = NDArray[Any]
Kind = Literal["number", "date", "category", "choice"]


@dataclass(frozen=True, kw_only=True)
class Typical:
    """The median and the largest of some values."""

    median: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class Move:
    """How many fooled rows went from one category to another."""

    before: str
    after: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Weakness:
    """What the attack did to one feature; columns that are one choice are one feature.

    share: of the fooled rows, those in which it changed. alone: rows in which nothing else did.
    raised, lowered: rows; size: of the changes, in the feature's own unit, which is days for a
    date; both are for numbers and dates. moves: the most frequent ones, for categories and choices;
    others: rows with another one. cost: to the attacker, None where the table tells no costs.
    """

    feature: str
    kind: Kind
    unit: str
    share: Interval
    alone: int
    raised: int
    lowered: int
    size: Typical | None
    moves: tuple[Move, ...]
    others: int
    cost: Typical | None


@dataclass(frozen=True, kw_only=True)
class Money:
    """Sums over rows, in the table's currency; the stake of a row is what the table says it is.

    at_stake: of all rows. caught: of those that are right without an attack. passed: of the fooled
    ones, as they were; passed_changed: as they were handed in, with what was changed. rate: passed
    of caught, with the interval of `weighted_share`. cost: to the attacker, of all fooled rows.
    paying: share of the caught rows for which the changed stake is more than its cost; profit: by
    how much, of all of those. cost, paying and profit are None where the table tells no costs.
    unknown: rows whose stake is no number of at least 0, before or after; they are in no sum.
    groups: of how many customers or other groups the caught rows are, over which the intervals go;
    None where the data tell no groups and rows are taken as independent.
    """

    at_stake: float
    caught: float
    passed: float
    passed_changed: float
    rate: Interval
    cost: float | None
    paying: Interval | None
    profit: float | None
    unknown: int
    groups: int | None


@dataclass(frozen=True, kw_only=True)
class BudgetPoint:
    """What gets through within a limit on each row, of what was found under the whole threat.

    fooling_rate, money_rate and passed are lower bounds, robust_accuracy is an upper bound: an
    attacker who has no more than this from the start may find more.
    """

    limit: float
    fooling_rate: Interval
    robust_accuracy: Interval
    money_rate: Interval | None
    passed: float | None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One feature of a row before and after, as the table's file has it.

    follows: it is derived, and changed because others did.
    """

    feature: str
    before: str
    after: str
    cost: float | None
    follows: bool


@dataclass(frozen=True, kw_only=True)
class Counterfactual:
    """A fooled row to look at: what was changed in it, and what the model says then.

    confidence: the share that the scores give the true class, None where they are not known; stake:
    in the table's currency, None where the table tells none.
    """

    row: int
    label: str
    answer_before: str
    answer_after: str
    confidence_before: float | None
    confidence_after: float | None
    changed: int
    cost: float | None
    stake_before: float | None
    stake_after: float | None
    profit: float | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """One entry for each fooled row: its place in the data, and what it took and brought."""

    row: Array
    changed: Array
    cost: Array | None
    stake_before: Array | None
    stake_after: Array | None
    profit: Array | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Business:
    """An attack on a table in counts, costs and money.

    changeable: how many features the attacker can change, of how many; most_changed, most_cost: the
    limits on a row. caught: rows that are right without an attack, of that many classes; fooled:
    those of them that got through. cost, changed: of a fooled row. features: those that give way,
    the most frequent first. by_cost, by_changed: what gets through within less. counterfactuals: a
    few rows to show. cost is None where the table tells no costs, money where it tells no stake.
    """

    currency: str
    changeable: int
    features_total: int
    relations: int
    most_changed: int | None
    most_cost: float | None
    caught: int
    classes: int
    fooled: int
    changed: Typical | None
    cost: Typical | None
    money: Money | None
    features: tuple[Weakness, ...]
    by_cost: tuple[BudgetPoint, ...]
    by_changed: tuple[BudgetPoint, ...]
    counterfactuals: tuple[Counterfactual, ...]
    rows: Rows
