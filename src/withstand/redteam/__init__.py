"""Attacks with permission, on an endpoint in service."""

from ._runs import Run, Runs, RunState

__all__ = ["Run", "RunState", "Runs"]
