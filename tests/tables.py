"""A small table with every kind of rule, rows of it, and its rules once more in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np

from withstand.models import FunctionModel
from withstand.threat import Box
from withstand.threat.tabular import Capability, Derived, Feature, OneHot, Relation

NAMES = ["amount", "age", "code", "fee", "ios", "android", "ratio"]
FEATURES = (
    Feature(name="amount", lower=0.5, upper=1000, step=0.01, share=0.9, cost=0.1),
    Feature(name="age", change="increase", integer=True, lower=0, upper=90),
    Feature(name="code", values=(0, 1, 2, 5), allow={0: (1, 2), 1: (1,)}, fixed=3.0),
    Feature(name="fee", lower=0, upper=100),
    Feature(name="ios", lower=0, upper=1),
    Feature(name="android", lower=0, upper=1),
    Feature(name="ratio"),
)
RULES = (
    "amount + 2 * fee <= 900",
    "age > 40 -> fee >= 1",
    "fee == amount / 10 ~ 1 % or fee <= 50",
)


def capability(**told: Any) -> Capability:
    return Capability(
        **{
            "features": FEATURES,
            "choices": (OneHot(columns=("ios", "android"), cost=1.0),),
            "derived": (Derived.read("ratio", "amount / max(age, 1)", NAMES),),
            "relations": tuple(Relation.read(text, NAMES) for text in RULES),
            **told,
        }
    )


def rows(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Rows that the rules allow."""
    draw = np.random.default_rng(seed)
    amount = np.round(draw.uniform(1, 400, count), 2)
    age, fee = draw.integers(0, 60, count), draw.uniform(1, 50, count)
    ios = draw.integers(0, 2, count)
    code = draw.choice([0, 1, 2, 5], count)
    table = np.stack([amount, age, code, fee, ios, 1 - ios, amount], 1).astype(np.float32)
    return capability().derive(table).astype(np.float32)


def plain(before: Any, after: Any, most_changed: int | None, most_cost: float | None) -> bool:
    """The same rules once more, one row at a time and in plain Python."""
    amount, age, code, fee, ios, android, ratio = (float(one) for one in after)
    was = [float(one) for one in before]
    moved = [one != other for one, other in zip(after, before, strict=True)]
    cents = round(amount * 100)
    count = sum(moved[:4]) + (moved[4] or moved[5])
    cost = 0.1 * abs(amount - was[0]) + 3.0 * moved[2] + (moved[4] or moved[5])
    return (
        0.5 <= amount <= 1000
        and np.float32(cents / 100) == np.float32(amount)
        and abs(amount - was[0]) <= 0.9 * was[0]
        and age == int(age)
        and was[1] <= age <= 90
        and code in {0: (0, 1, 2), 1: (1,), 2: (0, 1, 2, 5), 5: (0, 1, 2, 5)}[int(was[2])]
        and 0 <= fee <= 100
        and (ios, android) in ((0, 1), (1, 0))
        and abs(ratio - amount / max(age, 1)) <= 1e-5 * max(amount / max(age, 1), 1)
        and amount + 2 * fee <= 900
        and (age <= 40 or fee >= 1)
        and (abs(fee - amount / 10) <= 0.01 * amount / 10 or fee <= 50)
        and (most_changed is None or count <= most_changed)
        and (most_cost is None or cost <= most_cost)
    )


def linear(weights: np.ndarray[Any, Any]) -> FunctionModel:
    def scores(x: Any) -> Any:
        # A product of matrices would round by the number of rows.
        margin = (x.astype(float) * weights[:-1]).sum(1) + weights[-1]
        return np.stack([np.zeros(len(x)), margin], 1)

    return FunctionModel(scores, domain=Box(-1e6, 1e6))
