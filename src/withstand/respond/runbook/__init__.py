"""Runbooks: what is done about an incident, in files that people write."""

from ._read import parse, runbooks
from ._references import NAMES, resolved
from ._runbook import Runbook, RunbookStep, When

__all__ = ["NAMES", "Runbook", "RunbookStep", "When", "parse", "resolved", "runbooks"]
