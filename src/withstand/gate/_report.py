"""A gate that judges a finished report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .._errors import DataError
from ..config import GateConfig
from ..stats import Interval
from ..threat import ACCESS, Access, Threat
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
    given: Access | None = None,
) -> Gate:
    """Hold the limits against a report's figures and intervals.

    extra: figures from elsewhere. threat: the one that the limits are meant for, given: the most
    that the model gives away; raises DataError for a report of another threat, or of an attacker
    who saw less.
    """
    if threat is not None:
        access = max(threat.access, given or threat.access, key=ACCESS.index)
        _check_same(report["threat"], {**threat.describe(), "access": access})
    measured = from_report(report, baseline)
    measured = replace(measured, figures={**measured.figures, **(extra or {})})
    return Gate(checks=judge(measured, asked), measured=measured, spent=report["cost"])


def _check_same(told: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in ("region", "goal", "queries", "access"):
        same = told[key] == wanted[key]
        if key == "access":
            same = ACCESS.index(told[key]) <= ACCESS.index(wanted[key])
        if not same:
            raise DataError(
                f"the report's {key} is {told[key]!r}, the configuration's {wanted[key]!r}; "
                "run `withstand evaluate` again"
            )
