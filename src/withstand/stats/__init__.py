"""Intervals and tests: what a figure from n samples can say."""

from ._intervals import Interval, bootstrap, clopper_pearson, wilson

__all__ = ["Interval", "bootstrap", "clopper_pearson", "wilson"]
