"""Intervals against published values and by simulation."""

import math
import time
from statistics import NormalDist

import numpy as np
import pytest

from withstand.stats import (
    Interval,
    Survey,
    bootstrap,
    clopper_pearson,
    mcnemar,
    mean_within,
    quantile_interval,
    wilson,
)


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


def test_the_mean_of_costs_is_covered_also_where_dear_ones_are_rare() -> None:
    rng, costs = np.random.default_rng(2), np.array([0.0, 1.0, 20.0])
    for shares in ([0.9, 0.09, 0.01], [0.5, 0.2, 0.3], [0.0, 0.98, 0.02]):
        truth, hits = float(np.dot(shares, costs)), 0
        for drawn in rng.choice(costs, (1000, 150), p=shares):
            interval = mean_within(drawn, 0, 20)
            hits += interval.low <= truth <= interval.high
        assert hits >= 940, shares
    binary = rng.integers(0, 2, 80)
    share, mean = wilson(int(binary.sum()), 80), mean_within(5 + 2 * binary, 5, 7)
    for name in ("value", "low", "high"):
        assert getattr(mean, name) == pytest.approx(5 + 2 * getattr(share, name))
    assert mean_within([3.0, 3.0], 3, 3) == Interval(value=3, low=3, high=3, n=2)
    assert mean_within([], 0, 1).n == 0


def test_a_quantile_of_values_of_which_some_are_infinite() -> None:
    for finite, value, high in ((5, 5.0, math.inf), (4, math.inf, math.inf), (9, 5.0, 8.0)):
        values = [float(n) if n <= finite else math.inf for n in range(1, 10)]
        found = quantile_interval(values, 0.5)
        assert found.value == value
        assert found.high == pytest.approx(high, rel=0.1)
        assert math.isfinite(found.low)


def test_figures_in_units_say_where_they_have_no_end() -> None:
    endless = Interval(value=0.5, low=0.25, high=math.inf, n=9)
    assert endless.in_units() == "0.5 [0.25, no upper end]"
    assert mean_within([], 0, 1).in_units() == "no data"


def test_bootstrap_is_reproducible_and_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3, 1, 400)
    interval = bootstrap(values, seed=5)
    assert interval == bootstrap(values, seed=5)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_a_survey_of_many_is_not_narrower_than_its_evidence() -> None:
    """Among many samples the least evidence lies between the points of a coarse grid."""
    from scipy.special import betaln

    survey = Survey(n=200_000, standing=190_000, tried=19_000, fallen=13_000)

    def evidence(share: float) -> float:
        # 2,000 pairs of shares within 5 standard errors of the observed one.
        stands = 0.95 + np.linspace(-2.5e-3, 2.5e-3, 2001)
        falls = 1 - share / stands
        total = np.zeros(len(stands))
        for null, k, n, weight in (
            (stands, survey.standing, survey.n, survey.n / 6),
            (falls, survey.fallen, survey.tried, 1.0),
        ):
            a, b = weight * null, weight * (1 - null)
            total += betaln(a + k, b + n - k) - betaln(a, b)
            total -= k * np.log(null) + (n - k) * np.log1p(-null)
        return float(total.min())

    found = survey.interval(0.975)
    for end in (found.low, found.high):
        assert evidence(end) == pytest.approx(-math.log(0.025), abs=0.02)


def test_mcnemar_of_many_samples_takes_no_time() -> None:
    began = time.process_time()
    assert mcnemar(50_000, 49_000) == pytest.approx(NormalDist().cdf(-999 / 99_000**0.5), rel=1e-3)
    assert time.process_time() - began < 1
