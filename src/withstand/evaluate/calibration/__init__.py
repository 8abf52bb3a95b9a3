"""Calibration of perturbation bounds: how far attacks, or the world, really move inputs."""

from ._columns import ColumnFit, advised_changes, judge_columns
from ._factor import Factor, calibrate_factor, read_factor
from ._judge import Judgement, Price, advised, judge, measure, outside, price
from ._pairs import calibrate_pairs
from ._read import Samples, read_pairs, read_samples
from ._result import Calibration, Column, Transport
from ._rewrite import set_most, set_region
from ._samples import calibrate_samples
from ._show import show, show_factor

__all__ = [
    "Calibration",
    "Column",
    "ColumnFit",
    "Factor",
    "Judgement",
    "Price",
    "Samples",
    "Transport",
    "advised",
    "advised_changes",
    "calibrate_factor",
    "calibrate_pairs",
    "calibrate_samples",
    "judge",
    "judge_columns",
    "measure",
    "outside",
    "price",
    "read_factor",
    "read_pairs",
    "read_samples",
    "set_most",
    "set_region",
    "show",
    "show_factor",
]
