"""Intervals against published values and by simulation."""

import math
import time
from statistics import NormalDist

import numpy as np
import pytest

from withstand.stats import Survey, bootstrap, clopper_pearson, mcnemar, wilson


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
