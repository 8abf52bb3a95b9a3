"""Calibration of perturbation bounds: how far attacks, or the world, really move inputs."""

from ._factor import Factor, calibrate_factor, read_factor
from ._judge import Judgement, Price, advised, judge, measure, outside, price
from ._pairs import calibrate_pairs
from ._read import Samples, read_pairs, read_samples
from ._result import Calibration, Column, Transport
from ._rewrite import set_region
from ._samples import calibrate_samples
from ._show import show, show_factor

__all__ = [
    "Calibration",
    "Column",
    "Factor",
    "Judgement",
    "Price",
    "Samples",
    "Transport",
    "advised",
    "calibrate_factor",
    "calibrate_pairs",
    "calibrate_samples",
    "judge",
    "measure",
    "outside",
    "price",
    "read_factor",
    "read_pairs",
    "read_samples",
    "set_region",
    "show",
    "show_factor",
]
