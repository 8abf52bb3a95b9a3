"""Intervals against published values and by simulation."""

import math

import numpy as np
import pytest

from withstand.stats import bootstrap, clopper_pearson, wilson


def test_clopper_pearson_closed_forms_at_the_ends() -> None:
    none, every = clopper_pearson(0, 20), clopper_pearson(20, 20)
    assert none.low == 0
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert every.low == pytest.approx(0.025 ** (1 / 20))
    assert every.high == 1


def test_wilson_solves_its_own_equation() -> None:
    interval, n, z = wilson(7, 50), 50, 1.959963984540054
    for end in (interval.low, interval.high):
        assert (7 / n - end) ** 2 == pytest.approx(z * z * end * (1 - end) / n)


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
def test_no_data_is_no_number(interval: object) -> None:
    empty = interval(0, 0)  # type: ignore[operator]
    assert math.isnan(empty.value)
    assert empty.to_dict() == {"value": None, "low": None, "high": None, "n": 0}
    assert str(empty) == "no data"


def test_exact_interval_covers_as_promised() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for k in rng.binomial(40, 0.1, 2000):
        interval = clopper_pearson(int(k), 40)
        hits += interval.low <= 0.1 <= interval.high
    assert hits / 2000 >= 0.95


def test_bootstrap_is_reproducible_and_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3, 1, 400)
    interval = bootstrap(values, seed=5)
    assert interval == bootstrap(values, seed=5)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
