"""The share of a project's tests that are robustness tests, as the pytest plugin counted it."""

from __future__ import annotations

import json
from pathlib import Path

from .._errors import DataError, one_line
from ..stats import Interval


def read_coverage(path: str | Path) -> Interval | None:
    """The share, a count of all tests and so without an interval; None where there is no file.

    Raises DataError for what is no such file.
    """
    path = Path(path)
    try:
        told = json.loads(path.read_bytes())
        tests, robustness = int(told["tests"]), int(told["robustness"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({one_line(error)}); write it anew with `pytest "
            "--robustness-coverage`"
        ) from None
    if not 0 <= robustness <= tests:
        raise DataError(
            f"{path} counts {robustness} robustness tests of {tests}; write it anew with `pytest "
            "--robustness-coverage`"
        )
    share = robustness / tests if tests else float("nan")
    return Interval(value=share, low=share, high=share, n=tests)
