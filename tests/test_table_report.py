"""What a report on a table says: what was changed, at what cost, and what money got through."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import io
import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from browser import CHROMIUM, browsing
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from test_report import _Outline

from withstand import WithstandError
from withstand.data import from_arrays
from withstand.evaluate import (
    Report,
    business,
    evaluate,
    headline,
    load_report,
    page,
    report_schema,
    show,
)
from withstand.evaluate.business import (
    Attacked,
    Business,
    business_of,
    paragraph,
    read_sheet,
    sheet,
    weighted_share,
)
from withstand.models import FunctionModel
from withstand.stats import wilson
from withstand.threat import L0, Linf, Threat
from withstand.threat.tabular import Capability, Derived, Feature, OneHot, Relation, Table

HOSTILE = "<script>alert(1)</script>"
NAMES = ["amount", "usual", "ratio", "age", "country", "opened", "ios", "web"]
COUNTRIES = ("DE", "FR", "PL")


def capability(*, priced: bool = True, factor: float = 1.0, **limits: Any) -> Capability:
    price = factor if priced else 0.0
    return Capability(
        features=(
            Feature(name="amount", lower=0, upper=5000, step=0.01, cost=price),
            Feature(name="usual", change="none"),
            Feature(name="ratio"),
            Feature(name="age", lower=0, upper=9000, integer=True, cost=0.5 * price),
            Feature(name="country", values=(0.0, 1.0, 2.0), labels=COUNTRIES, fixed=5 * price),
            Feature(name="opened", lower=0, upper=30000, integer=True, date=True, cost=0.1 * price),
            Feature(name="ios"),
            Feature(name="web"),
        ),
        choices=(OneHot(columns=("ios", "web"), cost=2 * price),),
        derived=(Derived.read("ratio", "amount / usual", NAMES),),
        relations=(Relation.read("amount <= 5000", NAMES),),
        **limits,
    )


# amount, usual, ratio, age, country, opened, ios, web: what each row is and what it becomes.
ROWS = [
    ((100, 10, 10, 50, 0, 20000, 1, 0), (60, 10, 6, 50, 0, 20000, 1, 0)),
    ((50, 10, 5, 50, 2, 20000, 1, 0), (50, 10, 5, 50, 0, 20000, 1, 0)),
    ((10, 10, 1, 10, 1, 20000, 1, 0), (10, 10, 1, 14, 1, 20000, 0, 1)),
    ((20, 10, 2, 50, 0, 20000, 1, 0), (18, 10, 1.8, 50, 0, 20030, 1, 0)),
    ((300, 10, 30, 50, 0, 20000, 1, 0), (300, 10, 30, 50, 0, 20000, 1, 0)),
    ((20, 10, 2, 50, 0, 20000, 1, 0), (20, 10, 2, 50, 0, 20000, 1, 0)),
    ((40, 10, 4, 50, 2, 20000, 1, 0), (10, 10, 1, 50, 1, 20000, 1, 0)),
]
FOOLED, WRONG = [0, 1, 2, 3, 6], 5


def attacked(order: Any = range(7), **changes: Any) -> Attacked:
    order = list(order)
    x, x_adv = (np.array([pair[i] for pair in ROWS], np.float32)[order] for i in (0, 1))
    told: dict[str, Any] = {
        "x": x,
        "x_adv": x_adv,
        "correct": np.array([row != WRONG for row in order], bool),
        "fooled": np.array([row in FOOLED for row in order], bool),
        "label": ["fraud"] * len(order),
        "before": ["legit" if row == WRONG else "fraud" for row in order],
        "after": ["legit" if row in (*FOOLED, WRONG) else "fraud" for row in order],
        "confidence": np.tile([0.9, 0.25], (len(order), 1)),
    }
    return Attacked(**{**told, **changes})


def read(rows: Attacked | None = None, stake: str | None = "amount", **told: Any) -> Business:
    can = capability(**{"most_cost": 50, **told})
    return business_of(Table(capability=can, stake=stake, currency="EUR"), can, rows or attacked())


def test_money_is_what_a_hand_adds_up() -> None:
    found = read()
    money = found.money
    assert money is not None
    assert (money.at_stake, money.caught) == (540, 520)
    assert (money.passed, money.passed_changed) == (220, 148)
    assert money.rate.value == pytest.approx(220 / 520)
    assert money.rate.n == 6
    assert money.cost == pytest.approx(40 + 5 + 4 + 5 + 35)
    assert money.paying == wilson(5, 6)
    # Of 40, 5, 4, 5 and 35 that it costs, 40, 2 and 30 are money that is not at stake any more.
    assert money.profit == pytest.approx(60 + 45 + 6 + 15 + 5)
    assert money.unknown == 0
    assert (found.caught, found.classes, found.fooled) == (6, 1, 5)
    assert (found.changeable, found.features_total, found.relations) == (5, 7, 1)
    assert found.rows.row.tolist() == FOOLED
    assert found.rows.changed.tolist() == [1, 1, 2, 2, 2]
    for values, wanted in (
        (found.rows.cost, [40, 5, 4, 5, 35]),
        (found.rows.stake_before, [100, 50, 10, 20, 40]),
        (found.rows.stake_after, [60, 50, 10, 18, 10]),
        (found.rows.profit, [60, 45, 6, 15, 5]),
    ):
        assert values is not None
        assert values.tolist() == pytest.approx(wanted)


def test_each_feature_says_how_often_how_far_and_at_what_cost() -> None:
    found = read().features
    assert [one.feature for one in found] == ["amount", "country", "age", "ios, web", "opened"]
    amount, country, age, choice, opened = found
    assert amount.share == wilson(3, 5)
    assert (amount.alone, amount.raised, amount.lowered) == (1, 0, 3)
    assert amount.size is not None
    assert amount.cost is not None
    assert (amount.size.median, amount.size.largest) == pytest.approx((30, 40))
    assert (amount.cost.median, amount.cost.largest) == pytest.approx((30, 40))
    assert country.size is None
    assert [(m.before, m.after, m.count) for m in country.moves] == [
        ("PL", "DE", 1),
        ("PL", "FR", 1),
    ]
    assert country.cost is not None
    assert country.cost.median == 5
    assert (age.raised, age.lowered, age.alone) == (1, 0, 0)
    assert [(m.before, m.after) for m in choice.moves] == [("ios", "web")]
    assert choice.cost is not None
    assert choice.cost.largest == 2
    assert (opened.unit, opened.size and opened.size.median) == ("days", 30)


def test_what_gives_way_alone_comes_before_what_is_cheap() -> None:
    found = read(attacked([0, 2])).features
    told = [(one.feature, one.share.value, one.alone) for one in found[:3]]
    assert told == [("amount", 0.5, 1), ("age", 0.5, 0), ("ios, web", 0.5, 0)]


def test_the_parts_costs_are_the_capability_s() -> None:
    can, rows = capability(), attacked()
    x, x_adv = rows.x.astype(float), rows.x_adv.astype(float)
    rng = np.random.default_rng(0)
    x_adv = np.where(rng.random(x.shape) < 0.5, x, rng.permuted(x_adv, axis=0))
    from withstand.evaluate.business._parts import parts_of

    spent = sum(part.spent(x, x_adv) for part in parts_of(can))
    assert np.allclose(spent, can.cost(x, x_adv))
    moved = sum(part.moved(x, x_adv).astype(int) for part in parts_of(can))
    assert np.array_equal(moved, can.changed(x, x_adv))


def test_a_smaller_budget_gets_through_what_costs_no_more() -> None:
    found = read()
    by_cost = {point.limit: point for point in found.by_cost}
    assert min(by_cost) == 0
    assert max(by_cost) == 50
    assert by_cost[0].fooling_rate == wilson(0, 6)
    # The change of a date costs 0.1 a day, and 3.0000000000000004 for 30 of them.
    assert by_cost[6.25].fooling_rate == wilson(3, 6)
    assert by_cost[6.25].robust_accuracy == wilson(3, 7)
    assert by_cost[6.25].passed == 80
    assert by_cost[6.25].money_rate == weighted_share(
        np.array([100, 50, 10, 20, 300, 40]), np.array([0, 1, 1, 1, 0, 0])
    )
    last = by_cost[50]
    assert found.money is not None
    assert (last.fooling_rate, last.money_rate) == (wilson(5, 6), found.money.rate)
    by_changed = [(point.limit, point.fooling_rate, point.passed) for point in found.by_changed]
    assert by_changed == [(0, wilson(0, 6), 0), (1, wilson(2, 6), 150), (2, wilson(5, 6), 220)]
    wide = read(most_cost=1e6).by_cost
    assert wide[-1].limit == 50


def test_the_cheapest_of_each_way_is_shown_step_by_step() -> None:
    shown = read().counterfactuals
    assert [one.row for one in shown] == [2, 1, 3, 6, 0]
    last = shown[3]
    steps = [(s.feature, s.before, s.after, s.cost, s.follows) for s in last.steps]
    assert steps == [
        ("amount", "40", "10", 30, False),
        ("country", "PL", "FR", 5, False),
        ("ratio", "4", "1", None, True),
    ]
    assert (last.label, last.answer_before, last.answer_after) == ("fraud", "fraud", "legit")
    assert (last.confidence_before, last.confidence_after) == (0.9, 0.25)
    assert (last.cost, last.changed, last.profit) == pytest.approx((35, 2, 5))
    opened = shown[2].steps[0]
    assert (opened.feature, opened.before, opened.after) == ("opened", "2024-10-04", "2024-11-03")
    assert shown[0].steps[0].feature == "age"
    assert {s.feature: s.after for s in shown[0].steps} == {"age": "14", "ios, web": "web"}


def test_every_way_is_shown_before_any_is_shown_twice() -> None:
    many = read(attacked([0] * 30 + [1, 2]))
    assert len(many.counterfactuals) == 10
    ways = [tuple(sorted(s.feature for s in one.steps)) for one in many.counterfactuals]
    assert len(set(ways)) == 3
    assert ways.count(("amount", "ratio")) == 8


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(17)))
def test_of_many_ways_the_most_frequent_are_shown_whatever_the_order(order: list[int]) -> None:
    names = [f"f{place}" for place in range(5)]
    can = Capability(
        features=(
            *(Feature(name=name, lower=0, upper=1, cost=1) for name in names),
            Feature(name="person", change="none"),
        )
    )
    pairs = list(itertools.combinations(range(5), 2))
    ways = [*((place,) for place in range(5)), *pairs, pairs[-1], pairs[-1]]
    x = np.zeros((17, 6), np.float32)
    # Rows of other people cost the same and are worth the same.
    x[:, 5] = [*range(15), 30, 20]
    x_adv = x.copy()
    for row, way in enumerate(ways):
        x_adv[row, list(way)] = 1
    every, texts = np.ones(17, bool), ["a"] * 17
    rows = Attacked(
        x=x[order], x_adv=x_adv[order], correct=every, fooled=every, label=texts, before=texts,
        after=texts, confidence=np.full((17, 2), np.nan),
    )  # fmt: skip
    shown = business_of(Table(capability=can), can, rows).counterfactuals
    assert [one.cost for one in shown] == sorted(one.cost or 0 for one in shown)
    # Ten of fifteen ways: the one of three rows, and of the others the first by their features.
    wanted = {*sorted(set(ways) - {pairs[-1]})[:9], pairs[-1]}
    told = [(tuple(int(s.feature[1]) for s in one.steps), x[order][one.row, 5]) for one in shown]
    assert {way for way, _ in told} == wanted
    assert told == _first_told(told)
    alike = [(pairs[-1], person) for person in (14, 20, 30)]
    assert [one for one in told if one[0] == pairs[-1]] == _first_told(alike)[:1]


def _first_told(told: list[Any]) -> list[Any]:
    """In the order of their cost, and then of what they were and became."""

    def content(one: Any) -> Any:
        row = np.zeros(6)
        row[5] = one[1]
        after = row.copy()
        after[list(one[0])] = 1
        return len(one[0]), row.tobytes() + after.tobytes()

    return sorted(told, key=content)


def test_a_last_digit_computed_anew_is_no_change() -> None:
    rows = attacked()
    nudged = rows.x_adv.copy()
    nudged[1, 2] = np.nextafter(np.float32(5), np.float32(6))
    shown = read(dataclasses.replace(rows, x_adv=nudged)).counterfactuals
    assert [s.feature for s in shown[1].steps] == ["country"]


def test_a_date_that_follows_from_another_is_told_as_a_date() -> None:
    names = ["opened", "due", "age"]
    can = Capability(
        features=(
            Feature(name="opened", lower=0, upper=30000, integer=True, date=True),
            Feature(name="due", date=True, integer=True),
            Feature(name="age", lower=0, upper=90, integer=True),
        ),
        derived=(Derived.read("due", "opened + 30", names),),
    )
    x = np.array([[20000, 20030, 5], [20000, 20030, 5]], np.float32)
    x_adv = np.array([[20001, 20031, 5], [20000, 20030, 6]], np.float32)
    every, texts = np.ones(2, bool), ["a"] * 2
    rows = Attacked(
        x=x, x_adv=x_adv, correct=every, fooled=every, label=texts, before=texts, after=texts,
        confidence=np.full((2, 2), np.nan),
    )  # fmt: skip
    shown = business_of(Table(capability=can), can, rows).counterfactuals
    told = {one.row: [(s.feature, s.before, s.after) for s in one.steps] for one in shown}
    assert told == {
        0: [("opened", "2024-10-04", "2024-10-05"), ("due", "2024-11-03", "2024-11-04")],
        1: [("age", "5", "6")],
    }


def _figures(found: Business) -> Any:
    """Everything but the places of rows in the data."""
    told = dataclasses.asdict(found)
    for one in told["counterfactuals"]:
        one.pop("row")
    rows = told.pop("rows")
    rows.pop("row")
    columns = [value.tolist() for value in rows.values() if value is not None]
    return told, sorted(zip(*columns, strict=True))


@settings(deadline=None, max_examples=15)
@given(order=st.permutations(range(7)))
def test_the_order_of_rows_changes_nothing(order: list[int]) -> None:
    assert _figures(read(attacked(order))) == _figures(read())


@pytest.mark.parametrize("factor", [0.25, 8.0])
def test_another_currency_scales_the_money_and_nothing_else(factor: float) -> None:
    one = read()
    other = read(stake=f"{factor} * amount", factor=factor, most_cost=50 * factor)
    assert one.money is not None
    assert other.money is not None
    for name in ("at_stake", "caught", "passed", "passed_changed", "cost", "profit"):
        assert getattr(other.money, name) == pytest.approx(factor * getattr(one.money, name))
    assert other.money.paying == one.money.paying
    for then, now in zip(one.by_cost, other.by_cost, strict=True):
        assert now.limit == pytest.approx(factor * then.limit)
        assert now.fooling_rate == then.fooling_rate
        assert now.money_rate is not None
        assert then.money_rate is not None
        assert dataclasses.astuple(now.money_rate) == pytest.approx(
            dataclasses.astuple(then.money_rate)
        )
    assert [c.row for c in other.counterfactuals] == [c.row for c in one.counterfactuals]


def test_without_a_stake_there_are_counts_and_costs_only() -> None:
    found = read(stake=None)
    assert found.money is None
    assert found.rows.stake_before is None
    assert found.rows.profit is None
    assert all(point.money_rate is None and point.passed is None for point in found.by_cost)
    told = paragraph(found)
    assert "With up to 50 EUR a row, an attacker gets 5 of the 6 rows through" in told
    assert "money" not in told
    assert "pays" not in told


def test_without_costs_there_is_no_cost_profit_or_budget() -> None:
    found = read(priced=False, most_cost=None, most_changed=2)
    assert found.money is not None
    assert (found.cost, found.money.cost, found.money.profit, found.money.paying) == (None,) * 4
    assert found.by_cost == ()
    assert len(found.by_changed) == 3
    assert {step.cost for one in found.counterfactuals for step in one.steps} == {None}
    told = paragraph(found)
    assert told.startswith("With up to 2 changed features a row, an attacker gets 5 of the 6 rows")
    assert "pays" not in told
    assert "It takes 2 changed features in a typical row." in told


def test_where_nobody_is_fooled_the_words_say_so() -> None:
    found = read(attacked(fooled=np.zeros(7, bool)))
    assert found.money is not None
    assert (found.money.passed, found.money.profit, found.counterfactuals) == (0, 0, ())
    assert found.money.rate.value == 0
    assert found.money.rate.high > 0.3
    assert (found.cost, found.changed, found.by_cost, found.by_changed) == (None, None, (), ())
    assert paragraph(found) == (
        "With up to 50 EUR a row, the attacks tried here got none of the 6 rows through that the "
        "model gets right, with 520 EUR at stake."
    )


def test_where_nothing_is_right_there_is_no_share() -> None:
    nobody = np.zeros(7, bool)
    found = read(attacked(fooled=nobody, correct=nobody))
    assert found.money is not None
    assert found.money.rate.n == 0
    assert "no row right" in paragraph(found)


@pytest.mark.parametrize(
    ("stake", "unknown"),
    [("amount - 35", 4), ("log(amount - 20)", 4), ("1 / (amount - 20)", 4)],
)
def test_a_stake_that_is_no_sum_of_money_is_counted_and_left_out(stake: str, unknown: int) -> None:
    found = read(stake=stake)
    assert found.money is not None
    assert found.money.unknown == unknown
    assert np.isfinite(found.money.at_stake)
    assert np.isfinite(found.money.passed_changed)
    assert f"{unknown} rows with a stake that is no number of at least 0" in paragraph(found)
    jsonable = json.dumps(dataclasses.asdict(found)["money"], allow_nan=False)
    assert "NaN" not in jsonable


def test_the_paragraph_says_what_an_analyst_needs() -> None:
    assert paragraph(read()) == (
        "With up to 50 EUR a row, an attacker gets 5 of the 6 rows through that the model gets "
        "right without an attack, and with them 220 EUR of the 520 EUR at stake in those: 42.3 % "
        "of the money (95 % interval 8.4 to 85.4, rows taken as independent). It takes 2 changed "
        "features and 5 EUR in a typical row, 40 EUR in the dearest. What gives way, by the share "
        "of these rows in which it changed: amount (60 %), country (40 %), age (20 %), and 2 more. "
        "As they were handed in, after the changes, those rows are worth 148 EUR. It pays for 5 of "
        "them, which bring 131 EUR more than they cost. This is the least: a better search gets "
        "more through, or for less."
    )


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (wilson(0, 5), "0 %"),
        (wilson(1, 100000), "0.001 %"),
        (wilson(1, 8), "12.5 %"),
        (wilson(99999, 100000), "99.9 %"),
        (wilson(5, 5), "100 %"),
    ],
)
def test_rounding_makes_no_share_nothing_or_all(found: Any, told: str) -> None:
    assert business.share(found) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0"),
        (3, "3"),
        (3.5, "3.50"),
        (999.99, "999.99"),
        (12345.6, "12,346"),
        (0.0004, "0.0004"),
    ],
)
def test_sums_are_written_as_people_do(value: float, told: str) -> None:
    assert business.amount(value, "EUR") == f"{told} EUR"
    assert business.amount(value, "") == told


def test_bars_show_what_gave_way_and_what_did_alone() -> None:
    drawn = business.bars(read().features)
    assert drawn is not None
    amount = drawn.bars[0]
    assert (amount.label, amount.told) == ("amount", "60 %")
    assert amount.alone == pytest.approx(amount.width / 3, abs=0.1)
    assert all(drawn.left + bar.width < drawn.width for bar in drawn.bars)
    assert business.bars(read(attacked(fooled=np.zeros(7, bool))).features) is None


def test_equal_weights_have_wilson_s_interval() -> None:
    for hits in (0, 1, 7, 20):
        found = weighted_share(np.full(20, 3.5), np.arange(20) < hits)
        wanted = wilson(hits, 20)
        # The variance of a share that is estimated too is larger by n / (n - 1).
        slack = 1e-12 if hits in (0, 20) else 0.01
        assert found.value == pytest.approx(wanted.value)
        assert found.low == pytest.approx(wanted.low, abs=slack)
        assert found.high == pytest.approx(wanted.high, abs=slack)


def test_the_interval_has_the_variance_of_the_ratio() -> None:
    # Share 3/7; its variance is 5/4 * (9 * 16 + 4 * 9) / 7**4, that of 12 * 49 / 225 even rows.
    found = weighted_share(np.array([3, 1, 1, 1, 1]), np.array([1, 0, 0, 0, 0]))
    share, z = 3 / 7, 1.959963984540054
    z_n = z * z / (12 * 49 / 225)
    ends = np.sort(np.roots([1 + z_n, -2 * share - z_n, share * share]))
    assert [found.low, found.high] == pytest.approx(ends.tolist())


def test_one_large_sum_makes_the_interval_wide() -> None:
    even = weighted_share(np.ones(100), np.arange(100) < 50)
    odd = weighted_share(np.array([1000.0] + [1.0] * 99), np.arange(100) < 50)
    assert odd.value > 0.9
    assert odd.low < 0.5
    assert even.high - even.low < 0.2
    huge = weighted_share(np.array([1e300, 1e300]), np.array([1, 0]))
    assert huge.value == 0.5
    assert weighted_share(np.zeros(3), np.ones(3)).n == 0


@pytest.mark.slow
@pytest.mark.parametrize("slope", [-1, 0, 1])
@pytest.mark.parametrize("n", [30, 300])
def test_the_interval_covers_the_share_that_money_has(slope: int, n: int) -> None:
    rng = np.random.default_rng(0)

    def drawn(count: int) -> tuple[Any, Any]:
        weights = np.exp(rng.normal(0, 1, count))
        return weights, rng.random(count) < 1 / (1 + weights ** -float(slope))

    weights, hits = drawn(2_000_000)
    truth = weights[hits].sum() / weights.sum()
    found = [weighted_share(*drawn(n)) for _ in range(1000)]
    assert np.mean([one.low <= truth <= one.high for one in found]) > 0.93


def customers(
    rng: np.random.Generator, count: int, slope: float, alike: float
) -> tuple[Any, Any, Any]:
    """Weights, hits and whose each is: a customer's rows are alike in both."""
    who = np.repeat(np.arange(count), rng.geometric(0.3, count))
    own, luck = rng.normal(0, 0.5, count), rng.normal(0, alike, count)
    weights = np.exp(own[who] + rng.normal(0, 0.5, len(who)))
    return weights, rng.random(len(who)) < 1 / (1 + np.exp(1 - luck[who]) * weights**-slope), who


def coverage(slope: float, alike: float, count: int, draws: int) -> tuple[float, float]:
    """How often the interval holds the truth: over customers, and over rows."""
    rng = np.random.default_rng(0)
    weights, hits, _ = customers(rng, 200_000, slope, alike)
    truth = weights[hits].sum() / weights.sum()
    held = np.zeros(2)
    for _ in range(draws):
        *drawn, who = customers(rng, count, slope, alike)
        both = weighted_share(*drawn, groups=who), weighted_share(*drawn)
        held += [one.low <= truth <= one.high for one in both]
    return float(held[0] / draws), float(held[1] / draws)


def test_over_customers_the_interval_covers_what_it_says_and_over_rows_it_does_not() -> None:
    over, rows = coverage(0.5, 2.0, 100, 600)
    assert 0.93 <= over <= 0.97
    assert rows < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("slope", [-0.5, 0, 0.5])
@pytest.mark.parametrize(("alike", "count"), [(1.0, 60), (2.0, 200), (3.0, 100)])
def test_the_interval_over_customers_covers_it_however_alike_their_rows_are(
    slope: float, alike: float, count: int
) -> None:
    assert 0.93 <= coverage(slope, alike, count, 3000)[0] <= 0.97


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_neither_order_nor_names_change_an_interval_over_customers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights, hits, who = customers(rng, 30, 0.5, 3.0)
    found = weighted_share(weights, hits, groups=who)
    order = rng.permutation(len(who))
    assert weighted_share(weights[order], hits[order], groups=who[order]) == found
    named = np.array([f"{one:03d}" for one in who])
    assert weighted_share(weights, hits, groups=named) == found


def test_the_interval_over_customers_is_that_of_their_sums() -> None:
    # Customers with 4, 2, 2 and 2 rows, all of the first hit: off by 2.4, -0.8, -0.8 and -0.8.
    who = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3, 3])
    found = weighted_share(np.ones(10), who == 0, groups=who)
    variance = 4 / 3 * (2.4**2 + 3 * 0.8**2) / 100
    student = 3.504604  # at 0.975, of 10**2 / (16 + 3 * 4) - 1 degrees of freedom
    z_n = student**2 * variance / (0.4 * 0.6)
    ends = np.sort(np.roots([1 + z_n, -2 * 0.4 - z_n, 0.16]))
    assert (found.value, found.n) == (pytest.approx(0.4), 10)
    assert [found.low, found.high] == pytest.approx(ends.tolist())
    # Each row twice tells no more, and would if they were independent.
    who = np.repeat(who, 2)
    twice = weighted_share(np.ones(20), who == 0, groups=who)
    assert [twice.low, twice.high] == pytest.approx(ends.tolist())
    apart = weighted_share(np.ones(20), who == 0)
    assert apart.high - apart.low < 0.7 * (found.high - found.low)


def test_rows_of_one_customer_tell_of_no_other() -> None:
    one = weighted_share(np.ones(50), np.arange(50) < 20, groups=np.zeros(50))
    assert one.low < 0.01
    assert one.high > 0.99
    none = weighted_share(np.ones(50), np.zeros(50), groups=np.repeat([0, 1], 25))
    assert (none.value, none.low) == (0, 0)
    assert none.high > 0.9
    # As many hits of each: what varies by chance is still within their rows.
    even = weighted_share(np.ones(40), np.arange(40) % 2, groups=np.repeat(np.arange(10), 4))
    assert even.high - even.low >= wilson(20, 40).high - wilson(20, 40).low


def test_money_is_read_over_customers_where_the_data_tell_them() -> None:
    who = np.array([7, 7, 7, 1, 1, 2, 3])
    found = read(attacked(groups=who))
    money, caught = found.money, np.arange(7) != WRONG
    assert money is not None
    assert money.groups == 3
    stakes = np.array([100, 50, 10, 20, 300, 40])
    fooled = np.isin(np.arange(7), FOOLED)[caught]
    assert money.rate == weighted_share(stakes, fooled, groups=who[caught])
    assert money.paying == weighted_share(np.ones(6), fooled, groups=who[caught])
    assert money.rate.high - money.rate.low > 1.2 * (0.854 - 0.084)
    assert found.by_cost[-1].money_rate == money.rate
    assert found.by_cost[-1].fooling_rate == wilson(5, 6)
    assert "over 3 groups of rows)" in paragraph(found)
    assert _figures(read(attacked(range(6, -1, -1), groups=who[::-1]))) == _figures(found)


def _answer(rows: Any) -> Any:
    """Fraud where an amount is high for its country, or an account is young."""
    margin = rows[:, 0] / 50 + (rows[:, 4] == 2) - rows[:, 3] / 500 - 1
    return np.stack([-margin, margin], 1)


MODEL = FunctionModel(_answer, domain=(-1, 30000))


def evaluated(
    *, hostile: bool = False, priced: bool = True, stake: str | None = "amount"
) -> Report:
    rng = np.random.default_rng(0)
    n = 30
    amount = np.round(rng.uniform(60, 200, n), 2).astype(np.float32)
    usual, ios = np.full(n, 10.0), rng.integers(0, 2, n)
    columns = (
        amount, usual, amount / usual, rng.integers(0, 500, n), rng.integers(0, 3, n),
        rng.integers(19000, 20000, n), ios, 1 - ios,
    )  # fmt: skip
    x = np.stack(columns, 1).astype(np.float32)
    can = capability(priced=priced, most_cost=60 if priced else None)
    if hostile:
        named = [
            dataclasses.replace(one, name=f"{one.name}={HOSTILE}")
            if one.name == "age"
            else dataclasses.replace(one, labels=('=cmd|"/C calc"!A0', HOSTILE, "\x1b[31m'a\r\nb"))
            if one.name == "country"
            else one
            for one in can.features
        ]
        can = dataclasses.replace(can, features=tuple(named))
    table = Table(capability=can, stake=stake, currency=f"{HOSTILE}" if hostile else "EUR")
    y = _answer(x).argmax(1)
    data = from_arrays(x, y, classes=["legit", "fraud"], groups=np.arange(n) // 3, table=table)
    return evaluate(MODEL, data, Threat(region=can, access="scores"), preset="smoke")


@pytest.fixture(scope="module")
def report() -> Report:
    return evaluated()


@pytest.fixture(scope="module")
def hostile() -> Report:
    return evaluated(hostile=True)


def test_an_evaluation_of_a_table_has_its_reading(report: Report) -> None:
    found = report.business
    assert found is not None
    assert found.fooled == sum(status == "fooled" for status in report.samples.status) > 8
    assert report.fooling_rate == wilson(found.fooled, found.caught)
    assert found.by_cost[-1].robust_accuracy == report.robust_accuracy
    assert found.classes == 2
    assert "rows of 2 classes" in paragraph(found)
    assert report.perceptibility == ()
    one = found.counterfactuals[0]
    row = np.array([report.x[one.row], report.x_adv[one.row]])
    shares = np.exp(_answer(row)) / np.exp(_answer(row)).sum(1, keepdims=True)
    label = report.samples.label[one.row]
    assert one.confidence_before == pytest.approx(shares[0, label], abs=1e-6)
    assert one.confidence_after == pytest.approx(shares[1, label], abs=1e-6)
    assert one.label == ["legit", "fraud"][label]
    assert one.answer_after != one.label
    assert found.money is not None
    assert found.money.groups == 10


def test_the_json_fits_its_schema(report: Report) -> None:
    schema = jsonschema.Draft202012Validator(report_schema())
    content = json.loads(report.to_json())
    schema.validate(content)
    assert content["business"]["money"]["rate"]["n"] == report.fooling_rate.n
    del content["business"]["fooled"]
    assert not schema.is_valid(content)


def test_a_table_without_money_and_costs_has_a_whole_report_too() -> None:
    found = evaluated(priced=False, stake=None)
    content = json.loads(found.to_json())
    jsonschema.Draft202012Validator(report_schema()).validate(content)
    assert content["business"]["money"] is None
    assert content["business"]["cost"] is None
    html = page({"": found})
    assert "Rows that get through" in html
    assert "Money through" not in html
    file = io.StringIO()
    show(found, Console(width=80, file=file))
    assert "cost to the attacker" not in file.getvalue()


def test_a_capability_without_a_table_is_read_in_counts(report: Report) -> None:
    can = capability(most_changed=3)
    data = from_arrays(report.x, report.samples.label)
    found = evaluate(MODEL, data, Threat(region=can, access="scores"), preset="smoke").business
    assert found is not None
    assert (found.money, found.currency, found.most_changed) == (None, "", 3)


def test_the_words_are_a_table_s_and_no_picture_s(report: Report) -> None:
    console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
    show(report, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    text = " ".join(text.split())
    for line in ("cost to the attacker", "features changed", "gives way", "EUR at stake"):
        assert line in text
    for line in ("Linf", "L2", "nearest mistake", "L0 <="):
        assert line not in text
    assert headline({"": report}).startswith(
        "An attacker who sees the model's scores and may change 5 of 7 features for up to 60 EUR "
        "a row while 1 relation holds fools at least"
    )


def test_a_norm_beside_the_table_is_said_too(report: Report) -> None:
    both = Threat(region=Linf(0.5) & capability(most_cost=60), access="scores").describe()
    told = headline({"": dataclasses.replace(report, threat={**report.threat, **both})})
    assert "may change every feature by up to 0.5, and change 5 of 7 features" in told
    few = Threat(region=L0(2) & capability(most_cost=60), access="scores").describe()
    told = headline({"": dataclasses.replace(report, threat={**report.threat, **few})})
    assert "may change up to 2 features of an input, and change 5 of 7 features" in told


@pytest.mark.parametrize("names", [("",), ("standard", "hardened model")])
def test_the_page_shows_rows_and_curves_to_everybody(
    names: tuple[str, ...], report: Report
) -> None:
    html = page(dict.fromkeys(names, report))
    outline = _Outline()
    outline.feed(html)
    assert not outline.open
    assert outline.found["svg"] - html.count("aria-hidden") == 2 * len(names)
    assert html.count('id="bars-') == len({*_ids(html, "bars-")}) == len(names)
    for words in ("Rows that get through", "The features that give way", "What smaller budgets"):
        assert html.count(words) == len(names)
    assert "Nearest mistake" not in html
    assert report.business is not None
    for row, changed in zip(report.business.rows.row, report.business.rows.changed, strict=True):
        line = next(
            one
            for one in html.splitlines()
            if f'<th scope="row" class="n">{row}</th>' in one and "<td>fooled</td>" in one
        )
        assert f'<td class="n">{changed}</td>' in line
    assert "Inputs that fool the model" not in html


def _ids(html: str, prefix: str) -> list[str]:
    return [part.split('"')[0] for part in html.split(f'id="{prefix}')[1:]]


def test_hostile_names_neither_break_the_page_nor_steer_the_terminal(hostile: Report) -> None:
    html = page({"": hostile})
    assert HOSTILE not in html
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "\x1b" not in html
    outline = _Outline()
    outline.feed(html)
    assert not outline.open
    file = io.StringIO()
    show(hostile, Console(width=80, file=file))
    assert "\x1b" not in file.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to look at the page with")
def test_a_browser_shows_the_hostile_page_and_runs_nothing(hostile: Report, tmp_path: Path) -> None:
    hostile.save(tmp_path)

    async def main() -> None:
        async with browsing() as browser:
            html = await browser.go((tmp_path / "report.html").as_uri())
            assert "Rows that get through" in html
            assert not browser.dialogs
            assert not browser.complaints
            for width in (360, 1280):
                await browser.picture(width)
                # Long names wrap or scroll in their own table; the page itself does not.
                over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                assert await browser.evaluate(over) <= 0

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["report", "hostile"])
def test_the_sheet_reads_back_to_identical_rows(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found: Report = request.getfixturevalue(kind)
    files = found.save(tmp_path)
    assert files[-1].name == "adversarial.csv"
    assert found.table is not None
    assert found.business is not None
    fooled = found.business.rows.row
    assert np.array_equal(read_sheet(files[-1], found.table), found.x_adv[fooled])
    with open(files[-1], encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    assert head[:8] == [
        *("row", "changed", "cost", "stake_before", "stake_after"),
        *("label", "answer_before", "answer_after"),
    ]
    assert [int(line[0]) for line in lines] == fooled.tolist()
    names, samples = np.array(["legit", "fraud"]), found.samples
    for place, values in (
        (5, samples.label),
        (6, samples.clean_answer),
        (7, samples.adversarial_answer),
    ):
        assert [line[place] for line in lines] == names[values[fooled]].tolist()
    assert [float(line[2]) for line in lines] == pytest.approx(found.business.rows.cost, rel=1e-5)
    for cell in [*head, *(cell for line in lines for cell in line)]:
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_no_text_of_a_sheet_is_a_formula_and_none_is_lost() -> None:
    texts = ("=1+1", "+1", "-1", "@sum(a1)", "\ta", "\r", "'quoted", "''", "\uff1d1", "a;=1", 'a"b')
    codes = tuple(float(code) for code in range(len(texts)))
    can = Capability(
        features=(
            Feature(name="=kind", values=codes, labels=texts),
            Feature(name="row", lower=-9, upper=9),
        )
    )
    table = Table(capability=can)
    rows = np.stack([np.array(codes), np.linspace(-1, 1, len(codes))], 1).astype(np.float32)
    text = sheet({"row": range(len(codes))}, table.decode(rows))
    head, *lines = csv.reader(io.StringIO(text, newline=""))
    assert head == ["row_", "'=kind", "row"]
    for _, kind, number in lines:
        assert not kind.startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d"))
        float(number)
    # Where a spreadsheet splits at semicolons, only what is in quotes stays together.
    assert '"a;=1"' in text
    path = Path(__file__).with_name("never-there.csv")
    with pytest.raises(WithstandError, match=r"give an adversarial\.csv"):
        read_sheet(path, table)


def test_a_sheet_of_texts_reads_back(tmp_path: Path) -> None:
    texts = ("=1+1", "-1", "'", "''a", "a,b", 'a"b', "a\nb", "a\r\nb", "NA", "01", "1.0", "True")
    codes = tuple(float(code) for code in range(len(texts)))
    can = Capability(features=(Feature(name="-", values=codes, labels=texts),))
    table = Table(capability=can)
    rows = np.array(codes, np.float32)[:, None]
    (tmp_path / "a.csv").write_bytes(sheet({}, table.decode(rows)).encode())
    assert np.array_equal(read_sheet(tmp_path / "a.csv", table), rows)


def test_a_sheet_that_is_broken_is_refused(tmp_path: Path) -> None:
    table = Table(capability=capability())
    for content, why in (
        ("", "cannot be read"),
        ("a,b\n1\n", "other lengths"),
        ("a,b\n1,2\n", "column 'amount' of the table is missing"),
    ):
        (tmp_path / "a.csv").write_text(content)
        with pytest.raises(WithstandError, match=why):
            read_sheet(tmp_path / "a.csv", table)


def test_a_report_that_is_read_again_says_the_same(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path)
    again = load_report(tmp_path)
    assert again.to_dict()["business"] == report.to_dict()["business"]
    assert again.business is not None
    assert report.business is not None
    assert paragraph(again.business) == paragraph(report.business)
    before = (tmp_path / "adversarial.csv").read_bytes()
    again.save(tmp_path)
    assert (tmp_path / "adversarial.csv").read_bytes() == before


def test_a_report_from_before_groups_were_told_is_read(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())
    del told["business"]["money"]["groups"]
    (tmp_path / "report.json").write_text(json.dumps(told))
    found = load_report(tmp_path).business
    assert found is not None
    assert found.money is not None
    assert found.money.groups is None


def test_the_public_names_are_sorted_and_there() -> None:
    names = business.__all__
    assert sorted(names, key=lambda name: (name[0].islower(), name)) == names
    assert all(hasattr(business, name) for name in names)
