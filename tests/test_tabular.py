"""What attackers of tables can do: the language of relations, and the rows that they can reach."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from withstand import WithstandError
from withstand.threat.tabular import (
    Capability,
    Derived,
    Feature,
    OneHot,
    Relation,
    affine,
    excess,
    holds,
    on_grid,
    read_truth,
    read_value,
    span,
    value,
    verdict_of,
)

NAMES = ["a", "b", "c"]
PYTHON = {
    "min": min, "max": max, "abs": abs, "log": math.log, "exp": math.exp, "sqrt": math.sqrt,
    "floor": math.floor, "ceil": math.ceil, "round": round, "sum": lambda *all: math.fsum(all),
    "where": lambda condition, then, other: then if condition else other,
}  # fmt: skip

numbers = st.sampled_from(["0", "1", "2", "0.5", "3", "10"])
leaves = st.one_of(st.sampled_from(NAMES), numbers)


def deeper(inner: Any) -> Any:
    pair = st.tuples(inner, inner)
    return st.one_of(
        st.tuples(st.sampled_from(["+", "-", "*", "/"]), pair).map(
            lambda told: f"({told[1][0]} {told[0]} {told[1][1]})"
        ),
        st.tuples(st.sampled_from(["abs", "sqrt", "log", "floor", "ceil", "exp"]), inner).map(
            lambda told: f"{told[0]}({told[1]})"
        ),
        st.tuples(st.sampled_from(["min", "max"]), pair).map(
            lambda told: f"{told[0]}({told[1][0]}, {told[1][1]})"
        ),
        st.tuples(inner, st.sampled_from(["2", "3"])).map(lambda told: f"({told[0]} ** {told[1]})"),
        st.tuples(inner, pair).map(
            lambda told: f"where({told[0]} > 1, {told[1][0]}, {told[1][1]})"
        ),
    )


texts = st.recursive(leaves, deeper, max_leaves=8)
truths = st.recursive(
    st.tuples(texts, st.sampled_from(["<=", "<", ">", ">=", "==", "!="]), texts).map(" ".join),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda told: f"(({told[0]}) {told[1]} ({told[2]}))"
        ),
        inner.map(lambda told: f"not ({told})"),
    ),
    max_leaves=3,
)
floats = st.floats(-20, 20, allow_nan=False).map(lambda one: round(one, 2))


def at(row: dict[str, float]) -> Any:
    return lambda name: np.float64(row[name])


@settings(max_examples=150, deadline=None)
@given(texts, st.fixed_dictionaries(dict.fromkeys(NAMES, floats)))
def test_a_value_is_what_python_makes_of_it(text: str, row: dict[str, float]) -> None:
    found = float(value(read_value(text, NAMES), at(row)))
    try:
        wanted = float(eval(text, {"__builtins__": {}, **PYTHON, **row}))
    except (ArithmeticError, ValueError):
        # Python stops where numpy has no value, or an infinite one on the way to a finite one.
        return
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(truths, st.fixed_dictionaries(dict.fromkeys(NAMES, floats)))
def test_a_rule_holds_where_python_says_so_and_then_lacks_nothing(
    text: str, row: dict[str, float]
) -> None:
    tree = read_truth(text, NAMES)
    found, lack = bool(holds(tree, at(row))), float(excess(tree, at(row)))
    assert (lack == 0) == found
    assert lack >= 0
    try:
        wanted = bool(eval(text, {"__builtins__": {}, **PYTHON, **row}))
    except (ArithmeticError, ValueError):
        return
    assert found == wanted


@settings(max_examples=150, deadline=None)
@given(truths, texts, st.lists(st.tuples(floats, floats), min_size=3, max_size=3), st.integers(0))
def test_bounds_over_a_box_hold_for_every_point_in_it(
    rule: str, text: str, ends: list[tuple[float, float]], seed: int
) -> None:
    box = {name: sorted(pair) for name, pair in zip(NAMES, ends, strict=True)}
    tree, truth = read_value(text, NAMES), read_truth(rule, NAMES)
    with np.errstate(all="ignore"):
        found = span(tree, lambda name: tuple(np.float64(end) for end in box[name]))
        verdict = verdict_of(truth, lambda name: tuple(np.float64(end) for end in box[name]))
    draw = random.Random(seed)
    for _ in range(20):
        row = {name: draw.choice([*pair, draw.uniform(*pair)]) for name, pair in box.items()}
        point = float(value(tree, at(row)))
        if found.sure:
            assert math.isfinite(point)
        if math.isfinite(point):
            assert found.low <= point <= found.high
        point_holds = bool(holds(truth, at(row)))
        assert point_holds or not verdict.must
        assert verdict.may or not point_holds


@pytest.mark.parametrize(
    ("text", "factors", "constant"),
    [
        ("2 * (a - b) / 4 + 1", {"a": 0.5, "b": -0.5}, 1.0),
        ("sum(a, b, c) - (a + 3)", {"a": 0.0, "b": 1.0, "c": 1.0}, -3.0),
        ("-a * 3", {"a": -3.0}, 0.0),
    ],
)
def test_what_is_linear_has_factors(text: str, factors: dict[str, float], constant: float) -> None:
    assert affine(read_value(text, NAMES)) == (factors, constant)


@pytest.mark.parametrize("text", ["a * b", "1 / a", "abs(a)", "a / 0", "a ** 2", "min(a, b)"])
def test_what_is_not_linear_is_told(text: str) -> None:
    assert affine(read_value(text, NAMES)) is None


def test_a_loan_is_repaid_by_its_annuity() -> None:
    columns = ["installment", "loan", "rate", "term"]
    rule = Relation.read(
        "installment == loan * r * (1 + r) ** n / ((1 + r) ** n - 1) ~ 0.01 "
        "where r = rate / 1200, n = term",
        columns,
    )
    index = {name: place for place, name in enumerate(columns)}
    r = 12 / 1200
    exact = 1000 * r * (1 + r) ** 36 / ((1 + r) ** 36 - 1)
    rows = np.array(
        [[exact, 1000, 12, 36], [exact + 0.009, 1000, 12, 36], [exact + 0.011, 1000, 12, 36]]
    )
    assert rule.holds(rows, index).tolist() == [True, True, False]
    assert rule.excess(rows, index)[2] == pytest.approx(0.001, rel=1e-3)


def test_the_language_has_implications_stars_dates_shares_and_quotes() -> None:
    columns = ["paid_1", "paid_2", "billed", "n slash", "opened", "if"]
    index = {name: place for place, name in enumerate(columns)}
    row = np.array([[3.0, 4.0, 7.0, 2.0, 17_723.0, 1.0]])

    def so(text: str) -> bool:
        return bool(Relation.read(text, columns).holds(row, index)[0])

    assert so("sum(paid_*) <= billed")
    assert not so("sum(paid_*) < billed")
    assert so("max(paid_*) == 4")
    assert so("`n slash` > 0 -> billed >= 1")
    assert not so("`n slash` > 0 -> billed >= 1 -> billed < 1")
    assert so("`n slash` > 5 -> billed < 0")
    assert so("date(opened) == date('2018-07-11')")
    assert so("paid_1 * 2.01 == 6 ~ 1 %")
    assert not so("paid_1 * 2.03 == 6 ~ 1%")
    assert so("(paid_1 * 2.01 == 6 ~ 1 % or billed < 0) and billed - 0.5 == 7 ~ 0.5")
    assert so("1 < paid_1 < paid_2 < 7")
    assert not so("1 / (billed - 7) > 0 or 1 / (billed - 7) <= 0")
    assert so("`if` == 1")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a <= d", "'d' is no feature"),
        ("ab <= 1", "'ab' is no feature"),
        ("a + b", "no comparison"),
        ("a <=", "invalid syntax"),
        ("__import__('os').system('true') == 1", "not known"),
        ("a.real <= 1", "not known"),
        ("(lambda: 1)() <= 1", "not known"),
        ("[a][0] <= 1", "not known"),
        ("a <= 'x'", "not known"),
        ("a <= True", "not known"),
        ("eval(a) <= 1", r"eval\(\) with 1 values is not known"),
        ("max(*a) <= 1", "not known"),
        ("log(a, base=2) <= 1", "not known"),
        ("a is b", "compare with"),
        ("a <= 1e999", "too large"),
        ("a <= b ~ 0.1", "~ is for =="),
        ("a == 1 ~ b", "invalid syntax"),
        ("a == b | 2", "not known"),
        ("sum(z_*) <= 1", "no column begins with 'z_'"),
        ("a <= date('yesterday')", "is no date"),
        ("a <= r where r", "names nothing"),
        ("a <= " + "-" * 200 + "b", "deeper than"),
        ("a <= " + "1 + " * 6000 + "b", "split it"),
        ("a <= z where " + ", ".join(f"{x} = {y} + {y} + {y} + {y}" for x, y in
                                     zip("tuvwxyz", "atuvwxy", strict=True)), "split it"),
        ("a <= z where " + ", ".join(f"{x} = {'-' * 30}{y}" for x, y in
                                     zip("tuvwxyz", "atuvwxy", strict=True)), "deeper than"),
    ],
)  # fmt: skip
def test_what_is_no_rule_is_told_and_never_run(text: str, says: str) -> None:
    with pytest.raises(WithstandError, match=says) as error:
        Relation.read(text, NAMES)
    assert "\n" not in str(error.value)


AMOUNT = Feature(name="amount", lower=0.5, upper=1000, step=0.01, share=0.8, cost=0.1)
AGE = Feature(name="age", change="increase", integer=True, most=30, fixed=2.0)
COUNTRY = Feature(name="country", values=(0, 1, 2), allow={0: (1,)})
HELD = Feature(name="held", change="none")
RATIO = Feature(name="ratio")
CHOICES = [Feature(name=name) for name in ("ios", "android")]


def capability(**told: Any) -> Capability:
    features = (AMOUNT, AGE, COUNTRY, HELD, RATIO, *CHOICES)
    names = [one.name for one in features]
    return Capability(
        **{
            "features": features,
            "choices": (OneHot(columns=("ios", "android"), cost=5.0),),
            "derived": (Derived.read("ratio", "amount / max(age, 1)", names),),
            "relations": (Relation.read("amount <= 50 or age >= 10", names),),
            **told,
        }
    )


X = np.array([[100.0, 20.0, 0.0, 7.0, 5.0, 1.0, 0.0]])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({0: 50.0, 4: 2.5}, None),
        ({0: 50.0}, "ratio == amount"),
        ({0: 50.005, 4: 2.50025}, "no multiple of 0.01"),
        ({0: 19.0, 4: 0.95}, "changes by too much"),
        ({0: 0.2, 4: 0.01}, "leaves its range"),
        ({1: 21.0, 4: 100 / 21}, None),
        ({1: 21.5, 4: 100 / 21.5}, "no whole number"),
        ({1: 19.0, 4: 100 / 19}, "only to increase"),
        ({1: 51.0, 4: 100 / 51}, "changes by too much"),
        ({2: 1.0}, None),
        ({2: 2.0}, "cannot become that from 0"),
        ({2: 3.0}, "none of its values"),
        ({3: 7.0000001}, "not to be changed"),
        ({5: 0.0, 6: 1.0}, None),
        ({6: 1.0}, "no choice"),
        ({5: 0.5, 6: 0.5}, "no choice"),
        ({0: np.nan}, "not a number"),
    ],
)
def test_each_rule_is_kept(change: dict[int, float], why: str | None) -> None:
    after = X.copy()
    for place, found in change.items():
        after[0, place] = found
    asked = capability()
    broken = [told for told, rows in asked.broken(X, after) if rows[0]]
    assert asked.contains(X, after).tolist() == [why is None]
    assert (why is None and not broken) or any(why in told for told in broken)  # type: ignore[operator]


def test_costs_and_counts_are_those_of_what_was_changed() -> None:
    asked = capability()
    after = np.array([[90.0, 22.0, 1.0, 7.0, 90 / 22, 0.0, 1.0]])
    assert asked.changed(X, after).tolist() == [4]
    assert asked.cost(X, after) == pytest.approx([10 * 0.1 + 2.0 + 5.0])
    assert asked.contains(X, after).all()
    assert capability(most_changed=4, most_cost=8.0).contains(X, after).all()
    assert not capability(most_changed=3).contains(X, after).any()
    assert not capability(most_cost=7.99).contains(X, after).any()


def test_the_box_is_what_each_feature_can_become() -> None:
    low, high = capability().box(X)
    assert low[0].tolist() == pytest.approx([20, 20, 0, 7, -np.inf, -np.inf, -np.inf])
    assert high[0].tolist() == pytest.approx([180, 50, 2, 7, np.inf, np.inf, np.inf])


def test_what_is_derived_is_computed_in_its_order() -> None:
    names = ["a", "b", "c"]
    features = tuple(Feature(name=name) for name in names)
    chain = (Derived.read("c", "b + 1", names), Derived.read("b", "a * 2", names))
    found = Capability(features=features, derived=chain).derive([[3.0, 0.0, 0.0]])
    assert found.tolist() == [[3.0, 6.0, 7.0]]
    circle = (Derived.read("c", "b + 1", names), Derived.read("b", "c * 2", names))
    with pytest.raises(WithstandError, match="b, c follow from each other"):
        Capability(features=features, derived=circle)


def test_a_row_that_breaks_a_rule_before_the_attack_is_named() -> None:
    rows = np.vstack([X, X, X])
    rows[1, 0], rows[1, 4] = 60.0, 3.0
    rows[2, 1], rows[2, 4] = 5.0, 20.0
    assert capability().wrong(rows) == [(2, "amount <= 50 or age >= 10")]


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"lower": 2, "upper": 1}, "swap them"),
        ({"step": 0.0}, "step 0"),
        ({"share": -1.0}, "share -1"),
        ({"cost": -1.0}, "cost -1"),
        ({"lower": math.nan}, "swap them"),
        ({"values": (1.0,), "upper": 0.5}, "no value within its range"),
        ({"allow": {1.0: (2.0,)}}, "give values"),
        ({"values": (1.0,), "allow": {1.0: (2.0,)}}, "allows 2"),
    ],
)
def test_a_feature_that_contradicts_itself_is_named(told: dict[str, Any], says: str) -> None:
    with pytest.raises(WithstandError, match=f"feature 'amount' .*{says}"):
        Feature(name="amount", **told)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"features": (AMOUNT, AMOUNT)}, "'amount' is there twice"),
        ({"choices": (OneHot(columns=("ios", "palm")),)}, "'palm' is no feature"),
        ({"choices": (OneHot(columns=("ios", "ratio")),)}, "'ratio' is derived or chosen twice"),
    ],
)
def test_a_capability_that_contradicts_itself_is_named(told: dict[str, Any], says: str) -> None:
    with pytest.raises(WithstandError, match=says):
        capability(**told)


def test_a_sum_of_a_thousand_columns_is_not_deep() -> None:
    columns = [f"paid_{n}" for n in range(1000)]
    rule = Relation.read("sum(paid_*) <= 1000", columns)
    index = {name: place for place, name in enumerate(columns)}
    assert rule.holds(np.ones((2, 1000)), index).all()
    assert not rule.holds(np.full((2, 1000), 1.01), index).any()
    assert rule.within(lambda name: (np.zeros(1), np.ones(1))).may.all()
    assert rule.within(lambda name: (np.zeros(1), np.full(1, 0.99))).must.all()
    form = affine(read_value("sum(paid_*)", columns))
    assert form == (dict.fromkeys(columns, 1.0), 0.0)


def test_multiples_are_told_in_the_precision_of_the_data() -> None:
    cents = np.arange(1, 5000) / 100
    assert on_grid(cents.astype(np.float32), 0.01).all()
    assert on_grid(cents, 0.01).all()
    assert not on_grid(cents + 0.005, 0.01).any()


def test_categories_whose_names_are_numbers_count_as_these() -> None:
    labels = {"months": ["36", "60", "84"], "code": ["007", "008"], "flag": ["0", "1"]}
    columns = ["pay", "months", "code", "flag"]
    index = {name: place for place, name in enumerate(columns)}
    rows = np.array([[2, 0, 0, 0], [2, 1, 1, 1], [2, 2, 1, 0]], np.float32)

    def value(text: str) -> list[float]:
        return [float(one) for one in Derived.read("d", text, columns, labels).value(rows, index)]

    assert value("pay * months") == [72, 120, 168]
    assert value("sum(pay, months)") == [38, 62, 86]
    assert value("flag + code") == [0, 2, 1]
    for text, expected in (
        ("months == 60", [False, True, False]),
        ("months == '60'", [False, True, False]),
        ("months > 36", [False, True, True]),
    ):
        assert Relation.read(text, columns, labels).holds(rows, index).tolist() == expected
