"""Fitted detectors in the path of requests, under a deadline."""

from ._sensor import DetectorSensor

__all__ = ["DetectorSensor"]
