"""A gate that judges a finished report."""

from __future__ import annotations

from typing import Any

from ..config import GateConfig
from ..threat import Access, Threat
from ._baseline import Baseline
from ._judge import Gate, judge
from ._measured import Extra, from_report
from ._same import check_threat


def judge_report(
    report: dict[str, Any],
    asked: GateConfig,
    baseline: Baseline | None = None,
    extra: Extra | None = None,
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
        check_threat(report["threat"], threat, given)
    measured = from_report(report, baseline).beside(extra or {})
    return Gate(checks=judge(measured, asked), measured=measured, spent=report["cost"])
