"""Intervals and tests: what a figure from n samples can say."""

from ._intervals import Interval, bootstrap, clopper_pearson, wilson
from ._mcnemar import mcnemar
from ._paired import difference, paired_difference
from ._quantiles import Ends, enough, quantile_ends, quantile_interval, weighted_sum
from ._sequential import Survey

__all__ = [
    "Ends",
    "Interval",
    "Survey",
    "bootstrap",
    "clopper_pearson",
    "difference",
    "enough",
    "mcnemar",
    "paired_difference",
    "quantile_ends",
    "quantile_interval",
    "weighted_sum",
    "wilson",
]
