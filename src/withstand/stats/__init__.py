"""Intervals and tests: what a figure from n samples can say."""

from ._betting import binomial_test, fewest, log_wealth, lower_bound, lower_sequence, upper_bound
from ._intervals import Interval, bootstrap, clopper_pearson, mean_within, wilson
from ._mcnemar import mcnemar
from ._paired import difference, paired_difference
from ._quantiles import Ends, enough, quantile_ends, quantile_interval, weighted_sum
from ._sequential import Survey
from ._stability import stability, stability_by_chance
from ._two_arms import log_above, log_below

__all__ = [
    "Ends",
    "Interval",
    "Survey",
    "binomial_test",
    "bootstrap",
    "clopper_pearson",
    "difference",
    "enough",
    "fewest",
    "log_above",
    "log_below",
    "log_wealth",
    "lower_bound",
    "lower_sequence",
    "mcnemar",
    "mean_within",
    "paired_difference",
    "quantile_ends",
    "quantile_interval",
    "stability",
    "stability_by_chance",
    "upper_bound",
    "weighted_sum",
    "wilson",
]
