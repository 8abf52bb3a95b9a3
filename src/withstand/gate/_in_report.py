"""Figures of a finished report that a gate which stops early has not."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isnan, nan
from typing import Any

from ..stats import Interval, wilson

_PARTS = {"worst_class_accuracy": "classes", "worst_group_accuracy": "groups"}
IN_REPORTS = (*_PARTS, "median_distance", "severity", "money_rate")


def in_report(report: dict[str, Any]) -> dict[str, Interval | str]:
    """Each of these by metric, and for those that the report has not the reason."""
    severity = report["severity"]
    money = (report["business"] or {}).get("money")
    found: dict[str, Interval | str] = {
        "median_distance": "the threat has no norm to tell distances in",
        "severity": "the report has no costs of mistakes; give evaluate.severity",
        "money_rate": "the report has no money; give the table's file a stake",
    }
    for metric, parts in _PARTS.items():
        slices = report[parts]
        found[metric] = _worst(slices) if slices else f"the report has no {parts}"
    if report["median_distance"] is not None:
        found["median_distance"] = _endless(figure(report["median_distance"]))
    if severity is not None:
        found["severity"] = figure(severity["robust_mean"])
    if money is not None:
        found["money_rate"] = figure(money["rate"])
    return found


def _endless(distance: Interval) -> Interval:
    """A distance of a report, which has null where nothing was found."""
    value, low, high = (
        inf if isnan(end) else end for end in (distance.value, distance.low, distance.high)
    )
    return replace(distance, value=value, low=low, high=high)


def _worst(parts: list[dict[str, Any]]) -> Interval:
    """The least robust accuracy of classes or groups; both ends are of the worst of them all.

    The lower end holds of all parts if it holds of each. So that the upper one does too, the parts
    share its 2.5 %.
    """
    found = [figure(part["robust_accuracy"]) for part in parts]
    found = [one for one in found if one.n]
    shared = 1 - 0.05 / max(len(found), 1)
    least = min(found, key=lambda one: one.value, default=wilson(0, 0))
    return Interval(
        value=least.value,
        low=min((one.low for one in found), default=nan),
        high=min(
            (wilson(round(one.value * one.n), one.n, shared).high for one in found), default=nan
        ),
        n=least.n,
    )


def figure(told: dict[str, Any]) -> Interval:
    """A figure of a report."""
    value, low, high = (
        nan if told[k] is None else float(told[k]) for k in ("value", "low", "high")
    )
    return Interval(value=value, low=low, high=high, n=int(told["n"]))
