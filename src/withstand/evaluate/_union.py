"""One figure for several threats: who withstands all of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .._errors import DataError
from ..stats import Interval, wilson
from ._report import Report


def union(reports: Mapping[str, Report]) -> Interval:
    """The share of samples that are right and that no threat fools (Tramèr and Boneh 2019).

    reports: of one model on the same samples, by the threat's name. As robust accuracy it is an
    upper bound. Raises DataError where there is no report, or one of another model or other data.
    """
    if not reports:
        raise DataError("there are 0 reports to unite; give one for each threat")
    (first, one), *others = reports.items()
    for name, other in others:
        for what, then, now in (
            ("data", one.provenance["data"]["digest"], other.provenance["data"]["digest"]),
            ("model", one.provenance["model"], other.provenance["model"]),
        ):
            if then != now:
                raise DataError(
                    f"the report on {name} is of another {what} than that on {first}; evaluate one "
                    "model on the same samples under each threat"
                )
    lost = [
        np.isin(report.samples.status, ("fooled", "already wrong")) for report in reports.values()
    ]
    robust = ~np.any(lost, axis=0)
    return wilson(int(robust.sum()), len(robust))
