"""The minimum covariance determinant against every choice of rows there is."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.covariance import MinCovDet

from withstand._errors import DataError
from withstand.detect.methods import _fast_mcd as mcd

Array = NDArray[np.float64]


def drawn(n: int, features: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_t(3, (n, features)) * np.arange(1, features + 1)


def least(rows: Array, held: int) -> float:
    """The least determinant over all choices of rows."""
    chosen = (rows[list(some)] for some in combinations(range(len(rows)), held))
    return min(float(np.linalg.det(np.cov(part.T, bias=True).reshape(*[part.shape[1]] * 2)))
               for part in chosen)  # fmt: skip


@pytest.mark.parametrize(("features", "seed"), [(1, 0), (1, 1), (2, 0), (2, 1), (3, 2)])
def test_no_choice_of_rows_has_a_smaller_determinant(features: int, seed: int) -> None:
    rows = drawn(12, features, seed)
    found = mcd._raw(rows, 8, np.random.RandomState(0))
    assert np.exp(found.log_det) == pytest.approx(least(rows, 8), rel=1e-9)


def test_candidates_of_groups_come_to_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn(120, 3)
    whole = mcd._raw(rows, 62, np.random.RandomState(0))
    for name, value in {"_SMALL": 50, "_GROUP": 40, "_MERGED": 80, "_TRIALS": 30}.items():
        monkeypatch.setattr(mcd, name, value)
    grouped = mcd._raw(rows, 62, np.random.RandomState(1))
    assert grouped.log_det == pytest.approx(whole.log_det, abs=0.05)


def test_it_moves_with_its_rows() -> None:
    rows, change, shift = drawn(80, 3), drawn(3, 3, 5), np.array([4.0, -1.0, 9.0])
    centre, covariance = mcd.fast_mcd(rows)
    moved, turned = mcd.fast_mcd(rows @ change + shift)
    np.testing.assert_allclose(moved, centre @ change + shift, rtol=1e-8)
    np.testing.assert_allclose(turned, change.T @ covariance @ change, rtol=1e-8)


def test_rows_in_a_plane_are_kept_and_no_others() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 3))
    rows[:60, 2] = 2 * rows[:60, 0]
    centre, covariance = mcd.fast_mcd(rows)
    across = np.array([2.0, 0.0, -1.0])
    assert across @ covariance @ across < 1e-12
    assert abs(across @ centre) < 1e-12
    assert np.linalg.eigvalsh(covariance)[1] > 0.3


def test_rows_most_of_which_are_equal_are_refused() -> None:
    rows = np.ones((40, 2))
    rows[:10] = drawn(10, 2)
    with pytest.raises(DataError, match="of 40 benign inputs are equal; raise support"):
        mcd.fast_mcd(rows)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "features", "support"), [(600, 3, None), (1700, 5, 0.75)])
def test_many_rows_have_scikit_learns_estimates(
    n: int, features: int, support: float | None
) -> None:
    rows = drawn(n, features)
    rows[: n // 10] += 20
    theirs = MinCovDet(support_fraction=support, random_state=0).fit(rows)
    centre, covariance = mcd.fast_mcd(rows, support)
    np.testing.assert_allclose(centre, theirs.location_, rtol=1e-6)
    np.testing.assert_allclose(covariance, theirs.covariance_, rtol=1e-6)
