"""All checks in one place, and what they find."""

from __future__ import annotations

import time
from collections.abc import Callable

from .._report import Cost, Finding, Trust
from . import _after, _before, _during, _gradients
from ._check import Case, Check

CHECKS: tuple[Check, ...] = (
    *_before.CHECKS,
    *_gradients.CHECKS,
    *_during.CHECKS,
    *_after.CHECKS,
)
"""Every check, in the order in which an evaluation meets its subject."""


def judge(case: Case, tell: Callable[[int, int], None] | None = None) -> Trust:
    """What the checks that apply have found; tell: called with the checks done, and all of them."""
    found: list[Finding] = []
    began, cpu = time.monotonic(), time.process_time()
    for number, check in enumerate(CHECKS):
        finding = check.find(case)
        if finding is not None:
            found.append(finding)
        if tell is not None:
            tell(number + 1, len(CHECKS))
    cost = Cost(
        forwards=case.purse.forwards,
        backwards=case.purse.backwards,
        cpu_seconds=time.process_time() - cpu,
        wall_seconds=time.monotonic() - began,
    )
    return Trust(findings=tuple(found), cost=cost)
