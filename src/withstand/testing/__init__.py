"""Conformance suites for what others add to withstand."""

from ._attacks import check_attack

__all__ = ["check_attack"]
