"""Drift of what clients send: histograms of a table's features against those that are usual."""

from ._sensor import FeatureDrift
from ._window import FeatureReading, Reading, Window

__all__ = ["FeatureDrift", "FeatureReading", "Reading", "Window"]
