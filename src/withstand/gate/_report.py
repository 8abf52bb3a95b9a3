"""A gate that judges a finished report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .._errors import DataError
from ..config import GateConfig
from ..stats import Interval
from ..threat import Threat
from ._baseline import Baseline
from ._judge import Gate, judge
from ._measured import from_report


def judge_report(
    report: dict[str, Any],
    asked: GateConfig,
    baseline: Baseline | None = None,
    extra: dict[str, Interval] | None = None,
    *,
    threat: Threat | None = None,
) -> Gate:
    """Hold the limits against a report's figures and intervals.

    extra: figures from elsewhere. threat: the one that the limits are meant for; raises DataError
    for a report of another one.
    """
    if threat is not None:
        wanted, told = threat.describe(), report["threat"]
        for key in ("region", "goal"):
            if told[key] != wanted[key]:
                raise DataError(
                    f"the report's {key} is {told[key]!r}, the configuration's {wanted[key]!r}; "
                    "run `withstand evaluate` again"
                )
    measured = from_report(report, baseline)
    measured = replace(measured, figures={**measured.figures, **(extra or {})})
    return Gate(checks=judge(measured, asked), measured=measured, spent=report["cost"])
