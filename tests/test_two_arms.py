"""Two arms side by side: exact expectations, and what a thousand rollouts come to."""

from __future__ import annotations

from itertools import product
from math import exp, factorial, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from withstand.stats import log_above, log_below, upper_bound

RUNS, ALPHA, EVERY = 1000, 0.05, 10
ENOUGH = log(1 / ALPHA)


def expected(
    evidence: object, shares: tuple[float, float, float], n: int, **margin: float
) -> float:
    """The exact mean of the evidence after n pairs: in both, the first alone, the second alone."""
    found = 0.0
    odds = (*shares, 1 - sum(shares))
    for counts in product(range(n + 1), repeat=3):
        rest = n - sum(counts)
        if rest < 0:
            continue
        every = (*counts, rest)
        ways = factorial(n) / np.prod([float(factorial(one)) for one in every])
        likely = ways * np.prod([share**one for share, one in zip(odds, every, strict=True)])
        found += float(likely) * exp(float(evidence(*every, **margin)))  # type: ignore[operator]
    return found


@pytest.mark.parametrize(
    ("shares", "margin"),
    [
        ((0.1, 0.1, 0.0), {"ratio": 2.0}),  # 0.2 and 0.1
        ((0.02, 0.18, 0.08), {"ratio": 2.0}),  # 0.2 and 0.1, mostly apart
        ((0.1, 0.06, 0.0), {"ratio": 1.5, "more": 0.01}),
        ((0.1, 0.2, 0.2), {"ratio": 1.0}),
        ((0.1, 0.2, 0.3), {"ratio": 0.0, "more": 0.3}),
    ],
)
def test_at_the_margin_the_evidence_is_one_in_the_mean(
    shares: tuple[float, float, float], margin: dict[str, float]
) -> None:
    for evidence in (log_below, log_above):
        assert expected(evidence, shares, 6, **margin) == pytest.approx(1, abs=1e-9)


def test_beyond_the_margin_the_evidence_falls_on_one_side_and_grows_on_the_other() -> None:
    worse, better = (0.1, 0.2, 0.0), (0.1, 0.0, 0.1)
    assert expected(log_below, worse, 6, ratio=2.0) < 1 < expected(log_above, worse, 6, ratio=2.0)
    assert expected(log_above, better, 6, ratio=2.0) < 1 < expected(log_below, better, 6, ratio=2.0)


def test_no_data_is_no_evidence_and_what_nobody_is_fooled_by_says_nothing_of_a_ratio() -> None:
    for evidence in (log_below, log_above):
        assert float(evidence(0, 0, 0, 0, ratio=2)) == pytest.approx(0)
        assert float(evidence(0, 0, 0, 10**6, ratio=2)) == pytest.approx(0)
    # With something added to the ratio, it does.
    assert float(log_below(0, 0, 0, 1000, ratio=2, more=0.01)) > ENOUGH
    # A limit that cannot be exceeded is none, and nothing is shown of it.
    assert float(log_below(5, 5, 5, 5, ratio=0, more=1.0)) == pytest.approx(0)


COUNT = st.integers(0, 400)


@settings(max_examples=40)
@given(COUNT, COUNT, COUNT, COUNT)
def test_at_even_terms_one_side_is_the_other_with_the_arms_exchanged(
    both: int, first: int, second: int, neither: int
) -> None:
    one = log_below(both, first, second, neither, ratio=1)
    other = log_above(both, second, first, neither, ratio=1)
    assert float(one) == pytest.approx(float(other))


@settings(max_examples=40)
@given(COUNT, COUNT, COUNT, COUNT, st.sampled_from([1.25, 2.0, 4.0]))
def test_one_more_of_the_first_alone_never_helps_it(
    both: int, first: int, second: int, neither: int, ratio: float
) -> None:
    before = log_below(both, first, second, neither, ratio=ratio)
    after = log_below(both, first + 1, second, neither, ratio=ratio)
    assert float(after) <= float(before) + 1e-9
    above = log_above(both, first + 1, second, neither, ratio=ratio)
    assert float(above) >= float(log_above(both, first, second, neither, ratio=ratio)) - 1e-9


def looks(canary: float, control: float, alike: float, n: int, seed: int) -> tuple[object, ...]:
    """Counts (RUNS, looks) of pairs; alike: share of inputs that are as hard for both models."""
    rng = np.random.default_rng(seed)
    hard = rng.random((RUNS, n), np.float32)
    other = np.where(rng.random((RUNS, n), np.float32) < alike, hard, rng.random((RUNS, n)))
    first, second = other < canary, hard < control
    both, one, two = (
        np.cumsum(each, 1, dtype=np.int32)[:, EVERY - 1 :: EVERY]
        for each in (first & second, first & ~second, second & ~first)
    )
    return both, one, two, np.arange(EVERY, n + 1, EVERY) - both - one - two


# Pairs within which nine of ten equal models are known to be no worse: independent, and paired.
@pytest.mark.parametrize(
    ("share", "alike", "within"),
    [
        pytest.param(0.05, 0, 1500, marks=pytest.mark.slow),
        (0.1, 0, 750),
        (0.3, 0, 220),
        (0.05, 1, 240),
        (0.1, 1, 120),
        (0.3, 1, 50),
    ],
)
def test_twice_as_foolable_is_let_on_within_alpha_and_an_equal_one_within_the_stated_size(
    share: float, alike: float, within: int
) -> None:
    seed = int(1000 * share + alike)
    worse = looks(2 * share, share, alike, within, seed)
    wrong = int((log_below(*worse, ratio=2) >= ENOUGH).any(1).sum())  # type: ignore[arg-type]
    bound = float(upper_bound(wrong, RUNS, 0.05))
    equal = looks(share, share, alike, within, seed + 1)
    right = int((log_below(*equal, ratio=2) >= ENOUGH).any(1).sum())  # type: ignore[arg-type]
    assert bound <= ALPHA, f"{wrong} of {RUNS} were let on"
    assert right >= 0.9 * RUNS
